import type { MiddlewareHandler } from "hono";
import type { Authenticator } from "../../auth/authenticate.ts";
import { authenticate, type Env } from "../answer.ts";
import { toPattern } from "../route-groups.ts";
import type { Route } from "../route.ts";

/**
 * Authenticates before a project's middleware runs: requests to routes of the API that are not public, and with
 * `others` all that are for no route of the API, such as the project's own. Routes find who it was as `auth`.
 */
export function authenticateFirst(
  auth: Authenticator,
  routes: readonly Route[],
  options: { others: boolean },
): MiddlewareHandler<Env> {
  const known = routes.map(({ method, path, permission, socket }) => ({
    method: method.toUpperCase(),
    pattern: toPattern(path),
    // A web socket asks by itself: it tells its refusal in a way of its own.
    isLeft: permission === "public" || socket === true,
  }));
  return async (c, next) => {
    const method = c.req.method === "HEAD" ? "GET" : c.req.method;
    const route = known.find(
      (candidate) => candidate.method === method && candidate.pattern.test(c.req.path),
    );
    if (route ? !route.isLeft : options.others) {
      const principal = await authenticate(c, auth);
      c.set("principal", principal);
      c.set("auth", { user: principal.user, scopes: principal.permissions });
    }
    await next();
  };
}
