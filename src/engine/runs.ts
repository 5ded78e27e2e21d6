import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import { ServerError } from "../errors.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import type { Assistant } from "../protocol/assistants.ts";
import { matches, type Filter } from "../protocol/filters.ts";
import type { CancelAction, RunCreate, RunEvent } from "../protocol/runs.ts";
import type { Observer } from "../observability/observer.ts";
import type { AssistantRepository } from "../storage/assistants.ts";
import type { RunQueue } from "../storage/run-queue.ts";
import type { RunBatchRepository } from "../storage/run-batches.ts";
import type { NewRun } from "../storage/run-creation.ts";
import type { RunRecord } from "../storage/run-record.ts";
import type { RunRepository } from "../storage/runs.ts";
import type { ThreadRepository } from "../storage/threads.ts";
import {
  assertNoThreadNeeded,
  assertThreadStays,
  systemAssistantId,
  toAssistantId,
  toNewRun,
  type RunRequest,
} from "./new-run.ts";
import type { EventLog } from "./event-log.ts";
import type { Feedback } from "./feedback.ts";
import type { Message } from "./mailbox.ts";
import type { QueueGate } from "./queue-gate.ts";
import { placeTrace, toWaitingRun } from "./observed-run.ts";
import type { ChooseHeaders } from "./run-config.ts";
import { RunReader, type LogEnd, type RunAnswer } from "./run-reader.ts";
import type { Watch } from "./watch.ts";
import type { Webhooks } from "./webhooks.ts";
import type { Worker } from "./worker.ts";

export interface RunEngineOptions {
  runs: RunRepository;
  batches: RunBatchRepository;
  queue: RunQueue;
  threads: ThreadRepository;
  assistants: AssistantRepository;
  events: EventLog;
  worker: Worker;
  feedback: Feedback;
  webhooks: Webhooks;
  observer: Observer;
  graphs: () => GraphRegistry;
  /** The headers of a request that its run's graph is told. */
  chooseHeaders: ChooseHeaders;
  watch: Watch;
  gate: QueueGate;
  /** Tells the other processes. */
  notify: (message: Message) => void;
  /** No other process has this database. */
  alone: boolean;
}

/** How long a run that has asked may take to stop before an answer is treated as one to a run that goes on. */
const STOPPING_MS = 5_000;

/** Whether a run is to go on from where the one before it stopped. */
function goesOn({ command, input }: RunCreate): boolean {
  return command ? (command.resume ?? null) !== null : (input ?? null) === null;
}

/** Runs as behaviour: asked for, followed, awaited and stopped, wherever they are executed. */
export class RunEngine {
  readonly #options: RunEngineOptions;
  readonly #reader: RunReader;

  constructor(options: RunEngineOptions) {
    this.#options = options;
    this.#reader = new RunReader(options);
  }

  /** Resolves when nobody waits for a run's end in this process. */
  idle(): Promise<void> {
    return this.#reader.idle();
  }

  /** The assistant behind an assistant id or a graph id, if it passes the filter. Throws `not_found`. */
  async assistant(idOrGraph: string, filter: Filter | undefined): Promise<Assistant> {
    const assistant = await this.#options.assistants.get(toAssistantId(idOrGraph), filter);
    if (assistant) return assistant;
    throw new ServerError("not_found", "Assistant not found");
  }

  /**
   * The assistant that a run is asked with. Everybody may use the server's own for its graphs, whether or not
   * they may read it: it holds nothing of anybody's.
   */
  async assistantForRun(
    idOrGraph: string,
    request: Pick<RunRequest, "assistantFilter">,
  ): Promise<Assistant> {
    const assistant = await this.#options.assistants.get(toAssistantId(idOrGraph), undefined);
    if (assistant) {
      if (assistant.assistant_id === systemAssistantId(assistant.graph_id)) return assistant;
      const filter = await request.assistantFilter(assistant.assistant_id);
      if (!filter || matches(assistant.metadata, filter)) return assistant;
    }
    throw new ServerError(
      "not_found",
      `No assistant found for "${idOrGraph}". Make sure the assistant ID is for a valid assistant or a valid graph ID. The graphs are: ${this.#options.graphs().ids().join(", ")}.`,
    );
  }

