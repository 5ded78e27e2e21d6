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

interface Waiting {
  owner: object;
  work: () => void;
  done: () => void;
}

/** How long all that share it may compute before everybody else has a turn of the event loop. */
export class TurnBudget {
  readonly #budgetMs: number;
  readonly #clock: () => number;
  #spentMs = 0;
  #waiting: Waiting[] = [];
  #turnEnds = false;

  /** `clock` gives milliseconds that only go forward. */
  constructor(budgetMs = DEFAULT_BUDGET_MS, clock: () => number = () => performance.now()) {
    this.#budgetMs = budgetMs;
    this.#clock = clock;
  }

  /**
   * Does `work` now, or in one of the next turns if this one's budget is spent; all work is done in the order it came.
   * `undefined` if it is done, else a promise that resolves when it is. `work` must not throw.
   */
  spend(owner: object, work: () => void): Promise<void> | undefined {
    if (this.#waiting.length === 0 && this.#spentMs < this.#budgetMs) {
      this.charge(work);
      return undefined;
    }
    return new Promise((done) => {
      this.#waiting.push({ owner, work, done });
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

  /** Does what waits for `owner`, which cannot wait any longer. */
  settle(owner: object): void {
    if (this.#waiting.length === 0) return;
    const own = this.#waiting.filter((waiting) => waiting.owner === owner);
    this.#waiting = this.#waiting.filter((waiting) => waiting.owner !== owner);
    for (const waiting of own) this.#do(waiting);
  }

  #do({ work, done }: Waiting): void {
    this.charge(work);
    done();
  }

  #endTurn(): void {
    if (this.#turnEnds) return;
    this.#turnEnds = true;
    setImmediate(() => {
      this.#turnEnds = false;
      this.#spentMs = 0;
      while (this.#spentMs < this.#budgetMs) {
        const next = this.#waiting.shift();
        if (next === undefined) break;
        this.#do(next);
      }
    });
  }
}
