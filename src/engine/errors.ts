/** An error as a stream's `error` event, a failed wait's `__error__` and a thread carry it: never a stack. */
export interface PublicError {
  error: string;
  message: string;
}

/** What a client may know of something a graph threw. */
export function toPublicError(error: unknown): PublicError {
  try {
    if (error instanceof Error) {
      return { error: String(error.name || "Error"), message: String(error.message) };
    }
  } catch {
    // Anything can be thrown, also what throws when it is looked at.
  }
  return {
    error: "Error",
    message: typeof error === "string" ? error : "The graph threw a value that is not an error.",
  };
}
