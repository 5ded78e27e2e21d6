import { closeSync, existsSync, openSync, writevSync } from "node:fs";
import { open, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { listDeadLetters, writeDeadLetter } from "./dead-letters.ts";
import { MemoryQueue, type MemoryLimits } from "./memory-queue.ts";
import { Outgoing } from "./outgoing.ts";
import type {
  BatchLimit,
  DeliveryRecord,
  RecordBatch,
  RecordStore,
  StoreLevel,
  StoredRecord,
} from "./record.ts";
import { Segment, type SpooledRecord } from "./segment.ts";
import { FRAME_BYTES, frame, SEGMENT_MAGIC } from "./segment-format.ts";
import { newSegmentName, openWriterFolder, type WriterFolder } from "./writer-folder.ts";

/*
 * Where records are on their way out:
 *
 *   queue ──written, within a tick──▶ segment ──read──▶ outgoing ──settled──▶ gone; a segment with no other is removed
 *     └──the disk takes nothing──▶ memory ──the disk is back──▶ queue        └──too old, no room──▶ dropped, counted
 *                                    └──read──▶ outgoing
 *
 * The disk:   opening ──▶ open ──a write fails──▶ away ──tried again every few seconds──▶ open
 */

export interface DiskLimits {
  /** Bytes of this process's files; past them the oldest traces go. */
  maxBytes: number;
  /** Older records are given up. */
  maxAgeMs: number;
  /** A larger record is given up. */
  maxRecordBytes: number;
  /** What may wait in memory while the disk takes nothing. */
  memory: MemoryLimits;
  /** Dead letters kept. */
  maxDeadLetters: number;
}

export const DEFAULT_DISK_LIMITS: DiskLimits = {
  maxBytes: 2 * 1_024 * 1_024 * 1_024,
  maxAgeMs: 7 * 24 * 3_600_000,
  maxRecordBytes: 16 * 1_024 * 1_024,
  memory: { maxRecords: 200_000, maxBytes: 64 * 1_024 * 1_024 },
  maxDeadLetters: 10_000,
};

/** What happens to a store, for a log; each is told once per change, losses at most once a minute. */
export type StoreEvent =
  | { kind: "disk_away"; error: string }
  | { kind: "disk_back" }
  | { kind: "adopted"; records: number; torn: number }
  | { kind: "dropped"; records: number; why: string }
  | { kind: "unreadable"; file: string; records: number };

export interface DiskStoreOptions {
  /** The folder of this store alone; processes may share it. Made, for its owner only, if it is missing. */
  folder: string;
  /** For records the server will not take. */
  deadLetterFolder: string;
  limits?: Partial<DiskLimits> | undefined;
  /** Waits for the disk itself after every write: safe against power loss, and slower. */
  fsync: boolean;
  /** How often a disk that takes nothing is tried again, and neighbours are looked after. */
  retryMs?: number;
  adoptMs?: number;
  onEvent: (event: StoreEvent) => void;
  /** Something can be taken that was not added here. */
  onAdopted: () => void;
}

/** A store in files that outlive the process. Opens in the background; `close` ends it. */
export function createDiskStore(options: DiskStoreOptions): RecordStore {
  return new DiskStore(options);
}

const SEGMENT_BYTES = 4 * 1_024 * 1_024;
const RETRY_MS = 3_000;
const ADOPT_MS = 10_000;
/** What may wait for a disk that is slow, before it counts as one that takes nothing. */
const MAX_UNWRITTEN_BYTES = 32 * 1_024 * 1_024;
const MAX_VICTIMS = 100_000;
const SAY_AGAIN_MS = 60_000;
/** How long records wait for more to be written with, and how much is enough. */
const COALESCE_MS = 2;
const WRITE_NOW_BYTES = 256 * 1_024;
const PROBE_BYTES = 256 * 1_024;
/** How long a batch waits for what is just being written. */
const WRITE_WAIT_MS = 50;

class DiskStore implements RecordStore {
  readonly kind = "disk";
  readonly counts = { dropped: 0, adopted: 0, torn: 0, left: 0 };
  readonly #options: DiskStoreOptions;
  readonly #limits: DiskLimits;
  readonly #memory: MemoryQueue<SpooledRecord>;
  readonly #outgoing: Outgoing<SpooledRecord>;
  /** Oldest first. */
  #segments: Segment[] = [];
  #current: Segment | undefined;
  #folder: WriterFolder | undefined;
  #queue: SpooledRecord[] = [];
  #queueBytes = 0;
  #writing: SpooledRecord[] = [];
  #draining: Promise<void> | undefined;
  #writeTimer: NodeJS.Timeout | undefined;
  /** Those that wait for what is being written, and for what is in the queue. */
  #writers: (() => void)[] = [];
  #waiters: (() => void)[] = [];
  #away = false;
  #closed = false;
  #records = 0;
  #bytes = 0;
  #reading: Promise<unknown> = Promise.resolve();
  /** Files that were taken over and could not be read yet. */
  #unadopted: string[] = [];
  readonly #victims = new Set<string>();
  readonly #said = new Map<string, { at: number; records: number }>();
  #deadLetters: number | undefined;
  #retry: NodeJS.Timeout | undefined;
  #adoption: NodeJS.Timeout | undefined;
  #adopting: Promise<void> | undefined;
  readonly #onExit = (): void => this.#writeAtExit();

  constructor(options: DiskStoreOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_DISK_LIMITS, ...options.limits };
    this.#memory = new MemoryQueue(this.#limits.memory, (records) =>
      this.#drop(records, "the disk takes nothing and there is no room in memory"),
    );
    this.#outgoing = new Outgoing((records) => this.#onGone(records));
    process.on("exit", this.#onExit);
    this.#writeNow();
  }

  get pending(): StoreLevel {
    const times = [
      this.#outgoing.oldest,
      this.#segments.find((segment) => segment.unread > 0)?.time,
      this.#memory.peek()?.time,
      this.#writing[0]?.time,
      this.#queue[0]?.time,
    ].filter((time) => time !== undefined);
    return {
      records: this.#records,
      bytes: this.#bytes,
      oldest: this.#records === 0 || times.length === 0 ? undefined : Math.min(...times),
    };
  }

  get waiting(): number {
    let unread = 0;
    for (const segment of this.#segments) unread += segment.unread;
    return (
      unread +
      this.#memory.length +
      this.#outgoing.waiting +
      this.#queue.length +
      this.#writing.length
    );
  }

  add(record: DeliveryRecord): void {
    const stored: SpooledRecord = { ...record, time: Date.now(), segment: undefined };
    this.#records += 1;
    this.#bytes += record.bytes.length;
    if (record.bytes.length > this.#limits.maxRecordBytes) {
      this.#drop([stored], "it is larger than a record may be");
    } else if (this.#victims.has(record.traceId)) {
      this.#drop([stored], "its trace had to go");
    } else if (this.#away || this.#queueBytes > MAX_UNWRITTEN_BYTES) {
      this.#memory.add(stored);
    } else {
      this.#queue.push(stored);
      this.#queueBytes += record.bytes.length;
      this.#writeSoon();
    }
  }

  async take(limit: BatchLimit): Promise<RecordBatch | undefined> {
    await this.#written(WRITE_WAIT_MS);
    return this.#exclusive(() =>
      this.#outgoing.take(limit, {
        peek: () => this.#peek(),
        shift: (record) =>
          record.segment === undefined
            ? (this.#memory.shift() ?? record)
            : record.segment.shift(record),
      }),
    );
  }

  async recorded(): Promise<void> {
    if (this.#queue.length === 0 && this.#writing.length === 0) return;
    const written = new Promise<void>((resolve) => {
      (this.#queue.length === 0 ? this.#writers : this.#waiters).push(resolve);
    });
    this.#writeNow();
    await written;
  }

  async #written(timeoutMs: number): Promise<void> {
    if (this.#queue.length === 0 && this.#writing.length === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, timeoutMs);
      void this.recorded().finally(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  async bury(record: StoredRecord, answer: string): Promise<boolean> {
    const folder = this.#options.deadLetterFolder;
    try {
      // Others add to them and take them away, so a full folder is looked at again.
      if (this.#deadLetters === undefined || this.#deadLetters >= this.#limits.maxDeadLetters)
        this.#deadLetters = (await listDeadLetters(folder)).length;
      if (this.#deadLetters >= this.#limits.maxDeadLetters) return false;
      this.#deadLetters += 1;
      await writeDeadLetter(folder, { record, answer, buriedAt: Date.now() });
      return true;
    } catch {
      return false;
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#retry);
    clearTimeout(this.#adoption);
    await this.#adopting;
    for (const record of this.#memory.takeAll()) this.#queue.push(record);
    this.#writeNow();
    await this.#draining;
    await this.#exclusive(async () => {
      process.off("exit", this.#onExit);
      await this.#current?.seal().catch(() => {});
      for (const segment of this.#segments) await segment.close();
      this.counts.left = this.#segments.reduce(
        (total, segment) => total + segment.records - segment.settled,
        0,
      );
      // What is in memory alone ends here.
      this.counts.dropped += this.#records - this.counts.left;
      this.#records = this.counts.left;
      await this.#folder?.release().catch(() => {});
    });
  }

  // --- in -----------------------------------------------------------------------------------------------------

  /** What comes within a moment makes one write; a run that ends waits for none. */
  #writeSoon(): void {
    if (this.#queueBytes > WRITE_NOW_BYTES) this.#writeNow();
    else if (this.#draining === undefined)
      this.#writeTimer ??= setTimeout(() => this.#writeNow(), COALESCE_MS);
  }

  #writeNow(): void {
    clearTimeout(this.#writeTimer);
    this.#writeTimer = undefined;
    if (this.#draining !== undefined) return;
    if (this.#queue.length > 0 || this.#folder === undefined) this.#draining = this.#drain();
  }

  /** One write at a time; what comes meanwhile makes the next one. */
  async #drain(): Promise<void> {
    while (this.#queue.length > 0 || this.#folder === undefined) {
      const records = (this.#writing = this.#queue);
      this.#writers = this.#waiters;
      this.#queue = [];
      this.#waiters = [];
      this.#queueBytes = 0;
      let failure: { error: unknown } | undefined;
      try {
        await this.#openFolder();
        await this.#write(records);
      } catch (error) {
        failure = { error };
      }
      this.#writing = [];
      for (const wake of this.#writers.splice(0)) wake();
      if (failure === undefined) continue;
      await this.#turnAway(records, failure.error);
      for (const wake of this.#waiters.splice(0)) wake();
      break;
    }
    this.#draining = undefined;
    this.#removeSpent();
    if (this.#diskBytes() > this.#limits.maxBytes) void this.#exclusive(() => this.#makeRoom());
  }

  async #openFolder(): Promise<void> {
    if (this.#folder !== undefined) return;
    this.#folder = await openWriterFolder(this.#options.folder);
    if (!this.#closed) this.#adoptIn(0);
  }

  async #write(records: readonly SpooledRecord[]): Promise<void> {
    if (records.length === 0 || this.#folder === undefined) return;
    const current = this.#current ?? (await this.#openSegment(this.#folder));
    await current.append(records, { fsync: this.#options.fsync });
    const segmentBytes = Math.min(SEGMENT_BYTES, this.#limits.maxBytes / 16);
    if (current.size < segmentBytes) return;
    this.#current = undefined;
    await current.seal();
    if (this.#diskBytes() > this.#limits.maxBytes) await this.#exclusive(() => this.#makeRoom());
  }

  async #openSegment(folder: WriterFolder): Promise<Segment> {
    this.#current = await Segment.create(join(folder.path, newSegmentName()));
    this.#segments.push(this.#current);
    if (this.#options.fsync) await syncFolder(folder.path);
    return this.#current;
  }

  /** The disk takes nothing: on in memory, and back to the disk when it can be. */
  async #turnAway(records: readonly SpooledRecord[], error: unknown): Promise<void> {
    const segment = this.#current;
    this.#current = undefined;
    await segment?.seal().catch(() => {});
    if (!this.#away) this.#options.onEvent({ kind: "disk_away", error: textOf(error) });
    this.#away = true;
    for (const record of [...records, ...this.#queue]) this.#memory.add(record);
    this.#queue = [];
    this.#queueBytes = 0;
    if (this.#closed) return;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => void this.#tryDisk(), this.#options.retryMs ?? RETRY_MS);
    this.#retry.unref();
  }

  async #tryDisk(): Promise<void> {
    await this.#draining;
    if (this.#closed) return;
    try {
      // The folder itself may be what is missing.
      if (this.#folder !== undefined && !existsSync(this.#folder.path)) this.#folder = undefined;
      await this.#openFolder();
      await probeDisk(join(this.#folder?.path ?? "", ".probe"));
    } catch (error) {
      await this.#turnAway([], error);
      return;
    }
    this.#away = false;
    this.#options.onEvent({ kind: "disk_back" });
    await this.#exclusive(async () => {
      for (const record of this.#memory.takeAll()) this.#queue.push(record);
    });
    this.#writeNow();
  }

  /** What `process.exit()` would cut off. The next process adopts it. */
  #writeAtExit(): void {
    const records = [...this.#writing, ...this.#queue];
    if (this.#folder === undefined || records.length === 0) return;
    try {
      const file = openSync(join(this.#folder.path, newSegmentName()), "wx", 0o600);
      writevSync(file, [SEGMENT_MAGIC, ...records.flatMap((r) => [frame(r, r.time), r.bytes])]);
      closeSync(file);
    } catch {
      // There is nobody left to tell.
    }
  }

  // --- out ----------------------------------------------------------------------------------------------------

  /** The next record of the oldest file that has one, then of memory. Gives up what has to go. */
  async #peek(): Promise<SpooledRecord | undefined> {
    const oldest = Date.now() - this.#limits.maxAgeMs;
    for (const segment of this.#segments) {
      while (segment.unread > 0) {
        const record = await segment.peek().catch(toUnread);
        // Later, perhaps: what cannot be read now, such as for want of file handles, is not lost.
        if (record === undefined) break;
        if (record === "broken") {
          this.#giveUpRest(segment);
          break;
        }
        const why = this.#victims.has(record.traceId)
          ? "its trace had to go"
          : record.time < oldest
            ? "it is too old"
            : undefined;
        if (why === undefined) return record;
        segment.shift(record);
        segment.settled += 1;
        this.#drop([record], why);
      }
    }
    this.#removeSpent();
    return this.#memory.peek();
  }

  #giveUpRest(segment: Segment): void {
    const lost = segment.giveUpRest();
    this.#records -= lost;
    this.counts.dropped += lost;
    this.counts.torn += 1;
    if (segment === this.#current) this.#current = undefined;
    this.#options.onEvent({ kind: "unreadable", file: segment.path, records: lost });
  }

  #onGone(records: readonly SpooledRecord[]): void {
    for (const { segment, bytes } of records) {
      this.#records -= 1;
      this.#bytes -= bytes.length;
      if (segment !== undefined) segment.settled += 1;
    }
    this.#removeSpent();
  }

  /** Files all of whose records are settled. The one being written ends when nothing is about to be added to it. */
  #removeSpent(): void {
    const current = this.#current;
    if (current !== undefined && this.#draining === undefined && isSpent(current)) {
      current.sealed = true;
      this.#current = undefined;
    }
    if (!this.#segments.some((segment) => segment.sealed && isSpent(segment))) return;
    this.#segments = this.#segments.filter((segment) => {
      if (!segment.sealed || !isSpent(segment)) return true;
      segment.remove().catch(() => {});
      return false;
    });
    if (this.#records === 0) this.#bytes = 0;
  }

  // --- bounds -------------------------------------------------------------------------------------------------

  #diskBytes(): number {
    let bytes = 0;
    for (const segment of this.#segments) bytes += segment.size;
    return bytes;
  }

  /** The oldest files go, and with them whatever else there is of their traces. */
  async #makeRoom(): Promise<void> {
    while (this.#diskBytes() > this.#limits.maxBytes) {
      const oldest = this.#segments.find((segment) => segment.sealed && segment.underWay === 0);
      if (oldest === undefined) return;
      let records = 0;
      for (;;) {
        const record = await oldest.peek().catch(() => "broken" as const);
        if (record === undefined) break;
        if (record === "broken") {
          this.#giveUpRest(oldest);
          break;
        }
        oldest.shift(record);
        oldest.settled += 1;
        records += 1;
        this.#bytes -= record.bytes.length;
        this.#addVictim(record.traceId);
      }
      this.#records -= records;
      this.counts.dropped += records;
      this.#say("the traces waiting take more than they may", records);
      this.#segments = this.#segments.filter((segment) => segment !== oldest);
      await oldest.remove().catch(() => {});
    }
  }

  #addVictim(traceId: string): void {
    this.#victims.add(traceId);
    if (this.#victims.size <= MAX_VICTIMS) return;
    for (const oldest of this.#victims) {
      this.#victims.delete(oldest);
      return;
    }
  }

  #drop(records: readonly SpooledRecord[], why: string): void {
    this.counts.dropped += records.length;
    this.#records -= records.length;
    for (const { bytes } of records) this.#bytes -= bytes.length;
    this.#say(why, records.length);
  }

  #say(why: string, records: number): void {
    const said = this.#said.get(why);
    if (said !== undefined && Date.now() - said.at < SAY_AGAIN_MS) {
      said.records += records;
      return;
    }
    this.#said.set(why, { at: Date.now(), records: 0 });
    this.#options.onEvent({ kind: "dropped", records: records + (said?.records ?? 0), why });
  }

  // --- neighbours ---------------------------------------------------------------------------------------------

  #adoptIn(ms: number): void {
    clearTimeout(this.#adoption);
    this.#adoption = setTimeout(() => {
      this.#adopting = this.#adopt()
        .catch(() => {})
        .finally(() => {
          this.#adopting = undefined;
          if (!this.#closed && this.#folder !== undefined)
            this.#adoptIn(this.#options.adoptMs ?? ADOPT_MS);
        });
    }, ms);
    this.#adoption.unref();
  }

  async #adopt(): Promise<void> {
    const paths = [...this.#unadopted, ...((await this.#folder?.adopt()) ?? [])];
    this.#unadopted = [];
    if (paths.length === 0) return;
    let records = 0;
    let torn = 0;
    for (const path of paths) {
      const adopted = await Segment.adopt(path).catch(() => "unread" as const);
      if (adopted === "unread") {
        this.#unadopted.push(path);
        continue;
      }
      if (adopted === undefined) {
        await rename(path, `${path}.unknown`).catch(() => {});
        this.#options.onEvent({ kind: "unreadable", file: `${path}.unknown`, records: 0 });
        continue;
      }
      if (adopted.torn) torn += 1;
      const { segment } = adopted;
      records += segment.records;
      this.#records += segment.records;
      this.#bytes += segment.size - SEGMENT_MAGIC.length - segment.records * FRAME_BYTES;
      this.#segments.push(segment);
    }
    this.#segments.sort((a, b) => (a.name < b.name ? -1 : 1));
    this.counts.adopted += records;
    this.counts.torn += torn;
    this.#removeSpent();
    if (records + torn === 0) return;
    this.#options.onEvent({ kind: "adopted", records, torn });
    this.#options.onAdopted();
  }

  /** Taking and making room both read files; one of them at a time. */
  async #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#reading.then(work, work);
    this.#reading = turn.catch(() => {});
    return turn;
  }
}

/** What a failed read means for a file: it is gone, or it cannot be read now. */
function toUnread(error: unknown): "broken" | undefined {
  return error instanceof Error && "code" in error && error.code === "ENOENT"
    ? "broken"
    : undefined;
}

function isSpent(segment: Segment): boolean {
  return segment.records === segment.settled;
}

/** A new file's name is on the disk only when its folder is. */
async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A folder may be there where no file fits any more. */
async function probeDisk(path: string): Promise<void> {
  try {
    await writeFile(path, Buffer.alloc(PROBE_BYTES), { mode: 0o600 });
  } finally {
    await rm(path, { force: true });
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
