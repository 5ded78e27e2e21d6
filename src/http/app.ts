import { randomUUID } from "node:crypto";
import { Hono, type Context } from "hono";
import type { Authenticator } from "../auth/authenticate.ts";
import { allowAll, createAuthorize } from "../auth/authorize.ts";
import type { Principal } from "../auth/principal.ts";
import type { CorsConfig } from "../config/schema.ts";
import type { AssistantGraphs } from "../engine/assistants.ts";
import type { Crons } from "../engine/crons.ts";
import type { Feedback } from "../engine/feedback.ts";
import type { Commands } from "../engine/commands.ts";
import type { RunEngine } from "../engine/runs.ts";
import type { ThreadStreams } from "../engine/thread-stream.ts";
import type { ThreadStates } from "../engine/threads.ts";
import { z } from "zod";
import { ServerError } from "../errors.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import type { Logger } from "../observability/log.ts";
import type { AssistantRepository } from "../storage/assistants.ts";
import type { CronRepository } from "../storage/crons.ts";
import type { RunRecord, RunRepository } from "../storage/runs.ts";
import type { DatabaseStore } from "../storage/store.ts";
import type { ThreadRepository } from "../storage/threads.ts";
import type { WebhookRepository } from "../storage/webhooks.ts";
import { authorizeRoute } from "./authorization.ts";
import { readBody, validate } from "./body.ts";
import { crossOrigin, mayOpenSocket } from "./middleware/cors.ts";
import { toOpenApi } from "./openapi.ts";
import { toProblemResponse } from "./problem.ts";
import type { Route, RouteAnswer } from "./route.ts";
import { a2aRoutes } from "./routes/a2a.ts";
import { assistantRoutes } from "./routes/assistants.ts";
import { cronRoutes } from "./routes/crons.ts";
import { commandRoutes } from "./routes/commands.ts";
import { feedbackRoutes } from "./routes/feedback.ts";
import { healthRoutes } from "./routes/health.ts";
import { mcpRoutes } from "./routes/mcp.ts";
import { metaRoutes } from "./routes/meta.ts";
import { metricsRoutes } from "./routes/metrics.ts";
import { runBatchRoutes } from "./routes/run-batches.ts";
import { runRoutes } from "./routes/runs.ts";
import { storeRoutes } from "./routes/store.ts";
import { threadStreamRoutes } from "./routes/thread-streams.ts";
import { threadRoutes } from "./routes/threads.ts";
import { webhookRoutes } from "./routes/webhooks.ts";

import { upgrade, type OpenSession } from "./web-socket.ts";

export interface AppDeps {
  assistants: AssistantRepository;
  threads: ThreadRepository;
  runs: RunRepository;
  engine: RunEngine;
  crons: Crons;
  cronRows: CronRepository;
  webhooks: WebhookRepository;
  states: ThreadStates;
  streams: ThreadStreams;
  commands: Commands;
  drawings: AssistantGraphs;
  feedback: Feedback;
  store: DatabaseStore;
  graphs: () => GraphRegistry;
  /** `undefined` lets everybody in. */
  auth: Authenticator | undefined;
  cors: CorsConfig | undefined;
  serialise: (value: unknown) => string;
  trace: (run: RunRecord) => { trace_id?: string; trace_url?: string };
  info: () => object;
  /** Why this process should get no requests; `undefined` if it should. */
  unready: () => Promise<string | undefined>;
  /** `undefined` where it is switched off. */
  metrics: (() => Promise<{ contentType: string; text: string }>) | undefined;
  version: string;
  log: Logger;
  maxBodyBytes: number;
}

type Env = { Variables: { requestId: string } };

const NO_PARAMETERS = z.strictObject({});
const REQUEST_ID = /^[\w.:-]{1,128}$/;

