/**
 * What is asked of a disk that may never answer, one thing at a time:
 *
 *   idle ──asked──▶ busy ──answered──▶ idle
 *                     └──no answer in time──▶ hung ──answered after all──▶ idle
 *
 * A call to a disk that hangs holds one of libuv's few threads, which nothing can take back: while one hangs nothing
 * else is asked.
 */
export class DiskTurns {
  #limitMs: number;
  #busySince: number | undefined;
  #hung: Promise<void> | undefined;
  #hurry = (): void => {};

  /** `limitMs` is how long the disk may take for one thing. */
  constructor(limitMs: number) {
    this.#limitMs = limitMs;
  }

  /** Resolves when a disk that did not answer in time has answered after all; `undefined` where it owes nothing. */
  get hung(): Promise<void> | undefined {
    return this.#hung;
  }

  /** How long the disk has owed an answer, in milliseconds. */
  get silentMs(): number {
    return this.#busySince === undefined ? 0 : performance.now() - this.#busySince;
  }

  /**
   * Rejects if the disk does not answer in time. From then on `work`'s signal is aborted, and what it does in the end
   * should leave no trace.
   */
  async take<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#hung !== undefined) throw new Error("the disk does not answer");
    const controller = new AbortController();
    const began = (this.#busySince = performance.now());
    const done = work(controller.signal);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      // In two halves: in a process that was suspended timers come before the answers that are there.
      const wait = (): void => {
        clearTimeout(timer);
        timer = setTimeout(
          () => (timer = setTimeout(giveUp, this.#limitMs / 2)),
          this.#limitMs / 2,
        );
      };
      const giveUp = (): void => {
        const ms = Math.round(performance.now() - began);
        this.#hung = done.then(ignore, ignore).then(() => (this.#hung = undefined));
        const error = new Error(`no answer within ${ms} ms`);
        controller.abort(error);
        reject(error);
      };
      this.#hurry = wait;
      wait();
    });
    try {
      return await Promise.race([done, late]);
    } finally {
      clearTimeout(timer);
      this.#hurry = ignore;
      this.#busySince = undefined;
    }
  }

  /** From now on, and for what is being done, the disk has at most this long. */
  hurry(limitMs: number): void {
    this.#limitMs = Math.min(this.#limitMs, limitMs);
    this.#hurry();
  }
}

function ignore(): void {}
