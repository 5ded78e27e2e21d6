import { ServerError } from "../errors.ts";

/** How long an answer of the database is believed. */
const COUNT_MS = 1_000;
const RETRY_AFTER_SECONDS = 5;

export interface QueueGateOptions {
  /** Runs that may wait; `undefined` is no limit. */
  maxWaiting: number | undefined;
  /** How many runs wait, counted up to `atMost`. */
  count: (atMost: number) => Promise<number>;
}

/** Refuses runs while too many wait already. Asks the database once a second at most, however many come. */
export class QueueGate {
  readonly #options: QueueGateOptions;
  #waiting = 0;
  #countedAt = -Infinity;
  #counting: Promise<void> | undefined;

  constructor(options: QueueGateOptions) {
    this.#options = options;
  }

  /** Lets so many more runs into the queue. Throws `queue_full`, with `Retry-After`. */
  async admit(count = 1): Promise<void> {
    const { maxWaiting } = this.#options;
    if (maxWaiting === undefined) return;
    if (performance.now() - this.#countedAt > COUNT_MS) {
      this.#counting ??= this.#count(maxWaiting).finally(() => {
        this.#counting = undefined;
      });
      await this.#counting;
    }
    if (this.#waiting + count > maxWaiting) {
      throw new ServerError(
        "queue_full",
        `${this.#waiting} runs are waiting already, and this server lets ${maxWaiting} wait (workers.max_waiting). Try again later.`,
        { headers: { "Retry-After": String(RETRY_AFTER_SECONDS) } },
      );
    }
    this.#waiting += count;
  }

  async #count(maxWaiting: number): Promise<void> {
    this.#waiting = await this.#options.count(maxWaiting);
    this.#countedAt = performance.now();
  }
}