  /**
   * A run as it would be written, checked but not written; `threadId` undefined is a run without a thread.
   * Throws `not_found` (assistant, graph), `graph_unavailable`, and `invalid_request` for what such a run
   * cannot do. With `whateverGraph` a run whose graph is not here is accepted, and fails when it is executed.
   */
  async prepare(
    threadId: string | undefined,
    body: RunCreate,
    request: RunRequest,
    { whateverGraph = false } = {},
  ): Promise<NewRun> {
    const assistant = await this.assistantForRun(body.assistant_id, request);
    if (!whateverGraph) this.#assertGraph(assistant.graph_id);
    if (body.feedback_keys?.length) this.#options.feedback.assertAvailable();
    if (body.webhook !== undefined) this.#options.webhooks.assertAccepted(body.webhook);
    const temporary = threadId === undefined && body.on_completion !== "keep";
    if (temporary) assertNoThreadNeeded(body);
    if (threadId !== undefined) assertThreadStays(body);
    const { alone, chooseHeaders } = this.#options;
    const id = threadId ?? uuid7();
    const run = toNewRun({
      threadId: id,
      temporary,
      body,
      assistant,
      request,
      alone,
      headers: chooseHeaders(request.headers),
    });
    run.origin.trace = placeTrace(this.#options.observer, run);
    return run;
  }

  /**
   * Writes and queues a run, and starts it at once if this process has a free slot and the thread is free.
   * Throws what `prepare` throws, `not_found` for the thread, and `run_rejected` on a busy thread with strategy
   * `reject`.
   */
  async create(
    threadId: string | undefined,
    body: RunCreate,
    request: RunRequest,
  ): Promise<RunRecord> {
    const earlier = await this.#earlier(request);
    if (earlier) return earlier;
    const asked = await this.prepare(threadId, body, request);
    const id = asked.thread_id;
    const makesThread =
      !asked.temporary && (threadId === undefined || body.if_not_exists === "create");
    if (goesOn(body)) await this.#untilItStops(id);
    const claim = body.after_seconds ? undefined : this.#options.worker.reserve();
    try {
      if (!claim && !body.after_seconds) await this.#options.gate.admit();
      const made = makesThread && (await this.#options.threads.create(id, body.metadata ?? {}));
      // The filter is about threads of others; it has no say about the one that this request has made.
      if (made) asked.filter = undefined;
      const created = await this.#options.runs.create({ ...asked, claim });
      if (created.kind === "thread_busy" || created.kind === "key_taken") {
        // The same request may have been ahead of this one.
        const twin = await this.#earlier(request);
        if (twin && made && threadId === undefined)
          await this.#options.threads.delete(id, undefined);
        if (twin) return twin;
      }
      if (created.kind === "key_taken") {
        throw new ServerError("conflict", "The run of this Idempotency-Key was just deleted.");
      }
      if (created.kind === "thread_missing") {
        throw new ServerError("not_found", `Thread with ID ${id} not found`);
      }
      if (created.kind === "thread_busy") {
        throw new ServerError(
          "run_rejected",
          "Thread is already running a task. Wait for it to finish or choose a different multitask strategy.",
        );
      }
      if (created.run.status === "running") {
        const { run, emptyThread } = created;
        const askedAt = claim?.askedAt ?? 0;
        this.#options.worker.start(run, { askedAt, emptyThread, queued: false });
      }
      await this.announce(created.run);
      return created.run;
    } finally {
      if (claim) this.#options.worker.unreserve();
    }
  }

  /**
   * Writes several runs without a thread: all, or none if there is a mistake in one. A request that is sent again
   * with its `Idempotency-Key` gets the runs it has made. Throws what `prepare` throws.
   */
  async createBatch(
    batch: readonly { body: RunCreate; request: RunRequest }[],
  ): Promise<RunRecord[]> {
    const earlier = await this.#earlierOf(batch);
    if (earlier) return earlier;
    const asked = await Promise.all(
      batch.map(({ body, request }) => this.prepare(undefined, body, request)),
    );
    const { worker, batches, gate } = this.#options;
    const claims = asked.map(({ afterSeconds }) =>
      afterSeconds > 0 ? undefined : worker.reserve(),
    );
    try {
      const waiting = asked.filter((run, index) => run.afterSeconds <= 0 && !claims[index]).length;
      if (waiting > 0) await gate.admit(waiting);
      const created = await batches.create(
        asked.map((run, index) => ({
          run: { ...run, filter: undefined, claim: claims[index] },
          threadMetadata: batch[index]!.body.metadata ?? {},
        })),
      );
      if (created === "key_taken") {
        // The same request may have been ahead of this one.
        const twins = await this.#earlierOf(batch);
        if (twins) return twins;
        throw new ServerError("conflict", "Runs with this Idempotency-Key were just deleted.");
      }
      for (const [index, { run, emptyThread }] of created.entries()) {
        const askedAt = claims[index]?.askedAt ?? 0;
        if (run.status === "running") worker.start(run, { askedAt, emptyThread, queued: false });
      }
      return created.map(({ run }) => run);
    } finally {
      for (const claim of claims) if (claim) worker.unreserve();
      this.wake();
    }
  }

  async #earlierOf(batch: readonly { request: RunRequest }[]): Promise<RunRecord[] | undefined> {
    const found = await Promise.all(batch.map(({ request }) => this.#earlier(request)));
    return found.every((run) => run !== undefined) ? found : undefined;
  }

  /** The run that the same request has made before. Throws `invalid_request` if it was another request. */
  async #earlier({ principal, idempotency }: RunRequest): Promise<RunRecord | undefined> {
    if (!idempotency) return undefined;
    const { key, hash } = idempotency;
    const run = await this.#options.runs.findByKey(principal?.identity, key);
    if (!run || run.idempotency_hash === hash) return run;
    throw new ServerError(
      "invalid_request",
      `Idempotency-Key: "${key}" was used for another request. Use one key for one request.`,
    );
  }

  /** Tells the workers of a run that was written and waits, and stops the runs that it is to replace. */
  async announce(run: RunRecord): Promise<void> {
    if (run.status === "pending") {
      this.#options.notify({ kind: "run" });
      this.#options.worker.poke();
    }
    const { multitask_strategy: strategy } = run;
    if (strategy === "interrupt" || strategy === "rollback") await this.#stopOthers(run, strategy);
  }

  /**
   * The events of a run after `after` (-1 is from the start), in batches, as they come, until the run has
   * ended. A reader that comes after the events are gone gets how the run ended.
   */
  events(
    run: RunRecord,
    after: number,
    signal?: AbortSignal,
  ): AsyncGenerator<RunEvent[], void, void> {
    return this.#reader.events(run, after, signal);
  }

  /** As `events`, with nothing made up: a run whose events are gone gives none. */
  log(
    run: RunRecord,
    after: number,
    signal?: AbortSignal,
  ): AsyncGenerator<RunEvent[], LogEnd, void> {
    return this.#reader.log(run, after, signal);
  }

  /** Waits for a run's end, here or in another process. Rejects only if `signal` aborts first. */
  wait(run: RunRecord, signal?: AbortSignal): Promise<RunAnswer> {
    return this.#reader.wait(run, signal);
  }

  /**
   * Stops a run, and with `wait` resolves only when it has ended. A run that has ended already stays as it
   * is. `rollback` also removes what the run did: its checkpoints and the run itself.
   */
  async cancel(
    run: RunRecord,
    action: CancelAction,
    options: { wait: boolean; reason?: string },
  ): Promise<void> {
    const done = await this.#options.queue.cancel(run.run_id, action, options.reason);
    if (done === "asked" && !this.#options.worker.stop(run.run_id, action)) {
      this.#options.notify({ kind: "cancel", run_id: run.run_id, action });
    }
    if (done === "ended") {
      await this.#tellOfWaiting(run, action);
      this.#options.worker.poke();
      this.#options.notify({ kind: "thread", thread_id: run.thread_id });
      if (run.kwargs.webhook !== undefined) this.#options.webhooks.poke();
    }
    if (!options.wait || done !== "asked") return;
    await this.wait(run);
  }

  /** No worker has this run, and none will tell of its end. */
  async #tellOfWaiting(run: RunRecord, action: CancelAction): Promise<void> {
    const observation = this.#options.observer.startRun(toWaitingRun(run, new Date()));
    observation.end({ status: action === "rollback" ? "rolled_back" : "cancelled" });
    await observation.recorded?.();
  }

  /** Deletes a run, after stopping it if it is active. Its checkpoints stay with the thread. */
  async delete(run: RunRecord): Promise<void> {
    await this.cancel(run, "interrupt", { wait: true });
    await this.#options.runs.delete(run.run_id);
    this.#options.events.forget(run.run_id);
  }

  /** Has the workers look for runs that were kept waiting. */
  wake(): void {
    this.#options.notify({ kind: "run" });
    this.#options.worker.poke();
  }

  /** Stops every run of a thread and waits until none is left. */
  async stopThread(threadId: string): Promise<void> {
    for (;;) {
      const active = await this.#options.runs.active(threadId);
      if (active.length === 0) return;
      // Newest first, so that no waiting run starts when the one before it stops.
      for (const run of active.toReversed()) await this.cancel(run, "interrupt", { wait: true });
    }
  }

  /**
   * Waits for a run that has told its question and is about to stop: whoever reads it may answer before that. One
   * that has other work to do beside the question is not waited for to its end.
   */
  async #untilItStops(threadId: string): Promise<void> {
    const [asking, ...others] = await this.#options.runs.active(threadId);
    if (!asking || others.length > 0 || asking.status !== "running" || !asking.asked) return;
    await this.wait(asking, AbortSignal.timeout(STOPPING_MS)).catch(() => {});
  }

  async #stopOthers(run: RunRecord, action: CancelAction): Promise<void> {
    const active = await this.#options.runs.active(run.thread_id);
    const older = active.slice(
      0,
      active.findIndex((other) => other.run_id === run.run_id),
    );
    for (const other of older.toReversed()) await this.cancel(other, action, { wait: false });
  }

  #assertGraph(graphId: string): void {
    const entry = this.#options.graphs().describe(graphId);
    if (!entry) {
      throw new ServerError("not_found", `Graph "${graphId}" not found`);
    }
    if (entry.kind === "failed") {
      throw new ServerError(
        "graph_unavailable",
        `Graph "${graphId}" failed to load: ${entry.error.message}`,
      );
    }
  }
}
