import type { Logger } from "../observability/log.ts";
import type { RunEventRepository } from "../storage/run-events.ts";
import type { RunRepository } from "../storage/runs.ts";
import type { ThreadTtlRepository } from "../storage/thread-ttl.ts";
import type { WebhookRepository } from "../storage/webhooks.ts";
import { gravityOf } from "./gravity.ts";

const SWEEP_MS = 60_000;
/** How long a run without a thread can still be asked for after its end. */
const TEMPORARY_RUN_MS = 60 * 60_000;
/** How long it can be seen what became of a webhook. */
const WEBHOOKS_MS = 7 * 24 * 60 * 60_000;
/** Rows, or runs with their events, that one statement deletes: it is over soon, and others can go on. */
const BATCH = 500;
/** Threads, each with its whole history, that one transaction deletes. */
const THREAD_BATCH = 20;

export interface SweeperOptions {
  runs: RunRepository;
  events: RunEventRepository;
  webhooks: WebhookRepository;
  ttls: ThreadTtlRepository;
  /** How long the events of a run are kept after its end. */
  eventsMs: number;
  /** How often expired threads are looked for. */
  threadSweepMs: number;
  /** How many expired threads are dealt with at a time. */
  threadSweepLimit: number;
  log: Logger;
}

/**
 * Removes what has outlived its use, in small batches. Every process may run one: what one of them is deleting,
 * the others leave to it.
 */
export class Sweeper {
  readonly #options: SweeperOptions;
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #sweeping = new Set<Promise<void>>();
  #closed = false;

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  /** Begins to sweep, now and then. */
  open(): void {
    this.#every(SWEEP_MS, () => this.sweep());
    this.#every(this.#options.threadSweepMs, () => this.sweepThreads());
  }

  /** Removes runs without a thread, events and webhooks that are old. */
  async sweep(): Promise<void> {
    const { runs, events, webhooks, eventsMs } = this.#options;
    await this.#batches(BATCH, () => runs.sweepTemporary(TEMPORARY_RUN_MS, BATCH));
    await this.#batches(BATCH, () => events.sweep(eventsMs, BATCH));
    await this.#batches(BATCH, () => webhooks.sweep(WEBHOOKS_MS, BATCH));
  }

  /** Removes threads that have expired, or their history. Gives how many threads that were. */
  async sweepThreads(): Promise<number> {
    const { ttls, threadSweepLimit: limit, log } = this.#options;
    let deleted = 0;
    while (deleted < limit && !this.#closed) {
      const batch = Math.min(THREAD_BATCH, limit - deleted);
      const gone = await ttls.deleteExpired(batch);
      deleted += gone;
      if (gone < batch) break;
    }
    let pruned = 0;
    for (const threadId of await ttls.withExpiredHistory(limit - deleted)) {
      if (this.#closed) break;
      if (await ttls.pruneExpired(threadId)) pruned += 1;
    }
    if (deleted + pruned > 0) log.info({ deleted, pruned }, "threads have expired");
    return deleted + pruned;
  }

  /** Stops, and waits for a sweep that is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#timers.forEach((timer) => clearInterval(timer));
    await Promise.all(this.#sweeping);
  }

  #every(ms: number, sweep: () => Promise<unknown>): void {
    let sweeping: Promise<void> | undefined;
    const timer = setInterval(() => {
      if (sweeping) return;
      const current = sweep()
        .then(() => {})
        .catch((error: unknown) => {
          this.#options.log[gravityOf(error, "warn")](
            { err: error },
            "sweep failed; it will be tried again",
          );
        })
        .finally(() => {
          this.#sweeping.delete(current);
          sweeping = undefined;
        });
      sweeping = current;
      this.#sweeping.add(current);
    }, ms);
    this.#timers.push(timer);
  }

  async #batches(size: number, batch: () => Promise<number>): Promise<void> {
    while (!this.#closed && (await batch()) >= size);
  }
}
