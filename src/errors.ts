/**
 * Every refusal this server can make, as one closed list. A code says what went wrong, whether the same
 * request may succeed later, and where `docs/errors.md` explains it. Anything that is not a `ServerError`
 * is a bug: the client gets `internal` and a request id, the log gets the cause.
 */
export const ERRORS = {
  invalid_json: { status: 422, retryable: false },
  invalid_request: { status: 422, retryable: false },
  unsupported_field: { status: 422, retryable: false },
  unauthenticated: { status: 401, retryable: false },
  forbidden: { status: 403, retryable: false },
  not_found: { status: 404, retryable: false },
  method_not_allowed: { status: 405, retryable: false },
  already_exists: { status: 409, retryable: false },
  conflict: { status: 409, retryable: true },
  run_rejected: { status: 422, retryable: true },
  payload_too_large: { status: 413, retryable: false },
  graph_unavailable: { status: 503, retryable: true },
  queue_full: { status: 429, retryable: true },
  unavailable: { status: 503, retryable: true },
  startup_failed: { status: 500, retryable: false },
  internal: { status: 500, retryable: false },
} as const;

export type ErrorCode = keyof typeof ERRORS;

/**
 * An expected refusal. `message` is written for the person who sent the request and is sent as it stands;
 * `details` is JSON that helps a program (such as the failing fields); `cause` is only ever logged.
 */
export class ServerError extends Error {
  readonly code: ErrorCode;
  readonly details: unknown;
  /** Extra HTTP headers of the answer, such as `Retry-After` or `WWW-Authenticate`. */
  readonly headers: Record<string, string> | undefined;
  /** Overrides the code's HTTP status; only an authentication handler's own status needs it. */
  readonly #status: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: {
      cause?: unknown;
      details?: unknown;
      headers?: Record<string, string> | undefined;
      status?: number | undefined;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = "ServerError";
    this.code = code;
    this.details = options.details;
    this.headers = options.headers;
    this.#status = options.status;
  }

  /** The HTTP status this refusal is answered with. */
  get status(): number {
    return this.#status ?? ERRORS[this.code].status;
  }
}
