import type { Context } from "hono";
import type { HTTPException } from "hono/http-exception";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import { toLoggedError } from "../engine/errors.ts";
import { ERRORS, ServerError, type ErrorCode } from "../errors.ts";
import type { Logger } from "../observability/log.ts";
import { DatabaseAway } from "../storage/persistence.ts";

/** What a client gets for a refusal or a failure. */
export interface Problem {
  /** Written for a person. */
  detail: string;
  code: ErrorCode;
  request_id: string;
  /** The fields at fault, for a validation error. */
  errors?: unknown;
}

/**
 * The answer to whatever a handler threw. A refusal is told as it stands; anything else is a bug: it is
 * logged with its stack, and the client learns the request id to quote.
 */
export function toProblemResponse(error: unknown, c: Context, log: Logger): Response {
  if (isHttpException(error)) return error.getResponse();
  const about = aboutOf(c);
  const refusal = toRefusal(error);
  if (refusal.code === "internal") log.error({ err: error, ...about }, "request failed");
  logCause(refusal, log, about);
  const problem: Problem = {
    detail: refusal.message,
    code: refusal.code,
    request_id: about.request_id,
    ...(refusal.details !== undefined && { errors: refusal.details }),
  };
  return c.json(problem, refusal.status as ContentfulStatusCode, {
    ...(ERRORS[refusal.code].retryable && refusal.status === 503 && { "Retry-After": "1" }),
    ...refusal.headers,
  });
}

/** What every line about a request has. */
export function aboutOf(c: Context): { request_id: string; path: string } {
  const requestId = c.get("requestId") as string | undefined;
  return { request_id: requestId ?? "unknown", path: c.req.path };
}

/**
 * Logs what in the project's own code is behind a refusal. The client is not told why an authentication handler
 * failed, nor where a graph's factory did; whoever wrote them must be.
 */
export function logCause(refusal: ServerError, log: Logger, about: object): void {
  const { cause } = refusal;
  if (!(cause instanceof Error)) return;
  // What a handler throws with a status is its answer, and no failure.
  const what = isAuthRefusal(refusal)
    ? !("status" in cause) && "an auth handler failed"
    : refusal.code === "graph_unavailable" && "a graph could not be built";
  if (what === false) return;
  log.child({ ...about }, { serializers: { err: toLoggedError } }).warn({ err: cause }, what);
}

function isAuthRefusal({ code }: ServerError): boolean {
  return code === "unauthenticated" || code === "forbidden";
}

/** What only a project's own routes and middleware throw, with the answer they want; of any copy of Hono. */
function isHttpException(error: unknown): error is HTTPException {
  return (
    error instanceof Error && "getResponse" in error && typeof error.getResponse === "function"
  );
}

/** What a handler threw, as the client is told it: `internal` is a bug, whose message is for the log only. */
export function toRefusal(error: unknown): ServerError {
  if (error instanceof ServerError) return error;
  if (error instanceof DatabaseAway) {
    return new ServerError("unavailable", "The database could not be reached.", { cause: error });
  }
  return new ServerError(
    "internal",
    "Internal server error. The log has more under this request id.",
    {
      cause: error,
    },
  );
}
