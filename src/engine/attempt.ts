import type { BaseStore } from "@langchain/langgraph-checkpoint";
import { ServerError } from "../errors.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import type { Logger } from "../observability/log.ts";
import type { Observer, RunObservation } from "../observability/observer.ts";
import { DatabaseAway } from "../storage/persistence.ts";
import type { Lease, RunQueue } from "../storage/run-queue.ts";
import type { EncodedResult, RunResult } from "../storage/run-result.ts";
import type { RunRecord } from "../storage/run-record.ts";
import { toLoggedError } from "./errors.ts";
import type { EventLog, EventWriter } from "./event-log.ts";
import { RunTimeout, executeRun, type Execution, type Stop } from "./execute.ts";
import type { Feedback } from "./feedback.ts";
import { toObservedRun } from "./observed-run.ts";
import type { RunCheckpoints, RunStart } from "./run-checkpoints.ts";
import { MAX_LOSSES } from "./run-status.ts";
import { settle, toFailure, toStorable } from "./settle.ts";
import type { StreamPart } from "./stream-modes.ts";

/** How often the result of a run is offered to a database that does not answer. */
const FINISH_TRIES = 6;
const GOES_ON = "the database was away; the run goes on when it is back";

export interface AttemptOptions {
  queue: RunQueue;
  events: EventLog;
  /** `undefined` for a run without a thread. */
  checkpointsOf: (start: RunStart) => RunCheckpoints | undefined;
  store: BaseStore;
  graphs: () => GraphRegistry;
  observer: Observer;
  feedback: Feedback;
  log: Logger;
  /** Told when a run has ended that has a webhook. */
  webhookWaits: () => void;
  /** How long an attempt may take; `undefined` is as long as it likes. */
  runTimeoutMs: number | undefined;
}

export interface AttemptStart {
  run: RunRecord;
  lease: Lease;
  /** The run's thread is known to have no checkpoints. */
  emptyThread: boolean;
  /** It was taken from the queue: whoever asked for it may be in another process. */
  queued: boolean;
  /** When the lease runs out if it is not renewed, in this process's clock. */
  heldUntil: number;
  /** Renews the leases of this worker, which confirms or stops this attempt. */
  renew: () => Promise<void>;
}

/** One worker's try at a run, from the lease to the result. */
export class Attempt {
  readonly #options: AttemptOptions;
  readonly #start: AttemptStart;
  readonly #controller = new AbortController();
  readonly #writer: EventWriter;
  #heldUntil: number;
  /** What the graph said since the lease may have run out: nobody hears it before it is known that it has not. */
  #late: StreamPart[] = [];
  #ended: Promise<RunResult | undefined> = Promise.resolve(undefined);
  /** Other runs wait for the thread. */
  followed = false;

