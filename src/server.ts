import { createRequire } from "node:module";
import { dirname } from "node:path";
import { loadAuth } from "./auth/load.ts";
import { toModuleReference } from "./config/load.ts";
import type { Config } from "./config/schema.ts";
import { AssistantGraphs } from "./engine/assistants.ts";
import { Crons } from "./engine/crons.ts";
import { Commands } from "./engine/commands.ts";
import { EventLog } from "./engine/event-log.ts";
import { Feedback } from "./engine/feedback.ts";
import { openMailbox, type Mailbox } from "./engine/mailbox.ts";
import { createChooseHeaders } from "./engine/run-config.ts";
import { QueueGate } from "./engine/queue-gate.ts";
import { createRunCheckpoints } from "./engine/run-checkpoints.ts";
import { createRunWatch } from "./engine/run-watch.ts";
import { systemAssistantId } from "./engine/new-run.ts";
import { RunEngine } from "./engine/runs.ts";
import { Sweeper } from "./engine/sweeper.ts";
import { ThreadStreams } from "./engine/thread-stream.ts";
import { Watch } from "./engine/watch.ts";
import { ThreadStates } from "./engine/threads.ts";
import { Webhooks } from "./engine/webhooks.ts";
import { Worker } from "./engine/worker.ts";
import { loadGraphs } from "./graphs/load.ts";
import { createGraphRegistry, type GraphRegistry } from "./graphs/registry.ts";
import { loadCustomApp } from "./http/custom-app.ts";
import { createApp } from "./http/app.ts";
import { listen } from "./http/listen.ts";
import { onlyProbes } from "./http/probes.ts";
import { toRun } from "./http/routes/runs.ts";
import { loadEmbeddings } from "./modules/embeddings.ts";
import { openLoopback } from "./loopback.ts";
import { withoutDoubleTraces } from "./observability/foreign-handlers.ts";
import { composeObservers } from "./observability/compose.ts";
import { loadConfiguredTracing } from "./observability/configured.ts";
import { within } from "./observability/delivery/within.ts";
import type { Logger } from "./observability/log.ts";
import { createMetrics } from "./observability/metrics.ts";
import type { Observer } from "./observability/observer.ts";
import type { ThreadTtl } from "./protocol/thread-ttl.ts";
import { createAssistantRepository, type AssistantRepository } from "./storage/assistants.ts";
import { openCheckpoints } from "./storage/checkpoints.ts";
import { createCronRepository } from "./storage/crons.ts";
import { toJson } from "./storage/json.ts";
import { migrate } from "./storage/migrate.ts";
import { answers, openDatabase, toOpenOptions } from "./storage/open.ts";
import { createRunEventRepository } from "./storage/run-events.ts";
import { createRunQueue } from "./storage/run-queue.ts";
import { createRunBatchRepository } from "./storage/run-batches.ts";
import { createRunRepository, type RunRecord } from "./storage/runs.ts";
import { sharedSecret } from "./storage/secrets.ts";
import { openStore, type StoreOptions } from "./storage/store.ts";
import { createThreadStateRepository } from "./storage/thread-state.ts";
import { createThreadTtlRepository } from "./storage/thread-ttl.ts";
import { createThreadRepository } from "./storage/threads.ts";
import { createTraceOutbox, type TraceOutbox } from "./storage/trace-outbox.ts";
import { createWebhookRepository } from "./storage/webhooks.ts";

