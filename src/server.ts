import type { Config } from "./config/schema.ts";
import { AssistantGraphs } from "./engine/assistants.ts";
import type { GraphRegistry } from "./graphs/registry.ts";
import { createApp } from "./http/app.ts";
import { listen } from "./http/listen.ts";
import { onlyProbes } from "./http/probes.ts";
import { openLoopback } from "./loopback.ts";
import { composeObservers } from "./observability/compose.ts";
import { within } from "./observability/delivery/within.ts";
import type { Logger } from "./observability/log.ts";
import { createMetrics } from "./observability/metrics.ts";
import type { Observer } from "./observability/observer.ts";
import { openEngine } from "./server/engine.ts";
import { ownVersion, toInfo, toTrace } from "./server/info.ts";
import {
  createTypeSchemas,
  loadProject,
  withoutOwnLangfuse,
  type Closers,
} from "./server/project.ts";
import { openMigrated, openStorage, registerSystemAssistants } from "./server/storage.ts";
import { toWireJson } from "./storage/json.ts";
import { answers } from "./storage/open.ts";
import { createTraceOutbox } from "./storage/trace-outbox.ts";

/** How long the database may take to answer a readiness check. */
const READY_MS = 2_000;
const MAX_BODY_BYTES = 8 * 1024 * 1024;
const DEFAULT_GRACE_MS = 10_000;

/** A running server. Whoever opened it closes it. */
export interface Server {
  /** Where clients reach it, without a trailing slash. */
  url: string;
  port: number;
  database: { kind: "postgres" | "pglite"; location: string };
  observer: Observer;
  graphs: GraphRegistry;
  /** Puts other graphs in place. Runs in progress keep the ones they started with. */
  replaceGraphs(registry: GraphRegistry): Promise<void>;
  /**
   * Takes no more requests, lets runs finish for `graceMs` (default 10,000), hands the rest back to the
   * queue, sends the traces that wait, and closes the database. Safe to call twice.
   */
  close(graceMs?: number): Promise<void>;
}

export interface OpenServerOptions {
  log: Logger;
  /** Graphs that are loaded already; without them, those of the config are loaded. */
  graphs?: GraphRegistry;
}

/**
 * Starts everything in order: database, migrations, authentication, graphs, tracing, worker, HTTP. Rejects
 * with `startup_failed` if a part without which the server would be wrong cannot start; a graph that does not
 * load, or a Langfuse that does not answer, is not such a part. What was opened by then is closed again.
 */
export async function openServer(config: Config, options: OpenServerOptions): Promise<Server> {
  // LangChain otherwise hands all callbacks to one queue for the whole process, and LangGraph drops the tokens
  // that are still in it when their run ends: all of them, with one handler somewhere that waits 1 ms.
  process.env["LANGCHAIN_CALLBACKS_BACKGROUND"] ||= "false";
  const closers: Closers = [];
  try {
    return await compose(config, options, closers);
  } catch (error) {
    for (const close of closers.toReversed()) await close().catch(() => {});
    throw error;
  }
}

