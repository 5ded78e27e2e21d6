import { isUnknownInterruptError } from "@langchain/langgraph";

/** An error as a stream's `error` event, a failed wait's `__error__` and a thread carry it: never a stack. */
export interface PublicError {
  error: string;
  message: string;
  /** Of a strict resume that LangGraph refused: why, which answers were none, and which questions still wait. */
  reason?: string;
  interrupt_ids?: string[];
  pending_ids?: string[];
}

/** What a client may know of something a graph threw. */
export function toPublicError(error: unknown): PublicError {
  try {
    if (error instanceof Error) {
      const told = { error: String(error.name || "Error"), message: String(error.message) };
      if (!isUnknownInterruptError(error)) return told;
      const { reason, interruptIds, pendingIds } = error;
      return { ...told, reason, interrupt_ids: [...interruptIds], pending_ids: [...pendingIds] };
    }
  } catch {
    // Anything can be thrown, also what throws when it is looked at.
  }
  return {
    error: "Error",
    message: typeof error === "string" ? error : "The graph threw a value that is not an error.",
  };
}

/** An error as the log has it. */
export interface LoggedError {
  /** Its class. */
  type: string;
  message: string;
  /** Where it was thrown, and where what was behind it. */
  stack: string | undefined;
}

/** How far errors behind an error are followed, and how many side by side. */
const MAX_DEPTH = 3;
const MAX_BESIDE = 5;

/**
 * What the log tells of something a graph threw, and nothing it carries besides: the error of a model's client
 * may have the whole request with it, credentials and all.
 */
export function toLoggedError(error: unknown): LoggedError {
  const { error: name, message } = toPublicError(error);
  try {
    if (error instanceof Error) {
      return { type: String(error.constructor.name), message, stack: toStack(error) };
    }
  } catch {
    // As above.
  }
  return { type: name, message, stack: undefined };
}

/** The stack of an error and of those behind it. */
function toStack(error: Error, depth = 0): string {
  const stack = String(error.stack ?? error);
  if (depth === MAX_DEPTH) return stack;
  const several: unknown[] = error instanceof AggregateError ? error.errors : [];
  const behind = [error.cause, ...several].filter((inner) => inner instanceof Error);
  return [
    stack,
    ...behind.slice(0, MAX_BESIDE).map((inner) => `caused by: ${toStack(inner, depth + 1)}`),
  ].join("\n");
}
