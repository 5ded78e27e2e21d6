import type { Context } from "hono";
import { z } from "zod";
import type { Authenticator } from "../auth/authenticate.ts";
import { allowAll, createAuthorize } from "../auth/authorize.ts";
import type { Principal } from "../auth/principal.ts";
import type { CorsConfig } from "../config/schema.ts";
import { ServerError } from "../errors.ts";
import type { Logger } from "../observability/log.ts";
import { authorizeRoute } from "./authorization.ts";
import { readBody, validate } from "./body.ts";
import { mayOpenSocket } from "./middleware/cors.ts";
import { aboutOf, logCause, toRefusal } from "./problem.ts";
import type { Route, RouteAnswer } from "./route.ts";
import { upgrade, type OpenSession } from "./web-socket.ts";

/** What is known of a request on its way; a project's own routes find `auth`, as the official server has it. */
export interface Env {
  Variables: {
    requestId: string;
    /** Set where the request was authenticated before its route was reached. */
    principal?: Principal;
    auth?: { user: Principal["user"]; scopes: string[] };
  };
}

export interface AnswerDeps {
  /** `undefined` lets everybody in. */
  auth: Authenticator | undefined;
  cors: CorsConfig | undefined;
  serialise: (value: unknown) => string;
  log: Logger;
  maxBodyBytes: number;
  /** Before every path; empty, or without a slash at the end. */
  mountPrefix: string;
}

const NO_PARAMETERS = z.strictObject({});

/** Answers a request to a route: who asks, may they, what do they ask for. */
export async function answer(c: Context<Env>, route: Route, deps: AnswerDeps): Promise<Response> {
  if (route.socket) return answerSocket(c, route, deps);
  const principal = await findPrincipal(c, route, deps);
  const result = await handle(c, route, { ...deps, principal }).catch((error: unknown) => {
    const refusal = toRefusal(error);
    if (!route.refuse || refusal.code === "internal") throw error;
    logCause(refusal, deps.log, aboutOf(c));
    return route.refuse(refusal);
  });
  if (result instanceof Response) return result;
  if ("session" in result) throw new TypeError(`${route.path} is not a web socket`);
  return new Response(deps.serialise(result.json), {
    status: result.status ?? 200,
    headers: { "Content-Type": "application/json", ...result.headers },
  });
}

async function answerSocket(c: Context<Env>, route: Route, deps: AnswerDeps): Promise<Response> {
  if (c.req.header("upgrade")?.toLowerCase() === "websocket") {
    return upgrade(c, () => openSession(c, route, deps));
  }
  throw new ServerError(
    "invalid_request",
    "This is a web socket. POST to get events as a stream.",
    {
      status: 426,
      headers: { Upgrade: "websocket" },
    },
  );
}

/** The session of a web socket, or why there is none. */
async function openSession(
  c: Context<Env>,
  route: Route,
  deps: AnswerDeps,
): Promise<OpenSession | ServerError> {
  try {
    if (!mayOpenSocket(c, deps.cors)) {
      throw new ServerError("forbidden", "This origin is not allowed.");
    }
    const principal = await findPrincipal(c, route, deps);
    const result = await handle(c, route, { ...deps, principal });
    if ("session" in result) return result.session;
    throw new TypeError(`${route.path} opened no web socket`);
  } catch (error) {
    const refusal = toRefusal(error);
    if (refusal.code === "internal") {
      deps.log.error({ err: error, ...aboutOf(c) }, "request failed");
    }
    logCause(refusal, deps.log, aboutOf(c));
    return refusal;
  }
}

async function findPrincipal(
  c: Context<Env>,
  route: Route,
  { auth }: AnswerDeps,
): Promise<Principal | undefined> {
  if (!auth || route.permission === "public") return undefined;
  return c.get("principal") ?? authenticate(c, auth);
}

async function handle(
  c: Context<Env>,
  route: Route,
  given: AnswerDeps & { principal: Principal | undefined },
): Promise<RouteAnswer> {
  const { auth, principal } = given;
  const authorize = auth && principal ? createAuthorize(auth, principal) : allowAll;
  const sent = {
    params: route.params && validate(route.params, c.req.param(), "path"),
    query: readQuery(c, route),
    body: route.body && (await readBody(c, route.body, given.maxBodyBytes)),
  };
  const request = {
    ...sent,
    ...(await authorizeRoute(route, sent, authorize)),
    principal,
    authorize,
    headers: c.req.raw.headers,
    baseUrl: toBaseUrl(c) + given.mountPrefix,
    requestId: c.get("requestId"),
  };
  return route.handle(request as never);
}

/** Who sent a request. Rejects with the refusal of the project's handler. */
export async function authenticate(c: Context<Env>, auth: Authenticator): Promise<Principal> {
  // A copy: a handler may read the body, to check a signature, and so must the route.
  const { raw } = c.req;
  return auth.authenticate(raw.method === "GET" || raw.method === "HEAD" ? raw : raw.clone());
}

/** The address the client used: a proxy tells its own in the forwarded headers. */
function toBaseUrl(c: Context): string {
  const url = new URL(c.req.url);
  const protocol = c.req.header("x-forwarded-proto")?.split(",", 1)[0]?.trim();
  const host = c.req.header("x-forwarded-host")?.split(",", 1)[0]?.trim();
  if (host && URL.canParse(`http://${host}`)) url.host = host;
  if (protocol === "https" || protocol === "http") url.protocol = protocol;
  return url.origin;
}

/** A route without parameters refuses them, so that none is dropped in silence; a probe may add what it likes. */
function readQuery(c: Context, route: Route): unknown {
  if (route.query) return validate(route.query, toQuery(c), "query");
  if (route.tag !== "Meta") validate(NO_PARAMETERS, toQuery(c), "query");
  return undefined;
}

/** The query as names to one value or several. */
function toQuery(c: Context): Record<string, string | string[]> {
  return Object.fromEntries(
    Object.entries(c.req.queries()).map(([name, values]) => [
      name,
      values.length === 1 ? values[0]! : values,
    ]),
  );
}
