import type { StorageLog } from "./listener.ts";

/*
 * Whether a database can be reached, as it is told in the log:
 *
 *   unknown --an answer--> there --no connection can be made--> away --answers, and no failure for a while--> there
 *
 * What cannot be reached at the start is told by the start, which fails.
 */

/** A database that comes and goes, or has too few connections for all, is not back at each answer. */
const STEADY_MS = 1_000;

/** Says once that the database is away and once that it is back, whoever finds it so and however often. */
export class Reachability {
  readonly #log: StorageLog;
  #state: "unknown" | "there" | "away" = "unknown";
  #failedAt = 0;
  #lossTold = false;

  constructor(log: StorageLog) {
    this.#log = log;
  }

  /** The database has answered. */
  answered(): void {
    if (this.#state === "there") return;
    if (this.#state === "away") {
      if (Date.now() - this.#failedAt < STEADY_MS) return;
      this.#log("info", "The database is back.");
    }
    this.#state = "there";
  }

  /** No connection can be made. */
  failed(error: Error): void {
    this.#failedAt = Date.now();
    if (this.#state !== "there") return;
    this.#state = "away";
    this.#log(
      "warn",
      `The database cannot be reached (${error.message}). Requests are refused; runs that wait, crons and webhooks go on when it is back.`,
    );
  }

  /** A connection was made. */
  connected(): void {
    this.#lossTold = false;
  }

  /** A connection broke. Said of the first of those that break together. */
  lost(error: Error): void {
    if (this.#lossTold) return;
    this.#lossTold = true;
    this.#log("warn", "A connection to the database was lost; it will be replaced.", {
      error: error.message,
    });
  }
}
