import { ServerError } from "../errors.ts";
import type { RunStatus } from "../protocol/runs.ts";
import { toJson } from "./json.ts";
import type { RunError } from "./run-record.ts";

/** What came of a run, and of its thread. */
export interface RunResult {
  status: Extract<RunStatus, "success" | "error" | "timeout" | "interrupted">;
  interrupted: boolean;
  output: unknown;
  error: RunError | undefined;
  /** The thread's new state; `undefined` leaves the one it has. */
  values: unknown;
  /** The questions that wait, by task; `undefined` leaves those the thread has. */
  interrupts: Record<string, unknown[]> | undefined;
  /**
   * What the thread is when the run is over, where the run's own end does not say it. `unchanged` leaves the thread as
   * it was before the run, with its error, its questions and its graph.
   */
  resting?: "interrupted" | "idle" | "unchanged";
}

/** A result in the form that is stored: JSON, or null for what is not there. */
export interface EncodedResult {
  readonly plain: RunResult;
  readonly output: string | null;
  readonly error: string | null;
  readonly values: string | null;
  readonly interrupts: string | null;
  /** Null leaves the thread as it was. */
  readonly resting: "error" | "interrupted" | "idle" | null;
}

/** Throws ServerError `invalid_request` if the result has no form the database can store. */
export function encodeResult(plain: RunResult): EncodedResult {
  const encode = (value: unknown): string | null => (value === undefined ? null : toJson(value));
  try {
    const output = encode(plain.output);
    return {
      plain,
      output,
      error: encode(plain.error),
      // Most often the same state, which may be large.
      values: plain.values === plain.output ? output : encode(plain.values),
      interrupts: encode(plain.interrupts),
      resting: restingStatus(plain),
    };
  } catch (cause) {
    throw unstorable(cause);
  }
}

function restingStatus(result: RunResult): EncodedResult["resting"] {
  if (result.resting === "unchanged") return null;
  if (result.resting) return result.resting;
  if (result.error !== undefined) return "error";
  return result.interrupted ? "interrupted" : "idle";
}

/** Says of a graph's state that it cannot be stored, and why. */
export function unstorable(cause: unknown): ServerError {
  const reason = cause instanceof Error ? cause.message : "it has no JSON";
  return new ServerError("invalid_request", `The graph's state cannot be stored: ${reason}`, {
    cause,
  });
}
