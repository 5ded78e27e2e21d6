/*
 * A turn of the event loop, and what tracing does in it:
 *
 *   fresh ──work, at once──▶ fresh ──the budget is spent──▶ spent ──work waits in order──▶ the next turn: fresh
 *
 * A step of a graph may end a hundred nodes in one turn, each with a state that takes milliseconds to write. A run
 * awaits its callbacks, so work that is put off takes nothing from it but the turn that others get.
 */

/** Milliseconds: with the longest single piece of work on top, others wait less than 20. A shorter turn costs more turns. */
const DEFAULT_BUDGET_MS = 8;

/** Returns true to be called again, for as long as there is more to do. Must not throw. */
export type Work = () => boolean | void;

interface Waiting {
  work: Work;
  done: () => void;
}

/** How long all that share it may compute before everybody else has a turn of the event loop. */
export class TurnBudget {
  readonly #budgetMs: number;
  readonly #clock: () => number;
  readonly #waiting: Waiting[] = [];
  #spentMs = 0;
  #turnEnds = false;

  /** `clock` gives milliseconds that only go forward. */
  constructor(budgetMs = DEFAULT_BUDGET_MS, clock: () => number = () => performance.now()) {
    this.#budgetMs = budgetMs;
    this.#clock = clock;
  }

  /**
   * Does `work` now, or in one of the next turns where this one's budget is spent; all work is done in the order it came.
   * `undefined` if it is done, else a promise that resolves when it is.
   */
  spend(work: Work): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#finishes(work)) return undefined;
    return new Promise((done) => {
      this.#waiting.push({ work, done });
    });
  }

  /** Does `work` at once, whatever is left of the budget, and counts it. */
  charge<T>(work: () => T): T {
    const began = this.#clock();
    try {
      return work();
    } finally {
      this.#spentMs += this.#clock() - began;
      this.#endTurn();
    }
  }

  /** Resolves when all work is done that waits now. */
  async caughtUp(): Promise<void> {
    await this.spend(() => {});
  }

  /** Whether there was budget for all of it. */
  #finishes(work: Work): boolean {
    while (this.#spentMs < this.#budgetMs) if (this.charge(work) !== true) return true;
    return false;
  }

  #endTurn(): void {
    if (this.#turnEnds) return;
    this.#turnEnds = true;
    setImmediate(() => {
      this.#turnEnds = false;
      this.#spentMs = 0;
      for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
        if (!this.#finishes(next.work)) break;
        this.#waiting.shift();
        next.done();
      }
    });
  }
}