/** The lease under which a worker holds a run; a silent worker's runs are taken over after it. */
const LEASE_MS = 10_000;
/** How often processes look for what no hint told them of: where hints come, and where none do. */
const PACE = {
  hinted: { queueMs: 1_000, watchMs: 1_000, renewMs: 5_000 },
  unhinted: { queueMs: 250, watchMs: 100, renewMs: 1_000 },
};
/** What the database keeps of the events of one execution, and for how long after its end. */
const EVENTS = { maxBytes: 64 * 1024 * 1024, retentionMs: 60 * 60_000 };
/** How long the database may take to answer a readiness check. */
const READY_MS = 2_000;
const WEBHOOK_TIMEOUT_MS = 10_000;
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
  const closers: (() => Promise<unknown>)[] = [];
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
  closers: (() => Promise<unknown>)[],
): Promise<Server> {
  const loopback = openLoopback();
  closers.push(async () => loopback.close());
  const opening = openMigrated(config, log, closers);
  // Tracing begins before the database is open; what it asks of it by then waits for that.
  const outbox = createTraceOutbox({
    query: async (text, params) => (await opening).query(text, params),
  });
  const loading = loadModules(config, { log, graphs: given.graphs, closers, outbox });
  // Both have ended before the failure of one is thrown, so that what the other one opened is closed.
  await Promise.allSettled([opening, loading]);
  const database = await opening;
  const { auth, tracing, customApp, graphs: loaded } = await loading;
  if (!auth) {
    log.warn(
      "no authentication: everybody who can reach this server can use it (set auth.path to change that)",
    );
  }
  const tracedOnce = (registry: GraphRegistry) => withoutOwnLangfuse(registry, tracing, log);
  let graphs = tracedOnce(loaded);

  const assistants = createAssistantRepository(database);
  await registerSystemAssistants(assistants, graphs);
  const defaultTtl = toDefaultTtl(config.checkpointer);
  const threads = createThreadRepository(database, { defaultTtl });
  const ttls = createThreadTtlRepository(database);
  const runs = createRunRepository(database);
  const queue = createRunQueue(database);
  const metrics = createMetrics({
    queueDepth: () => queue.depth(),
    targets: () => tracing.status(),
    webhooks: () => webhooks.status(),
  });
  const observer = composeObservers([tracing, metrics.observer], (error) =>
    log.error({ err: error }, "an observer failed; runs are not affected"),
  );
  const runEvents = createRunEventRepository(database);
  const checkpoints = openCheckpoints(database);
  closers.push(() => checkpoints.close());
  const store = await openStore(database, {
    ...(await toStoreOptions(config)),
    onSweepError: (error) =>
      log.warn({ err: error }, "expired items of the store were not removed"),
  });
  closers.push(async () => store.stop());

  // PGlite has one process at a time.
  const alone = database.kind === "pglite";
  const pace = database.listens ? PACE.hinted : PACE.unhinted;
  const watch = createRunWatch({
    states: (runIds) => runEvents.states(runIds),
    ask: (runId) => mailbox.send({ kind: "follow", run_id: runId, log: true }),
    pollMs: pace.watchMs,
    log,
  });
  closers.push(async () => watch.close());
  const events = new EventLog({
    repository: runEvents,
    serialise: toJson,
    watch,
    askToLog: (runId) => mailbox.send({ kind: "follow", run_id: runId, log: true }),
    announce: (runId) => mailbox.send({ kind: "changed", run_ids: [runId] }),
    alone,
    maxLoggedBytes: (config.events ?? EVENTS).maxBytes,
    log,
  });
  closers.push(async () => events.close());
  const langgraphVersion = packageVersion("@langchain/langgraph");
  const feedback = new Feedback({
    observer,
    secret: await sharedSecret(database, "feedback_links"),
  });
  const threadWatch = new Watch({
    marks: (threadIds) => threads.streamMarks(threadIds),
    pollMs: pace.watchMs,
    log,
  });
  closers.push(async () => threadWatch.close());
  const webhookRows = createWebhookRepository(database);
  const webhooks = new Webhooks({
    webhooks: webhookRows,
    config: config.webhooks,
    secret: config.webhooks.secret ?? (await sharedSecret(database, "webhooks")),
    show: (run) => toRun(run, toTrace(observer, run)),
    serialise: toJson,
    loopback: async (request) => inProcess(request),
    userAgent: `aegra/${ownVersion()}`,
    timeoutMs: WEBHOOK_TIMEOUT_MS,
    log,
  });
  closers.push(() => webhooks.close());
  const leaseMs = config.workers.leaseMs ?? LEASE_MS;
  const worker = new Worker({
    runs,
    queue,
    events,
    checkpointsOf: createRunCheckpoints({ checkpoints, store, runs, events }),
    store,
    graphs: () => graphs,
    observer,
    feedback,
    onStarted(run) {
      threadWatch.hint([run.thread_id]);
      // Others find a run of the first API by looking; one that a page waits for is worth a statement.
      if (run.kwargs.protocol) mailbox.send({ kind: "thread", thread_id: run.thread_id });
    },
    log,
    webhookWaits: () => webhooks.poke(),
    concurrency: config.role === "api" ? 0 : config.workers.concurrency,
    leaseMs,
    pollMs: pace.queueMs,
    renewMs: Math.min(pace.renewMs, leaseMs / 3),
    limits: { perUser: config.workers.perUser, perAssistant: config.workers.perAssistant },
    runTimeoutMs: config.workers.runTimeoutMs,
    within: (work) => loopback.within(work),
  });
  const mailbox: Mailbox = await openMailbox(database, {
    log,
    onMessage(message) {
      if (message.kind === "run") worker.poke();
      else if (message.kind === "cancel") worker.stop(message.run_id, message.action);
      else if (message.kind === "thread") threadWatch.hint([message.thread_id]);
      else if (message.kind === "changed") watch.hint(message.run_ids);
      else {
        events.follow(message.run_id);
        if (message.log) events.log(message.run_id);
      }
    },
    onMissed() {
      worker.poke();
      watch.poke();
      threadWatch.poke();
    },
  });
  closers.push(() => mailbox.close());
  const engine = new RunEngine({
    runs,
    batches: createRunBatchRepository(database, { defaultTtl }),
    queue,
    threads,
    assistants,
    events,
    worker,
    feedback,
    webhooks,
    observer,
    graphs: () => graphs,
    chooseHeaders: createChooseHeaders(config.http.configurableHeaders),
    watch,
    notify: (message) => mailbox.send(message),
    gate: new QueueGate({
      maxWaiting: config.workers.maxWaiting,
      count: (atMost) => queue.waiting(atMost),
    }),
    alone,
  });
  const states = new ThreadStates({
    states: createThreadStateRepository(database),
    threads,
    checkpoints,
    store,
    graphs: () => graphs,
    runs: engine,
  });
  const cronRows = createCronRepository(database, { defaultTtl });
  const crons = new Crons({ crons: cronRows, runs: engine, webhooks, log });
  closers.push(() => crons.close());
  const streams = new ThreadStreams({
    runs,
    engine,
    watch: threadWatch,
    threads,
  });
  const sweeper = new Sweeper({
    runs,
    events: runEvents,
    eventsMs: (config.events ?? EVENTS).retentionMs,
    webhooks: webhookRows,
    ttls,
    threadSweepMs: (config.checkpointer.ttl?.sweep_interval_minutes ?? 5) * 60_000,
    threadSweepLimit: config.checkpointer.ttl?.sweep_limit ?? 1_000,
    log,
  });
  closers.push(() => sweeper.close());

  let closing: Promise<void> | undefined;
  const version = ownVersion();
  const mountPrefix = config.http.mountPrefix ?? "";
  const app = createApp({
    assistants,
    threads,
    ttls,
    runs,
    engine,
    crons,
    cronRows,
    webhooks: webhookRows,
    states,
    streams,
    commands: new Commands({ engine, runs, threads, states }),
    drawings: new AssistantGraphs({ graphs: () => graphs, store }),
    feedback,
    store,
    graphs: () => graphs,
    auth,
    cors: config.http.cors,
    http: config.http,
    customApp,
    mountPrefix,
    serialise: toJson,
    trace: (run) => toTrace(observer, run),
    metrics: config.metrics?.enabled === false ? undefined : () => metrics.render(),
    info: () => toInfo({ version, langgraphVersion, observer, database, graphs }),
    async unready() {
      if (closing) return "stopping";
      return (await answers(database, READY_MS)) ? undefined : "the database does not answer";
    },
    version,
    log,
    maxBodyBytes: MAX_BODY_BYTES,
  });

  // PGlite has one process at a time, so a run that is marked running belongs to one that is gone.
  const recovered = await queue.recover({
    held: [],
    everything: alone,
  });
  if (recovered.length > 0) {
    log.warn({ runs: recovered.length }, "runs that were cut off go on where they stopped");
  }
  worker.open();
  crons.open();
  webhooks.open();
  sweeper.open();
  closers.push(() => worker.drain(0));
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

  const stopListening = (): Promise<unknown> => {
    const stopped = new Promise((resolve) => http.close(resolve));
    http.closeIdleConnections();
    closeSockets();
    return stopped;
  };
  const close = async (graceMs: number): Promise<void> => {
    await crons.close();
    let stopped: Promise<unknown>;
    if (alone) {
      stopped = stopListening();
      await worker.drain(graceMs);
    } else {
      // Requests are still answered: what they start, other processes execute. `/ready` sends them elsewhere.
      await Promise.all([worker.drain(graceMs), within(graceMs, engine.idle())]);
      stopped = stopListening();
    }
    await webhooks.close();
    events.close();
    watch.close();
    http.closeAllConnections();
    await stopped;
    await observer.shutdown(Math.max(2_000, graceMs / 2));
    await sweeper.close();
    threadWatch.close();
    await mailbox.close();
    store.stop();
    await checkpoints.close();
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
      await registerSystemAssistants(assistants, registry);
      graphs = tracedOnce(registry);
    },
    close: (graceMs = DEFAULT_GRACE_MS) => (closing ??= close(graceMs)),
  };
}

