import type { Logger } from "../observability/log.ts";
import type { RunEventRepository } from "../storage/run-events.ts";
import type { RunRepository } from "../storage/runs.ts";

const SWEEP_MS = 60_000;
/** How long a run without a thread can still be asked for after its end. */
const TEMPORARY_RUN_MS = 60 * 60_000;

export interface SweeperOptions {
  runs: RunRepository;
  events: RunEventRepository;
  /** How long the events of a run are kept after its end. */
  eventsMs: number;
  log: Logger;
}

/** Removes what has outlived its use. Every process may run one: the statements can meet without harm. */
export class Sweeper {
  readonly #options: SweeperOptions;
  #timer: NodeJS.Timeout | undefined;
  #sweeping: Promise<void> = Promise.resolve();

  constructor(options: SweeperOptions) {
    this.#options = options;
  }

  /** Begins to sweep, now and then. */
  open(): void {
    this.#timer = setInterval(() => {
      this.#sweeping = this.sweep().catch((error: unknown) => {
        this.#options.log.warn({ err: error }, "sweep failed; it will be tried again");
      });
    }, SWEEP_MS);
  }

  /** Sweeps once. */
  async sweep(): Promise<void> {
    await this.#options.runs.sweepTemporary(TEMPORARY_RUN_MS);
    await this.#options.events.sweep(this.#options.eventsMs);
  }

  /** Stops, and waits for a sweep that is under way. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#sweeping;
  }
}
