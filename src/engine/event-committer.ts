import { AsyncResource } from "node:async_hooks";
import type { Logger } from "../observability/log.ts";
import type { RunEvent } from "../protocol/runs.ts";
import type { LeasedEvents, RunEventRepository } from "../storage/run-events.ts";
import type { Lease } from "../storage/run-queue.ts";
import { CHANNEL, toChangedPayloads } from "./mailbox.ts";

/** Between two statements. The first event after a pause goes at once. */
const INTERVAL_MS = 15;
const MAX_STATEMENT_CHARS = 4 * 1024 * 1024;
const FIRST_RETRY_MS = 100;
const MAX_RETRY_MS = 2_000;

/** What one execution has for the database. */
export interface Outbox {
  readonly lease: Lease;
  /** Whether readers in other processes are told. */
  watched: boolean;
  /** Set when the lease turned out to be another's: nothing more is written. */
  lost: boolean;
  waiting: RunEvent[];
  /** How many events were added, and how many of them do not wait any more. */
  added: number;
  settled: number;
  /** What is in the database, oldest first. */
  written: { lastId: number; chars: number }[];
  writtenChars: number;
}

export function createOutbox(lease: Lease, watched: boolean): Outbox {
  return {
    lease,
    watched,
    lost: false,
    waiting: [],
    added: 0,
    settled: 0,
    written: [],
    writtenChars: 0,
  };
}

interface Part extends LeasedEvents {
  outbox: Outbox;
  chars: number;
}

/**
 * Writes the events of all runs of a process together.
 *
 *   idle --add--> waiting (the rest of the interval) --> writing --> waiting, or idle if nothing is left
 *
 * While the database does not answer, everything waits and is tried again; whoever waits in `flush` is told.
 */
export class EventCommitter {
  readonly #repository: RunEventRepository;
  readonly #log: Logger;
  readonly #maxRunChars: number;
  readonly #dirty = new Set<Outbox>();
  /** The loop serves all runs, so it must not inherit the async context (trace, transaction) of one. */
  readonly #context = new AsyncResource("aegra.events");
  #timer: NodeJS.Timeout | undefined;
  #running: Promise<void> | undefined;
  #sentAt = 0;
  #failures = 0;

  /** `maxRunChars`: what the database keeps of one execution; past it the oldest go. */
  constructor(options: { repository: RunEventRepository; log: Logger; maxRunChars: number }) {
    this.#repository = options.repository;
    this.#log = options.log;
    this.#maxRunChars = options.maxRunChars;
  }

  add(outbox: Outbox, events: readonly RunEvent[]): void {
    if (outbox.lost) return;
    for (const event of events) outbox.waiting.push(event);
    outbox.added += events.length;
    this.#dirty.add(outbox);
    if (this.#running || this.#timer) return;
    const waitMs = this.#failures > 0 ? this.#retryMs() : this.#sentAt + INTERVAL_MS - Date.now();
    this.#schedule(Math.max(0, waitMs));
  }

  /**
   * Resolves when all that was added before this call is written, or is nobody's any more; rejects if it could
   * not be, yet.
   */
  async flush(outbox: Outbox): Promise<void> {
    const { added } = outbox;
    while (outbox.settled < added) await this.#send();
  }

  /** Gives up what an execution has not written yet. */
  drop(outbox: Outbox): void {
    outbox.lost = true;
    outbox.waiting = [];
    outbox.settled = outbox.added;
    this.#dirty.delete(outbox);
  }

  #schedule(waitMs: number): void {
    this.#context.runInAsyncScope(() => {
      this.#timer = setTimeout(() => void this.#send().catch(() => {}), waitMs);
    });
  }

  /** One statement at a time; who comes while one is on its way waits for it. */
  #send(): Promise<void> {
    this.#running ??= this.#context
      .runInAsyncScope(() => this.#sendOnce())
      .finally(() => {
        this.#running = undefined;
        this.#sentAt = Date.now();
        if (this.#dirty.size > 0 && !this.#timer) {
          this.#schedule(this.#failures > 0 ? this.#retryMs() : INTERVAL_MS);
        }
      });
    return this.#running;
  }

  async #sendOnce(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const parts = this.#take();
    if (parts.length === 0) return;
    try {
      await this.#write(parts);
      this.#failures = 0;
    } catch (error) {
      this.#failures += 1;
      if (this.#failures === 1) this.#log.warn({ err: error }, "events wait for the database");
      throw error;
    }
  }

  #take(): Part[] {
    const parts: Part[] = [];
    let chars = 0;
    for (const outbox of this.#dirty) {
      const events: RunEvent[] = [];
      const before = chars;
      for (const event of outbox.waiting) {
        if (chars > MAX_STATEMENT_CHARS) break;
        events.push(event);
        chars += event.data.length;
      }
      if (events.length > 0) {
        parts.push({ outbox, lease: outbox.lease, events, chars: chars - before });
      }
    }
    return parts;
  }

  async #write(parts: readonly Part[]): Promise<void> {
    const watched = parts.filter(({ outbox }) => outbox.watched);
    const payloads = toChangedPayloads(watched.map(({ lease }) => lease.run_id));
    let held: ReadonlySet<string>;
    try {
      held = await this.#repository.append(parts, { channel: CHANNEL, payloads });
    } catch (error) {
      if (!isRefusal(error)) throw error;
      if (parts.length > 1) {
        for (const part of parts) await this.#write([part]);
        return;
      }
      // The database does not take these, however often they are offered; the run goes on.
      const { lease } = parts[0]!;
      this.#log.error({ err: error, run_id: lease.run_id }, "events cannot be stored");
      this.#settle(parts[0]!);
      return;
    }
    for (const part of parts) {
      if (!held.has(part.lease.run_id)) this.drop(part.outbox);
      else await this.#keep(part);
    }
  }

  #settle({ outbox, events }: Part): void {
    outbox.waiting = outbox.waiting.slice(events.length);
    outbox.settled += events.length;
    if (outbox.waiting.length === 0) this.#dirty.delete(outbox);
  }

  async #keep(part: Part): Promise<void> {
    const { outbox, events, chars } = part;
    if (outbox.lost) return;
    this.#settle(part);
    outbox.written.push({ lastId: events.at(-1)!.id, chars });
    outbox.writtenChars += chars;
    if (outbox.writtenChars <= this.#maxRunChars) return;
    let lastId = -1;
    while (outbox.writtenChars > this.#maxRunChars / 2 && outbox.written.length > 1) {
      const oldest = outbox.written.shift()!;
      outbox.writtenChars -= oldest.chars;
      ({ lastId } = oldest);
    }
    if (lastId >= 0) await this.#repository.trim(outbox.lease.run_id, lastId);
  }

  #retryMs(): number {
    return Math.min(MAX_RETRY_MS, FIRST_RETRY_MS * 2 ** this.#failures);
  }
}

/** Whether the data itself is refused (22), or is too large (54). */
function isRefusal(error: unknown): boolean {
  const { code } = error as { code?: unknown };
  return typeof code === "string" && /^(22|54)/.test(code);
}