/**
 * Everything made from the project's modules, one after another: a module they share is then evaluated once,
 * which concurrent loading would not do.
 */
async function loadModules(
  config: Config,
  given: {
    log: Logger;
    graphs: GraphRegistry | undefined;
    closers: (() => Promise<unknown>)[];
    outbox: TraceOutbox;
  },
) {
  const { module } = config.auth;
  const letStudioIn = !config.auth.disable_studio_auth;
  const auth = module ? await loadAuth(module, { cwd: config.cwd, letStudioIn }) : undefined;
  if (auth && letStudioIn) {
    given.log.warn(
      'auth.disable_studio_auth is false: whoever sends "x-auth-scheme: langsmith" is let in as Studio, without being asked',
    );
  }
  const { app } = config.http;
  const customApp = app && (await loadCustomApp(app, { cwd: config.cwd }));
  const tracing = await loadConfiguredTracing(config, {
    log: given.log,
    version: ownVersion(),
    outbox: given.outbox,
  });
  given.closers.push(() => tracing.shutdown(1_000));
  const graphs = given.graphs ?? (await loadRegistry(config));
  return { auth, tracing, customApp, graphs };
}

function toMounted(request: Request, prefix: string): Request {
  if (prefix === "") return request;
  const url = new URL(request.url);
  url.pathname = prefix + url.pathname;
  return new Request(url, request);
}