/** The HTTP API. Holds nothing of its own; whoever opened the parts in `deps` closes them. */
export function createApp(deps: AppDeps): Hono<Env> {
  const routes: Route[] = [
    ...assistantRoutes({ ...deps, runs: deps.engine }),
    ...threadRoutes({ threads: deps.threads, states: deps.states }),
    ...runRoutes(deps),
    ...runBatchRoutes(deps),
    ...cronRoutes(deps),
    ...commandRoutes(deps),
    ...threadStreamRoutes(deps),
    ...webhookRoutes(deps),
    ...feedbackRoutes(deps),
    ...storeRoutes({ store: deps.store }),
    ...mcpRoutes(deps),
    ...a2aRoutes(deps),
    ...metaRoutes({ info: deps.info, openapi: () => document }),
    ...metricsRoutes(deps),
    ...healthRoutes(deps),
  ];
  const document = toOpenApi(routes, { version: deps.version });
  const app = new Hono<Env>();
  app.use(async (c, next) => {
    const asked = c.req.header("x-request-id");
    c.set("requestId", asked && REQUEST_ID.test(asked) ? asked : randomUUID());
    await next();
    c.res.headers.set("X-Request-ID", c.get("requestId"));
  });
  app.use(crossOrigin(deps.cors));
  for (const route of routes) {
    app.on(route.method.toUpperCase(), route.path, (c) => answer(c, route, deps));
  }
  app.notFound((c) => toProblemResponse(unknownRoute(c, routes), c, deps.log));
  app.onError((error, c) => toProblemResponse(error, c as Context, deps.log));
  return app;
}

async function answer(c: Context<Env>, route: Route, deps: AppDeps): Promise<Response> {
  if (route.socket) {
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
  const principal = await authenticate(c, route, deps.auth);
  const result = await handle(c, route, { ...deps, principal }).catch((error: unknown) => {
    if (route.refuse && error instanceof ServerError) return route.refuse(error);
    throw error;
  });
  if (result instanceof Response) return result;
  if ("session" in result) throw new TypeError(`${route.path} is not a web socket`);
  return new Response(deps.serialise(result.json), {
    status: result.status ?? 200,
    headers: { "Content-Type": "application/json", ...result.headers },
  });
}

/** The session of a web socket, or why there is none. */
async function openSession(
  c: Context<Env>,
  route: Route,
  deps: AppDeps,
): Promise<OpenSession | ServerError> {
  try {
    if (!mayOpenSocket(c, deps.cors))
      throw new ServerError("forbidden", "This origin is not allowed.");
    const principal = await authenticate(c, route, deps.auth);
    const result = await handle(c, route, { ...deps, principal });
    if ("session" in result) return result.session;
    throw new TypeError(`${route.path} opened no web socket`);
  } catch (error) {
    if (error instanceof ServerError) return error;
    deps.log.error({ err: error, request_id: c.get("requestId") }, "request failed");
    return new ServerError("internal", "Internal server error.");
  }
}

async function handle(
  c: Context<Env>,
  route: Route,
  given: Pick<AppDeps, "auth" | "maxBodyBytes"> & { principal: Principal | undefined },
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
    baseUrl: toBaseUrl(c),
    requestId: c.get("requestId"),
  };
  return route.handle(request as never);
}

async function authenticate(
  c: Context<Env>,
  route: Route,
  auth: Authenticator | undefined,
): Promise<Principal | undefined> {
  if (!auth || route.permission === "public") return undefined;
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

function unknownRoute(c: Context, routes: readonly Route[]): ServerError {
  const allowed = routes
    .filter((route) => toPattern(route.path).test(c.req.path))
    .map((route) => route.method.toUpperCase());
  if (allowed.length === 0) {
    return new ServerError("not_found", `There is no ${c.req.method} ${c.req.path.slice(0, 200)}`);
  }
  const methods = [...new Set(allowed)].join(", ");
  return new ServerError(
    "method_not_allowed",
    `${c.req.method} is not allowed here; use ${methods}.`,
    {
      headers: { Allow: methods },
    },
  );
}

function toPattern(path: string): RegExp {
  return new RegExp(`^${path.replaceAll(/:[a-z_]+/g, "[^/]+")}$`);
}
