import type { StoredRecord } from "./record.ts";

export const TRACE_HAD_TO_GO = "the traces waiting take more than they may";
export const TOO_OLD = "they are too old";
const MAX_TRACES = 100_000;

/** Traces of which something had to go, and why: half a trace helps nobody, so the rest of it goes too. */
export class Overdue {
  readonly #maxAgeMs: number;
  readonly #traces = new Map<string, string>();

  constructor(maxAgeMs: number) {
    this.#maxAgeMs = maxAgeMs;
  }

  has(traceId: string): boolean {
    return this.#traces.has(traceId);
  }

  /** Why a record has to go, if it has to. With one that is too old goes all of its trace. */
  why({ traceId, time }: Pick<StoredRecord, "traceId" | "time">): string | undefined {
    const known = this.#traces.get(traceId);
    if (known !== undefined || time >= Date.now() - this.#maxAgeMs) return known;
    this.add(traceId, TOO_OLD);
    return TOO_OLD;
  }

  add(traceId: string, why: string): void {
    this.#traces.set(traceId, why);
    if (this.#traces.size <= MAX_TRACES) return;
    for (const oldest of this.#traces.keys()) {
      this.#traces.delete(oldest);
      return;
    }
  }
}