  constructor(options: AttemptOptions, start: AttemptStart) {
    this.#options = options;
    this.#start = start;
    this.#heldUntil = start.heldUntil;
    this.#writer = options.events.open(start.lease, {
      logged: start.run.logged,
      watched: start.queued,
    });
  }

  /** How it ended; `undefined` if not here to the end. */
  get ended(): Promise<RunResult | undefined> {
    return this.#ended;
  }

  get heldUntil(): number {
    return this.#heldUntil;
  }

  /** The lease is held until then. */
  confirm(heldUntil: number): void {
    this.#heldUntil = heldUntil;
    const late = this.#late;
    this.#late = [];
    for (const part of late) this.#writer.append(part);
  }

  stop(kind: Exclude<Stop["kind"], "timeout">): void {
    this.#controller.abort({ kind } satisfies Stop);
  }

  /** Executes the run. To be called once; never rejects. */
  execute(): Promise<RunResult | undefined> {
    const { runTimeoutMs: limitMs } = this.#options;
    const limit =
      limitMs === undefined
        ? undefined
        : setTimeout(() => this.#controller.abort(new RunTimeout(limitMs)), limitMs);
    this.#ended = this.#execute()
      .catch((error: unknown) => {
        if (error instanceof DatabaseAway) this.#log().warn({ err: error }, GOES_ON);
        else this.#log().error({ err: error }, "worker");
        return undefined;
      })
      .finally(() => clearTimeout(limit));
    return this.#ended;
  }

  async #execute(): Promise<RunResult | undefined> {
    const { run } = this.#start;
    const startedAt = new Date();
    let result: RunResult | undefined;
    const observation = this.#options.observer.startRun({
      ...toObservedRun(run, startedAt),
      signal: this.#controller.signal,
      awaits_result: true,
    });
    const log = this.#log(observation);
    try {
      this.#append({ event: "metadata", data: this.#metadata(observation) });
      // Lets the answer out that is on its way: a graph that never waits would hold it back to its end.
      await new Promise((resolve) => setImmediate(resolve));
      result = await this.#toEnd(observation, log);
      return result;
    } finally {
      observation.settled?.(result !== undefined);
      await this.#writer.close(result !== undefined);
      log.info(
        {
          graph: run.graph_id,
          attempt: run.attempt,
          status: result ? (result.interrupted ? "interrupted" : result.status) : this.#stop?.kind,
          queue_ms: startedAt.getTime() - run.created_at.getTime(),
          duration_ms: Date.now() - startedAt.getTime(),
          trace: this.#options.observer.traceUrl(run.run_id, run.origin.trace),
          error: result?.error?.message,
        },
        "run",
      );
    }
  }

  async #toEnd(observation: RunObservation, log: Logger): Promise<RunResult | undefined> {
    const { run, emptyThread } = this.#start;
    const graphs = this.#options.graphs();
    const checkpoints = this.#options.checkpointsOf({ run, emptyThread });
    const execution = await this.#run(observation, { graphs, checkpoints });
    if (this.#isLate) await this.#start.renew().catch(() => this.stop("lost"));
    if (isUnavailable(execution.error)) {
      log.warn({ err: execution.error }, GOES_ON);
      this.stop("unavailable");
    }
    const stop = this.#stop;
    const { result, outcome } = toStorable(settle(execution, stop));
    observation.end(outcome);
    const recorded = observation.recorded?.();
    if (!result) {
      if (stop?.kind === "shutdown" || stop?.kind === "unavailable") await this.#release();
      return undefined;
    }
    if (stop?.kind === "rollback") await checkpoints?.rollback();
    this.#addFeedback(result.plain, observation);
    if (result.plain.error) {
      this.#append({ event: "error", data: result.plain.error });
      log.warn({ err: outcome.error }, "run failed");
    }
    // Before anybody is told that the run is over: its trace outlives this process as the run does.
    await recorded;
    return this.#finish(result, { remove: stop?.kind === "rollback" });
  }

  async #run(
    observation: RunObservation,
    parts: { graphs: GraphRegistry; checkpoints: RunCheckpoints | undefined },
  ): Promise<Execution> {
    const { run } = this.#start;
    if (run.losses >= MAX_LOSSES) {
      return {
        values: undefined,
        interrupt: undefined,
        error: new Error(tooManyAttempts(run)),
      };
    }
    return executeRun({
      run,
      graphs: parts.graphs,
      checkpointer: parts.checkpoints?.saver,
      store: this.#options.store,
      observation,
      signal: this.#controller.signal,
      asks: (ids) => this.#asks(ids),
      append: (part) => {
        observation.firstEvent?.();
        this.#append(part);
      },
    });
  }

  /** Lets an answer be taken that comes as soon as the question is told, before the run has stopped. */
  async #asks(ids: readonly string[]): Promise<void> {
    await this.#options.queue.ask(this.#start.lease, ids).catch((error: unknown) => {
      this.#log().debug({ err: error }, "the questions of a run could not be noted");
    });
  }

  #append(part: StreamPart): void {
    if (this.#isLate) this.#late.push(part);
    else this.#writer.append(part);
  }

  get #isLate(): boolean {
    return this.#late.length > 0 || Date.now() > this.#heldUntil;
  }

  get #stop(): Stop | undefined {
    const { signal } = this.#controller;
    return signal.aborted ? (signal.reason as Stop) : undefined;
  }

  #addFeedback(result: RunResult, observation: RunObservation): void {
    const { run } = this.#start;
    const { feedback_keys: keys } = run.kwargs;
    if (!keys || result.status !== "success" || observation.traceId === undefined) return;
    const links = this.#options.feedback.links(
      run.origin.base_url ?? "",
      { run_id: run.run_id, place: run.origin.trace },
      keys,
    );
    this.#append({ event: "feedback", data: links });
  }

  /** Hands the run back, with the events it has so far. */
  async #release(): Promise<void> {
    await this.#writer.flush().catch(() => {});
    await this.#options.queue.release(this.#start.lease);
  }

  /**
   * Writes the result, patiently: it is all that is left of the work. Its events are where they are wanted by
   * then. Gives what was written, which is an error if the result has no form that can be stored; `undefined` if
   * the lease is lost.
   */
  async #finish(result: EncodedResult, { remove = false } = {}): Promise<RunResult | undefined> {
    const { lease, run } = this.#start;
    const { webhook } = run.kwargs;
    for (let tries = 1; ; tries += 1) {
      try {
        await this.#writer.flush();
        const done = await this.#options.queue.finish(lease, result, {
          logged: this.#writer.logged,
          webhook,
          remove,
        });
        if (done === "unlogged") {
          this.#options.events.log(lease.run_id);
          continue;
        }
        this.followed = done === "followed";
        if (webhook !== undefined) this.#options.webhookWaits();
        return done === "lost" ? undefined : result.plain;
      } catch (error) {
        if (error instanceof ServerError) {
          const failure = toFailure(error);
          if (!result.plain.error) {
            this.#append({ event: "error", data: failure.plain.error });
            this.#log().warn({ err: error }, "run failed");
          }
          return this.#finish(failure);
        }
        if (tries === FINISH_TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** tries));
      }
    }
  }

  #metadata(observation: RunObservation): Record<string, unknown> {
    const { run } = this.#start;
    const url = this.#options.observer.traceUrl(run.run_id, run.origin.trace);
    return {
      run_id: run.run_id,
      attempt: run.attempt,
      ...(observation.traceId !== undefined && { trace_id: observation.traceId }),
      ...(observation.traceId !== undefined && url !== undefined && { trace_url: url }),
    };
  }

  /** Every line about a run has its id, its thread's and its trace's. */
  #log(observation?: RunObservation): Logger {
    const { run } = this.#start;
    const traceId = observation?.traceId ?? run.origin.trace?.trace_id;
    return this.#options.log.child(
      {
        run_id: run.run_id,
        ...(run.temporary ? {} : { thread_id: run.thread_id }),
        ...(traceId === undefined ? {} : { trace_id: traceId }),
      },
      { serializers: { err: toLoggedError } },
    );
  }
}

/** Whether an execution failed for want of the server's own database, which is no fault of the run. */
function isUnavailable(error: unknown): boolean {
  return error instanceof ServerError && error.code === "unavailable";
}

function tooManyAttempts(run: RunRecord): string {
  return `The run was given up: the process that executed it was lost ${MAX_LOSSES} times. Run ${run.run_id} may be what kills it.`;
}
