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