async function compose(
  config: Config,
  { log, ...given }: OpenServerOptions,
  closers: Closers,
): Promise<Server> {
  const loopback = openLoopback();
  closers.push(async () => loopback.close());
  const opening = openMigrated(config, log, closers);
  // Tracing begins before the database is open; what it asks of it by then waits for that.
  const outbox = createTraceOutbox({
    query: async (text, params) => (await opening).query(text, params),
  });
  const loading = loadProject(config, { log, graphs: given.graphs, closers, outbox });
  // Both have ended before the failure of one is thrown, so that what the other one opened is closed.
  await Promise.allSettled([opening, loading]);
  const database = await opening;
  const { auth, tracing, customApp, graphs: loaded } = await loading;
  const tracedOnce = (registry: GraphRegistry) => withoutOwnLangfuse(registry, tracing, log);
  let graphs = tracedOnce(loaded);

  const storage = await openStorage(database, { config, log, closers });
  await registerSystemAssistants(storage.assistants, graphs, config.graphs);
  const metrics = createMetrics({
    queueDepth: () => storage.queue.depth(),
    targets: () => tracing.status(),
    webhooks: {
      depth: () => storage.webhooks.counts(),
      done: () => engine.webhooks.done(),
    },
  });
  const observer = composeObservers([tracing, metrics.observer], (error) =>
    log.error({ err: error }, "an observer failed; runs are not affected"),
  );
  const engine = await openEngine(database, {
    config,
    log,
    closers,
    storage,
    observer,
    graphs: () => graphs,
    inProcess: async (request) => inProcess(request),
    within: (work) => loopback.within(work),
  });

  const types = createTypeSchemas(config, log);
  closers.push(() => types.close());

  let closing: Promise<void> | undefined;
  const mountPrefix = config.http.mountPrefix ?? "";
  const app = createApp({
    ...storage,
    cronRows: storage.crons,
    engine: engine.runEngine,
    crons: engine.crons,
    states: engine.states,
    streams: engine.streams,
    commands: engine.commands,
    drawings: new AssistantGraphs({ graphs: () => graphs, store: storage.store, types }),
    feedback: engine.feedback,
    graphs: () => graphs,
    auth,
    cors: config.http.cors,
    http: config.http,
    customApp,
    mountPrefix,
    serialise: toWireJson,
    trace: (run) => toTrace(observer, run),
    metrics: config.metrics?.enabled === false ? undefined : () => metrics.render(),
    info: () => toInfo({ observer, database, graphs }),
    async unready() {
      if (closing) return "stopping";
      return (await answers(database, READY_MS)) ? undefined : "the database does not answer";
    },
    version: ownVersion(),
    log,
    maxBodyBytes: MAX_BODY_BYTES,
  });

  await engine.open();
  // A client without an address, and a webhook that is a path, know of no prefix.
  const inProcess = (request: Request) =>
    loopback.within(() => app.fetch(toMounted(request, mountPrefix)));
  const fetch: typeof app.fetch = (...given) => loopback.within(() => app.fetch(...given));
  loopback.bind(inProcess);
  const { http, port, closeSockets } = await listen(
    config.role === "worker" ? onlyProbes(fetch) : fetch,
    { ...config, maxBodyBytes: MAX_BODY_BYTES },
    log,
  );
  types.replace(graphs);

  const stopListening = (): Promise<unknown> => {
    const stopped = new Promise((resolve) => http.close(resolve));
    http.closeIdleConnections();
    closeSockets();
    return stopped;
  };
  const close = async (graceMs: number): Promise<void> => {
    await Promise.all([engine.crons.close(), types.close()]);
    let stopped: Promise<unknown>;
    if (engine.alone) {
      stopped = stopListening();
      await engine.worker.drain(graceMs);
    } else {
      // Requests are still answered: what they start, other processes execute. `/ready` sends them elsewhere.
      await Promise.all([engine.worker.drain(graceMs), within(graceMs, engine.runEngine.idle())]);
      stopped = stopListening();
    }
    await engine.webhooks.close();
    engine.events.close();
    engine.watch.close();
    http.closeAllConnections();
    await stopped;
    await observer.shutdown(Math.max(2_000, graceMs / 2));
    await engine.sweeper.close();
    engine.threadWatch.close();
    await engine.mailbox.close();
    storage.store.stop();
    await storage.checkpoints.close();
    await database.close();
    loopback.close();
  };
  return {
    url: `http://${config.host === "0.0.0.0" || config.host === "::" ? "localhost" : config.host}:${port}${mountPrefix}`,
    port,
    database: { kind: database.kind, location: database.location },
    observer,
    get graphs() {
      return graphs;
    },
    async replaceGraphs(registry) {
      await registerSystemAssistants(storage.assistants, registry, config.graphs);
      graphs = tracedOnce(registry);
      types.replace(graphs);
    },
    close: (graceMs = DEFAULT_GRACE_MS) => (closing ??= close(graceMs)),
  };
}

function toMounted(request: Request, prefix: string): Request {
  if (prefix === "") return request;
  const url = new URL(request.url);
  url.pathname = prefix + url.pathname;
  return new Request(url, request);
}
