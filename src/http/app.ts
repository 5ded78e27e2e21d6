import { randomUUID } from "node:crypto";
import { Hono, type Context } from "hono";
import { getPath } from "hono/utils/url";
import type { HttpConfig } from "../config/schema.ts";
import type { AssistantGraphs } from "../engine/assistants.ts";
import type { Crons } from "../engine/crons.ts";
import type { Feedback } from "../engine/feedback.ts";
import type { Commands } from "../engine/commands.ts";
import type { RunEngine } from "../engine/runs.ts";
import type { ThreadStreams } from "../engine/thread-stream.ts";
import type { ThreadStates } from "../engine/threads.ts";
import { ServerError } from "../errors.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import type { AssistantRepository } from "../storage/assistants.ts";
import type { CronRepository } from "../storage/crons.ts";
import type { RunRecord } from "../storage/run-record.ts";
import type { RunRepository } from "../storage/runs.ts";
import type { DatabaseStore } from "../storage/store.ts";
import type { ThreadTtlRepository } from "../storage/thread-ttl.ts";
import type { ThreadRepository } from "../storage/threads.ts";
import type { WebhookRepository } from "../storage/webhooks.ts";
import { answer, type AnswerDeps, type Env } from "./answer.ts";
import { mountCustomApp, type CustomApp } from "./custom-app.ts";
import { crossOrigin } from "./middleware/cors.ts";
import { toOpenApi } from "./openapi.ts";
import { toProblemResponse } from "./problem.ts";
import { authenticateFirst } from "./middleware/authenticate-first.ts";
import { isServed, toPattern } from "./route-groups.ts";
import type { Route } from "./route.ts";
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

export interface AppDeps extends AnswerDeps {
  assistants: AssistantRepository;
  threads: ThreadRepository;
  ttls: ThreadTtlRepository;
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
  http: HttpConfig;
  /** The project's own routes and middleware. */
  customApp: CustomApp | undefined;
  trace: (run: RunRecord) => { trace_id?: string; trace_url?: string };
  info: () => object;
  /** Why this process should get no requests; `undefined` if it should. */
  unready: () => Promise<string | undefined>;
  /** `undefined` where it is switched off. */
  metrics: (() => Promise<{ contentType: string; text: string }>) | undefined;
  version: string;
}

/** A path that no route has, whatever a project adds. */
const NOWHERE = "/\0";
const REQUEST_ID = /^[\w.:-]{1,128}$/;

/** The HTTP API. Holds nothing of its own; whoever opened the parts in `deps` closes them. */
export function createApp(deps: AppDeps): Hono<Env> {
  const all: Route[] = [
    ...assistantRoutes({ ...deps, runs: deps.engine }),
    ...threadRoutes(deps),
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
  const routes = all.filter((route) => isServed(route, deps.http.disabled ?? []));
  const { mountPrefix } = deps;
  const document = toOpenApi(routes, { version: deps.version, mountPrefix });
  const app = new Hono<Env>({
    getPath:
      mountPrefix === "" ? getPath : (request) => unmounted(getPath(request), mountPrefix, routes),
  });
  app.use(async (c, next) => {
    const asked = c.req.header("x-request-id");
    c.set("requestId", asked && REQUEST_ID.test(asked) ? asked : randomUUID());
    await next();
    try {
      c.res.headers.set("X-Request-ID", c.get("requestId"));
    } catch {
      // An answer that a project's route has from elsewhere, such as from fetch, cannot be changed in place.
      c.header("X-Request-ID", c.get("requestId"));
    }
  });
  app.use(crossOrigin(deps.cors));
  if (deps.customApp) {
    const { auth, http } = deps;
    if (auth && !http.middlewareFirst) {
      app.use(authenticateFirst(auth, routes, { others: http.authenticateApp !== false }));
    }
    mountCustomApp(app as unknown as Hono, deps.customApp);
  }
  for (const route of routes) {
    app.on(route.method.toUpperCase(), route.path, (c) => answer(c, route, deps));
  }
  app.notFound((c) => toProblemResponse(unknownRoute(c, routes), c, deps.log));
  app.onError((error, c) => toProblemResponse(error, c as Context, deps.log));
  return app;
}

function unknownRoute(c: Context, routes: readonly Route[]): ServerError {
  const allowed = routes
    .filter((route) => toPattern(route.path).test(c.req.path))
    .map((route) => route.method.toUpperCase());
  if (allowed.length === 0) {
    return new ServerError(
      "not_found",
      `There is no ${c.req.method} ${new URL(c.req.url).pathname.slice(0, 200)}`,
    );
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

/** The path below the prefix. What looks after a server's health may leave the prefix out. */
function unmounted(path: string, prefix: string, routes: readonly Route[]): string {
  if (path.startsWith(`${prefix}/`)) return path.slice(prefix.length);
  return routes.some((route) => route.tag === "Meta" && route.path === path) ? path : NOWHERE;
}
