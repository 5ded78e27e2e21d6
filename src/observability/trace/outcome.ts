import { commandForm, isRecord } from "./messages.ts";

/** Langfuse's levels, exactly as its servers want them. */
export type Level = "DEBUG" | "DEFAULT" | "WARNING" | "ERROR";

/** What an error in an observation means in the trace. */
export interface Failure {
  level: Level;
  statusMessage: string | undefined;
  /** The class of an error. */
  errorType?: string | undefined;
  /** What stands in for the missing output, for an interrupt or a hand-off. */
  output: unknown;
}

/**
 * Reads an error as what it is: an interrupt or a hand-off to another graph is control flow (DEFAULT), a cancel
 * is WARNING, everything else ERROR. `signal` is the run's own, if known.
 */
export function readFailure(error: unknown, signal: AbortSignal | undefined): Failure {
  try {
    if (isBubbleUp(error)) {
      return { level: "DEFAULT", statusMessage: undefined, output: bubbleUpOutput(error) };
    }
    const cancelled = isCancel(error, signal);
    // A signal's reason need not be an error, and then says nothing to a reader.
    const text = cancelled && !(error instanceof Error) ? "stopped" : errorText(error);
    return {
      level: cancelled ? "WARNING" : "ERROR",
      statusMessage: text,
      errorType: errorType(error),
      output: undefined,
    };
  } catch {
    return { level: "ERROR", statusMessage: "unknown error", output: undefined };
  }
}

/** LangGraph throws these to leave a node without failing: interrupts and commands to a parent graph. */
function isBubbleUp(error: unknown): error is Record<string, unknown> {
  return (
    typeof error === "object" &&
    error !== null &&
    (error as { is_bubble_up?: unknown }).is_bubble_up === true
  );
}

function bubbleUpOutput(error: Record<string, unknown>): unknown {
  const { interrupts, command } = error;
  if (isRecord(command)) return commandForm(command);
  return Array.isArray(interrupts) ? interruptOutput(interrupts.map(interruptValue)) : undefined;
}

/** One question reads as itself, several as a list. */
export function interruptOutput(values: readonly unknown[]): unknown {
  return values.length > 1 ? values : values[0];
}

/** The value of LangGraph's `{id, value}`; a bare value as it is. */
export function interruptValue(interrupt: unknown): unknown {
  return isRecord(interrupt) && "value" in interrupt ? interrupt["value"] : interrupt;
}

const CANCEL_NAMES = new Set(["AbortError", "CancelledError", "CanceledError"]);
const CANCEL_TEXT =
  /^(?:abort(?:ed)?|this operation was aborted|the operation was aborted|cancell?ed)\.?$/i;

function isCancel(error: unknown, signal: AbortSignal | undefined): boolean {
  const reason: unknown = signal?.aborted === true ? signal.reason : undefined;
  if (isTimeout(error) || isTimeout(reason)) return false;
  if (reason !== undefined && error === reason) return true;
  if (typeof error !== "object" || error === null) return false;
  const { name, message, code } = error as { name?: unknown; message?: unknown; code?: unknown };
  if (typeof name === "string" && CANCEL_NAMES.has(name)) return true;
  return code === "ABORT_ERR" || (typeof message === "string" && CANCEL_TEXT.test(message));
}

function isTimeout(error: unknown): boolean {
  return (
    typeof error === "object" &&
    error !== null &&
    (error as { name?: unknown }).name === "TimeoutError"
  );
}

/** The text a person looks for: the message, with the error's name where it adds something. Never throws. */
export function errorText(error: unknown): string {
  try {
    if (typeof error === "string") return error === "" ? "unknown error" : error;
    if (typeof error !== "object" || error === null) return `thrown: ${String(error)}`;
    const { name, message } = error as { name?: unknown; message?: unknown };
    const text = typeof message === "string" && message !== "" ? message : "";
    const kind = typeof name === "string" && name !== "Error" ? name : "";
    if (text === "") return kind === "" ? "unknown error" : kind;
    return kind === "" || text.startsWith(kind) ? text : `${kind}: ${text}`;
  } catch {
    return "unknown error";
  }
}

/** The class of an error, as monitoring groups by it. Never throws. */
export function errorType(error: unknown): string {
  try {
    if (typeof error !== "object" || error === null) return typeof error;
    const { name } = error as { name?: unknown };
    if (typeof name === "string" && name !== "" && name !== "Error") return name.slice(0, 200);
    const { name: className } = error.constructor as { name?: unknown };
    return typeof className === "string" && className !== "" ? className.slice(0, 200) : "Error";
  } catch {
    return "Error";
  }
}

/** The stack, with those of its causes; `undefined` where there is none. Never throws. */
export function errorStack(error: unknown): string | undefined {
  const parts: string[] = [];
  let current: unknown = error;
  try {
    while (current instanceof Error && parts.length < 5) {
      if (typeof current.stack === "string") parts.push(current.stack);
      current = current.cause;
    }
  } catch {
    // What was read so far is what there is.
  }
  return parts.length === 0 ? undefined : parts.join("\nCaused by: ");
}