async function openMigrated(config: Config, log: Logger, closers: (() => Promise<unknown>)[]) {
  const database = await openDatabase({
    ...toOpenOptions(config.database),
    log: (level, message, details) => log[level](details ?? {}, message),
  });
  closers.push(() => database.close());
  const { applied } = await migrate(database);
  if (applied.length > 0) log.info({ applied }, "database migrated");
  return database;
}

async function loadRegistry(config: Config): Promise<GraphRegistry> {
  return createGraphRegistry(await loadGraphs(Object.values(config.graphs), { cwd: config.cwd }));
}

/** Graphs whose runs this server sends to Langfuse do not send them a second time by a handler of their own. */
function withoutOwnLangfuse(registry: GraphRegistry, observer: Observer, log: Logger) {
  return withoutDoubleTraces(registry, {
    traced: () =>
      observer.status().some(({ name, state }) => name === "langfuse" && state !== "misconfigured"),
    onRemoved: (graph) =>
      log.warn(
        { graph },
        `Graph "${graph}" has a Langfuse handler of its own, which is left out: its runs are traced by this server.`,
      ),
  });
}

/** How long threads are kept that say nothing of it. */
function toDefaultTtl({ ttl }: Config["checkpointer"]): ThreadTtl | undefined {
  if (!ttl?.default_ttl) return undefined;
  return { ttl: ttl.default_ttl, strategy: ttl.strategy ?? "delete" };
}

/** The store's options, with the function that makes its vectors. */
async function toStoreOptions(config: Config): Promise<StoreOptions> {
  const { index, ttl } = config.store;
  return {
    ...(ttl && {
      ttl: {
        ...(ttl.default_ttl !== undefined && { defaultTtl: ttl.default_ttl }),
        ...(ttl.refresh_on_read !== undefined && { refreshOnRead: ttl.refresh_on_read }),
        ...(ttl.sweep_interval_minutes !== undefined && {
          sweepIntervalMinutes: ttl.sweep_interval_minutes,
        }),
      },
    }),
    ...(index && {
      index: {
        ...index,
        embed: await loadEmbeddings(index.embed, {
          cwd: config.cwd,
          toReference: (embed) =>
            toModuleReference(embed, config.configPath ? dirname(config.configPath) : config.cwd),
        }),
      },
    }),
  };
}

async function registerSystemAssistants(
  assistants: AssistantRepository,
  graphs: GraphRegistry,
): Promise<void> {
  for (const id of graphs.ids()) {
    await assistants.create({
      assistant_id: systemAssistantId(id),
      graph_id: id,
      name: id,
      description: graphs.describe(id)?.description ?? null,
      config: {},
      context: {},
      metadata: { created_by: "system" },
    });
  }
}

function toTrace(observer: Observer, run: RunRecord): { trace_id?: string; trace_url?: string } {
  const { trace } = run.origin;
  if (trace === undefined) return {};
  const url = observer.traceUrl(run.run_id, trace);
  return { trace_id: trace.trace_id, ...(url !== undefined && { trace_url: url }) };
}

function toInfo(parts: {
  version: string;
  langgraphVersion: string;
  observer: Observer;
  database: { kind: string };
  graphs: GraphRegistry;
}): object {
  const { version, langgraphVersion, observer, database, graphs } = parts;
  return {
    version,
    langgraph_js_version: langgraphVersion,
    context: "js",
    flags: {
      assistants: true,
      crons: true,
      langsmith: false,
      langsmith_tracing_replicas: false,
      strict_resume: true,
      stream_namespaces: true,
    },
    server: "aegra",
    database: database.kind,
    graphs: {
      loaded: graphs.ids().filter((id) => graphs.describe(id)?.kind !== "failed"),
      failed: graphs.failures().map(({ id }) => id),
    },
    tracing: observer.status(),
  };
}

function ownVersion(): string {
  const require = createRequire(import.meta.url);
  return (require("../package.json") as { version: string }).version;
}

/** The installed version of a package that does not export its package.json, or does. */
function packageVersion(name: string): string {
  try {
    const require = createRequire(import.meta.url);
    return (require(`${name}/package.json`) as { version: string }).version;
  } catch {
    return "unknown";
  }
}
