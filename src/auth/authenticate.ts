import type { Principal } from "./principal.ts";

/** Answers who sent a request. */
export interface Authenticator {
  /**
   * Resolves with who sent `request`; `undefined` where the handler's module has no `authenticate`. Rejects
   * with a `ServerError` that carries the handler's own status and headers (401 where it named none).
   */
  authenticate(request: Request): Promise<Principal | undefined>;
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
