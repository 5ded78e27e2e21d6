import { join } from "node:path";
import type { Logger } from "pino";
import type { DeliveryStatus, StreamStatus } from "../observer.ts";
import { createDiskStore } from "./disk-store.ts";
import { createLossTeller, type Limits, type StoreEvent } from "./limits.ts";
import { createMemoryStore } from "./memory-store.ts";
import { Outbox } from "./outbox.ts";
import type { RecordStore } from "./record.ts";
import { createSender, type Sender, type SenderOptions } from "./sender.ts";

/** Where records wait: on disk, or in the database. */
export type Spool = SpoolFolder | Outbox;

/** A folder of files. */
export interface SpoolFolder {
  /** The folder of all targets; one folder of each target is made in it. Processes may share it. */
  folder: string;
  /** Waits for the disk itself after every write. Default false: safe against `kill -9`, not against power loss. */
  fsync?: boolean | undefined;
  limits?: Partial<Limits> | undefined;
}

/** What a target sends. */
export type Stream = "spans" | "scores";

export interface SpooledSenderOptions extends Omit<SenderOptions, "store"> {
  /** Without it records wait in memory. */
  spool: Spool | undefined;
  /** Such as `langfuse`; the name of its folder. */
  target: string;
  stream: Stream;
  log: Logger;
}

/** The folders of a target's stream. */
export function spoolFolders(
  folder: string,
  target: string,
  stream: Stream,
): { records: string; deadLetters: string } {
  return {
    records: join(folder, target, stream),
    deadLetters: join(folder, target, `${stream}-dead-letters`),
  };
}

/** The name of a target's stream in the database. */
function outboxQueue(target: string, stream: Stream): string {
  return `${target}/${stream}`;
}

/** A sender with the store the options ask for, which says in the log what becomes of it. */
export function createSpooledSender(options: SpooledSenderOptions): Sender {
  const { spool, target, stream, log: _log, ...rest } = options;
  const { superseded } = options;
  const say = createStoreLog(options);
  const sender: Sender = createSender({ ...rest, store: openStore() });
  return sender;

  function openStore(): RecordStore {
    if (spool === undefined) {
      const tellLoss = createLossTeller(say);
      return createMemoryStore((records) => tellLoss(records, "the queue is full"));
    }
    if (spool instanceof Outbox) {
      return spool.openStore(outboxQueue(target, stream), {
        onEvent: say,
        onAdopted: () => sender.wake(),
      });
    }
    const folders = spoolFolders(spool.folder, target, stream);
    return createDiskStore({
      superseded,
      folder: folders.records,
      deadLetterFolder: folders.deadLetters,
      limits: spool.limits,
      fsync: spool.fsync ?? false,
      onEvent: say,
      onAdopted: () => sender.wake(),
    });
  }
}

function createStoreLog({
  target,
  stream,
  spool,
  log,
}: SpooledSenderOptions): (event: StoreEvent) => void {
  const place =
    spool === undefined
      ? "memory"
      : spool instanceof Outbox
        ? "the database"
        : spoolFolders(spool.folder, target, stream).records;
  const base = { target, place };
  return (event) => {
    switch (event.kind) {
      case "away":
        log.error(
          base,
          `The ${stream} for ${target} cannot be written to ${place} (${event.error}). They wait in memory until it takes them again; runs are not affected.`,
        );
        break;
      case "back":
        log.info(base, `The ${stream} for ${target} are written to ${place} again.`);
        break;
      case "adopted":
        if (event.records + event.torn === 0) break;
        log.info(
          { ...base, records: event.records, torn: event.torn },
          `${event.records} ${stream} for ${target} that another process left are being sent${event.torn === 0 ? "" : `; ${event.torn} files end in half a record, which is skipped`}.`,
        );
        break;
      case "dropped":
        log.error(
          { ...base, records: event.records },
          `${event.records} ${stream} for ${target} were given up: ${event.why}.`,
        );
        break;
      case "unreadable":
        log.error(
          { ...base, file: event.file, records: event.records, bytes: event.bytes },
          `A file of the spool is damaged, and ${event.records} ${stream} for ${target} in it are lost, ${event.bytes} bytes; the others in it are sent: ${event.file}.`,
        );
        break;
      case "foreign":
        log.error(
          { ...base, file: event.file },
          `A file in the spool of the ${stream} for ${target} is not one of this version's and is left aside: ${event.file}.`,
        );
        break;
    }
  };
}

/** How delivery to a target stands, for `/info`. */
export function toDeliveryStatus(spans: Sender, scores?: Sender): DeliveryStatus {
  return {
    spool: spans.store.kind,
    ...toStreamStatus(spans),
    ...(scores === undefined
      ? {}
      : {
          scores: {
            ...scores.counts(),
            ...toStreamStatus(scores),
            last_error: scores.lastError,
          },
        }),
  };
}

function toStreamStatus(sender: Sender): StreamStatus {
  const { pending, counts } = sender.store;
  const report = sender.report();
  return {
    pending_bytes: pending.bytes,
    oldest_ms: pending.oldest === undefined ? undefined : Math.max(0, Date.now() - pending.oldest),
    last_success_at: toIso(report.lastSuccessAt),
    last_error_at: toIso(report.lastErrorAt),
    retried: report.retried,
    dead_lettered: report.deadLettered,
    adopted: counts.adopted,
    torn: counts.torn,
  };
}

function toIso(time: number | undefined): string | undefined {
  return time === undefined ? undefined : new Date(time).toISOString();
}
