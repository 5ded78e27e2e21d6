import { ServerError } from "../errors.ts";

/** An error as a stream's `error` event, a failed wait's `__error__` and a thread carry it: never a stack. */
export interface PublicError {
  error: string;
  message: string;
}

/** What a client may know of something a graph threw. */
export function toPublicError(error: unknown): PublicError {
  if (error instanceof ServerError) return { error: error.name, message: error.message };
  if (error instanceof Error) {
    return { error: error.name || "Error", message: error.message };
  }
  return {
    error: "Error",
    message: typeof error === "string" ? error : "The graph threw a value that is not an error.",
  };
}
