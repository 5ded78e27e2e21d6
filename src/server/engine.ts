import type { Config } from "../config/schema.ts";
import { Commands } from "../engine/commands.ts";
import { Crons } from "../engine/crons.ts";
import { EventLog } from "../engine/event-log.ts";
import { Feedback } from "../engine/feedback.ts";
import { openMailbox, type Mailbox } from "../engine/mailbox.ts";
import { QueueGate } from "../engine/queue-gate.ts";
import { createRunCheckpoints } from "../engine/run-checkpoints.ts";
import { createChooseHeaders } from "../engine/run-config.ts";
import { createRunWatch } from "../engine/run-watch.ts";
import { RunEngine } from "../engine/runs.ts";
import { Sweeper } from "../engine/sweeper.ts";
import { ThreadStreams } from "../engine/thread-stream.ts";
import { ThreadStates } from "../engine/threads.ts";
import { Watch } from "../engine/watch.ts";
import { Webhooks } from "../engine/webhooks.ts";
import { Worker } from "../engine/worker.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import { toRun } from "../http/routes/runs.ts";
import type { Logger } from "../observability/log.ts";
import type { Observer } from "../observability/observer.ts";
import type { Database } from "../storage/database.ts";
import { toWireJson } from "../storage/json.ts";
import { sharedSecret } from "../storage/secrets.ts";
import { ownVersion, toTrace } from "./info.ts";
import type { Closers } from "./project.ts";
import type { Storage } from "./storage.ts";

/** The lease under which a worker holds a run; a silent worker's runs are taken over after it. */
const LEASE_MS = 10_000;
/** How often processes look for what no hint told them of: where hints come, and where none do. */
const PACE = {
  hinted: { queueMs: 1_000, watchMs: 1_000, renewMs: 5_000 },
  unhinted: { queueMs: 250, watchMs: 100, renewMs: 1_000 },
};
/** What the database keeps of the events of one execution, and for how long after its end. */
const EVENTS = { maxBytes: 64 * 1024 * 1024, retentionMs: 60 * 60_000 };
const WEBHOOK_TIMEOUT_MS = 10_000;

/** What the engine gets from the rest of the server. */
export interface EngineGiven {
  config: Config;
  log: Logger;
  closers: Closers;
  storage: Storage;
  observer: Observer;
  graphs: () => GraphRegistry;
  /** A request to this very server, for webhooks that are paths. */
  inProcess: (request: Request) => Promise<Response>;
  /** Runs work where a client without an address reaches this server. */
  within: <T>(work: () => T) => T;
}

/**
 * Puts the engine together on a database: what follows runs and threads over processes, the worker that executes
 * them, and what starts and ends them. Nothing of it works before `open`; the caller closes the parts in order.
 */
export async function openEngine(database: Database, given: EngineGiven) {
  const { config, log, closers, storage, observer, graphs } = given;
  const { runs, queue, threads, runEvents } = storage;
  // PGlite has one process at a time.
  const alone = database.kind === "pglite";
  const pace = database.listens ? PACE.hinted : PACE.unhinted;
  const kept = config.events ?? EVENTS;

  const askToLog = (runId: string): void =>
    mailbox.send({ kind: "follow", run_id: runId, log: true });
  const watch = createRunWatch({
    states: (runIds) => runEvents.states(runIds),
    ask: askToLog,
    pollMs: pace.watchMs,
    log,
  });
  closers.push(async () => watch.close());
  const threadWatch = new Watch({
    marks: (threadIds) => threads.streamMarks(threadIds),
    pollMs: pace.watchMs,
    log,
  });
  closers.push(async () => threadWatch.close());
  const events = new EventLog({
    repository: runEvents,
    serialise: toWireJson,
    watch,
    askToLog,
    announce: (runId) => mailbox.send({ kind: "changed", run_ids: [runId] }),
    alone,
    maxLoggedBytes: kept.maxBytes,
    log,
  });
  closers.push(async () => events.close());
  const feedback = new Feedback({
    observer,
    secret: await sharedSecret(database, "feedback_links"),
  });
  const webhooks = new Webhooks({
    webhooks: storage.webhooks,
    config: config.webhooks,
    secret: config.webhooks.secret ?? (await sharedSecret(database, "webhooks")),
    show: (run) => toRun(run, toTrace(observer, run)),
    serialise: toWireJson,
    loopback: given.inProcess,
    userAgent: `aegra/${ownVersion()}`,
    timeoutMs: WEBHOOK_TIMEOUT_MS,
    log,
  });
  closers.push(() => webhooks.close());

  const leaseMs = config.workers.leaseMs ?? LEASE_MS;
  const worker = new Worker({
    queue,
    events,
    checkpointsOf: createRunCheckpoints({ ...storage, events }),
    store: storage.store,
    graphs,
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
    within: given.within,
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
    batches: storage.batches,
    queue,
    threads,
    assistants: storage.assistants,
    events,
    worker,
    feedback,
    webhooks,
    observer,
    graphs,
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
    states: storage.threadStates,
    threads,
    checkpoints: storage.checkpoints,
    store: storage.store,
    graphs,
    runs: engine,
  });
  const crons = new Crons({ crons: storage.crons, runs: engine, webhooks, log });
  closers.push(() => crons.close());
  const sweeper = new Sweeper({
    runs,
    events: runEvents,
    eventsMs: kept.retentionMs,
    webhooks: storage.webhooks,
    ttls: storage.ttls,
    threadSweepMs: (config.checkpointer.ttl?.sweep_interval_minutes ?? 5) * 60_000,
    threadSweepLimit: config.checkpointer.ttl?.sweep_limit ?? 1_000,
    log,
  });
  closers.push(() => sweeper.close());

  return {
    alone,
    commands: new Commands({ engine, runs, threads, states }),
    crons,
    runEngine: engine,
    events,
    feedback,
    mailbox,
    states,
    streams: new ThreadStreams({ runs, engine, watch: threadWatch, threads }),
    sweeper,
    threadWatch,
    watch,
    webhooks,
    worker,
    /** Takes up what was cut off, and begins to work. */
    async open(): Promise<void> {
      const recovered = await queue.recover({
        held: [],
        // There is no other process: a run that is marked running belongs to one that is gone.
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
    },
  };
}
