import { ServerError } from "../errors.ts";
import type { ErrorCode } from "../errors.ts";
import type { Principal } from "./principal.ts";

/** Answers who sent a request. */
export interface Authenticator {
  /**
   * Resolves with who sent `request`. The user's handler gets this very object: a caller that needs the body
   * afterwards passes a clone. Rejects with a `ServerError` that carries the handler's own status and headers;
   * 401 where the handler named none, or returned no identity.
   */
  authenticate(request: Request): Promise<Principal>;
  /** The `on` handlers by event, such as `threads:create`, `threads`, `*:create`, `*`. */
  readonly handlers: ReadonlyMap<string, AuthorizationHandler>;
}

/** One `on` handler of the SDK's `Auth`. */
export type AuthorizationHandler = (request: {
  event: string;
  resource: string;
  action: string;
  value: unknown;
  user: Principal["user"];
  permissions: string[];
}) => unknown;

/** The handlers of an SDK `Auth` instance, as it keeps them. */
export interface AuthHandlers {
  authenticate: (request: Request) => unknown;
  callbacks: ReadonlyMap<string, AuthorizationHandler>;
}

/**
 * Whom LangGraph Studio is let in as, where the configuration says so. Handlers tell it by its `kind`, which the
 * SDK's `isStudioUser` looks at.
 */
const STUDIO: Principal = {
  identity: "langgraph-studio-user",
  permissions: [],
  user: {
    kind: "StudioUser",
    identity: "langgraph-studio-user",
    display_name: "langgraph-studio-user",
    permissions: [],
    is_authenticated: true,
  },
};

/**
 * An authenticator over the user's handlers. With `letStudioIn`, whoever sends `x-auth-scheme: langsmith` is
 * Studio's user without being asked: a header that anybody can send.
 */
export function createAuthenticator(
  handlers: AuthHandlers,
  options: { letStudioIn?: boolean } = {},
): Authenticator {
  return {
    handlers: handlers.callbacks,
    async authenticate(request) {
      if (options.letStudioIn && request.headers.get("x-auth-scheme") === "langsmith") {
        return STUDIO;
      }
      let answer: unknown;
      try {
        answer = await handlers.authenticate(request);
      } catch (thrown) {
        throw toRefusal(thrown, "unauthenticated");
      }
      const principal = toPrincipal(answer);
      if (principal) return principal;
      throw new ServerError("unauthenticated", "Authentication failed", {
        cause: new Error(
          "the authenticate handler returned neither a string nor an object with an identity",
        ),
      });
    },
  };
}

/**
 * What an auth handler threw, as a refusal. An error with an HTTP status of 400 or more, such as the SDK's
 * `HTTPException`, keeps it with its message and headers. Any other error is a refusal with a neutral message:
 * what a token library throws is for the log, not for the client.
 */
export function toRefusal(thrown: unknown, code: "unauthenticated" | "forbidden"): ServerError {
  if (thrown instanceof ServerError) return thrown;
  const error = typeof thrown === "object" && thrown !== null ? thrown : {};
  const status: unknown = Reflect.get(error, "status");
  const neutral = code === "forbidden" ? "Forbidden" : "Authentication failed";
  if (typeof status !== "number" || status < 400 || status > 599) {
    return new ServerError(code, neutral, { cause: thrown });
  }
  const message: unknown = Reflect.get(error, "message");
  return new ServerError(
    toCode(status, code),
    typeof message === "string" && message !== "" ? message : neutral,
    { cause: thrown, status, headers: toHeaders(Reflect.get(error, "headers")) },
  );
}

/** What a status says; one that says nothing of its own is a refusal of the kind that was asked about. */
function toCode(status: number, asked: "unauthenticated" | "forbidden"): ErrorCode {
  if (status === 401) return "unauthenticated";
  if (status === 403) return "forbidden";
  if (status === 404) return "not_found";
  return status >= 500 ? "unavailable" : asked;
}

/** A handler may write its headers in any form that `Headers` takes. */
function toHeaders(value: unknown): Record<string, string> | undefined {
  if (typeof value !== "object" || value === null) return undefined;
  try {
    const headers = new Headers(value as ConstructorParameters<typeof Headers>[0]);
    return Object.fromEntries(headers.entries());
  } catch {
    return undefined;
  }
}

function toPrincipal(answer: unknown): Principal | undefined {
  const given: Record<string, unknown> =
    typeof answer === "string"
      ? { identity: answer }
      : typeof answer === "object" && answer !== null
        ? Object.fromEntries(Object.entries(answer))
        : {};
  const { identity, display_name, is_authenticated } = given;
  if (typeof identity !== "string" || identity === "") return undefined;
  const permissions = Array.isArray(given["permissions"])
    ? given["permissions"].filter((permission) => typeof permission === "string")
    : [];
  return {
    identity,
    permissions,
    user: {
      ...given,
      identity,
      permissions,
      display_name: typeof display_name === "string" ? display_name : identity,
      is_authenticated: typeof is_authenticated === "boolean" ? is_authenticated : true,
    },
  };
}
