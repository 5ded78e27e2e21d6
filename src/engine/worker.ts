import { randomUUID } from "node:crypto";
import type { BaseStore } from "@langchain/langgraph-checkpoint";
import { ServerError } from "../errors.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import type { Logger } from "../observability/log.ts";
import type { Observer, RunObservation } from "../observability/observer.ts";
import type { CancelAction } from "../protocol/runs.ts";
import type { Lease, RunQueue, RunResult } from "../storage/run-queue.ts";
import type { RunRecord, RunRepository } from "../storage/runs.ts";
import { toPublicError } from "./errors.ts";
import type { EventLog, EventWriter } from "./event-log.ts";
import type { Feedback } from "./feedback.ts";
import { executeRun, type Stop } from "./execute.ts";
import type { RunCheckpoints, RunStart } from "./run-checkpoints.ts";
import { toObservedRun } from "./observed-run.ts";
import { MAX_ATTEMPTS } from "./run-status.ts";
import { settle } from "./settle.ts";

/*
 * The worker of one process:   open --drain--> draining --> stopped
 *
 * While it is open it takes runs, as many at a time as it has slots: those its own process has just accepted
 * (`reserve`, then `start`), and those waiting in the queue (`poke`, and a poll for what no poke told of).
 * Each run in its hands has a lease, which it renews; a run whose lease is lost is aborted and leaves no trace
 * in the database.
 */

const POLL_MS = 1_000;
const RECOVER_MS = 2_000;
/** How often the result of a run is offered to a database that does not answer. */
const FINISH_TRIES = 6;

export interface WorkerOptions {
  runs: RunRepository;
  queue: RunQueue;
  events: EventLog;
  /** `undefined` for a run without a thread. */
  checkpointsOf: (start: RunStart) => RunCheckpoints | undefined;
  store: BaseStore;
  graphs: () => GraphRegistry;
  observer: Observer;
  feedback: Feedback;
  /** Is told of every run this worker takes up. */
  onStarted: (run: RunRecord) => void;
  log: Logger;
  /** Runs executed at the same time. */
  concurrency: number;
  leaseMs: number;
}

interface ActiveRun {
  lease: Lease;
  controller: AbortController;
  /** When the lease runs out if it is not renewed, in this process's clock. */
  heldUntil: number;
  ended: Promise<RunResult | undefined>;
}

export class Worker {
  readonly id = randomUUID();
  readonly #options: WorkerOptions;
  readonly #active = new Map<string, ActiveRun>();
  #reserved = 0;
  #draining = false;
  #claiming = false;
  #pokedAgain = false;
  /** Whether the queue may hold a run for this worker; false once a look has found it empty. */
  #mayWait = true;
  readonly #timers: NodeJS.Timeout[] = [];

  constructor(options: WorkerOptions) {
    this.#options = options;
  }

  /** Begins to take runs from the queue. */
  open(): void {
    const every = (ms: number, work: () => Promise<void>): void => {
      const tick = (): void => void work().catch((error: unknown) => this.#complain(error));
      this.#timers.push(setInterval(tick, ms));
    };
    every(POLL_MS, async () => this.poke());
    every(Math.max(1_000, this.#options.leaseMs / 3), () => this.#renew());
    every(RECOVER_MS, async () => {
      const recovered = await this.#options.queue.recover({
        held: [...this.#active.keys()],
        everything: false,
      });
      for (const run of recovered) {
        this.#options.log.warn(
          { run_id: run.run_id, attempt: run.attempt },
          "run recovered from a silent worker",
        );
      }
      if (recovered.length > 0) this.poke();
    });
    this.poke();
  }

  /**
   * A slot for a run that is about to be created, with the lease to create it under; `undefined` if all are
   * taken. Whoever reserves calls `start` or `unreserve`.
   */
  reserve(): { workerId: string; leaseMs: number } | undefined {
    if (this.#draining || this.#free() <= 0) return undefined;
    this.#reserved += 1;
    return { workerId: this.id, leaseMs: this.#options.leaseMs };
  }

  unreserve(): void {
    this.#reserved -= 1;
    if (this.#mayWait) this.poke();
  }

  /** Executes a run whose lease this worker holds; `emptyThread` if its thread is known to have no checkpoints. */
  start(run: RunRecord, emptyThread = false): void {
    const active: ActiveRun = {
      lease: { run_id: run.run_id, worker_id: this.id, attempt: run.attempt },
      controller: new AbortController(),
      heldUntil: Date.now() + this.#options.leaseMs,
      ended: Promise.resolve(undefined),
    };
    this.#active.set(run.run_id, active);
    this.#options.onStarted(run);
    active.ended = this.#execute(run, active, emptyThread)
      .catch((error: unknown) => {
        this.#complain(error, this.#logOf(run));
        return undefined;
      })
      .finally(() => {
        this.#active.delete(run.run_id);
        // A look costs a statement, and keeps slots from runs that come in meanwhile.
        if (this.#mayWait) this.poke();
      });
  }

  /** Looks for work now, or as soon as there is a slot: there may be some. */
  poke(): void {
    this.#mayWait = true;
    if (this.#claiming) {
      this.#pokedAgain = true;
      return;
    }
    if (this.#draining || this.#free() <= 0) return;
    this.#claiming = true;
    void this.#claim()
      .catch((error: unknown) => this.#complain(error))
      .finally(() => {
        this.#claiming = false;
        if (!this.#pokedAgain) return;
        this.#pokedAgain = false;
        this.poke();
      });
  }

  /** Asks a run in this worker's hands to stop; false if it is not here. */
  stop(runId: string, action: CancelAction): boolean {
    const active = this.#active.get(runId);
    active?.controller.abort({
      kind: action === "rollback" ? "rollback" : "cancel",
    } satisfies Stop);
    return active !== undefined;
  }

  /** How a run in this worker's hands ends (`undefined`: not here to the end); `undefined` if it is not here. */
  ended(runId: string): Promise<RunResult | undefined> | undefined {
    return this.#active.get(runId)?.ended;
  }

  get activeRuns(): number {
    return this.#active.size;
  }

  /** Takes nothing new, lets runs finish for at most `graceMs`, and hands the others back to the queue. */
  async drain(graceMs: number): Promise<void> {
    this.#draining = true;
    this.#timers.forEach((timer) => clearInterval(timer));
    const renewal = setInterval(
      () => void this.#renew().catch((error: unknown) => this.#complain(error)),
      Math.max(1_000, this.#options.leaseMs / 3),
    );
    let timer: NodeJS.Timeout | undefined;
    const grace = new Promise((resolve) => {
      timer = setTimeout(resolve, graceMs);
    });
    await Promise.race([Promise.all([...this.#active.values()].map((run) => run.ended)), grace]);
    clearTimeout(timer);
    for (const run of this.#active.values()) {
      run.controller.abort({ kind: "shutdown" } satisfies Stop);
    }
    await Promise.all([...this.#active.values()].map((run) => run.ended));
    clearInterval(renewal);
  }

  #free(): number {
    return this.#options.concurrency - this.#active.size - this.#reserved;
  }

  async #claim(): Promise<void> {
    const limit = this.#free();
    this.#reserved += limit;
    let claimed: RunRecord[] = [];
    try {
      claimed = await this.#options.queue.claim({
        workerId: this.id,
        leaseMs: this.#options.leaseMs,
        limit,
      });
    } finally {
      this.#reserved -= limit;
    }
    if (claimed.length < limit) this.#mayWait = false;
    for (const run of claimed) this.start(run);
  }

  async #renew(): Promise<void> {
    const held = [...this.#active.keys()];
    if (held.length === 0) return;
    const asked = Date.now();
    let renewed: Map<string, CancelAction | null>;
    try {
      const rows = await this.#options.queue.renew(this.id, held, this.#options.leaseMs);
      renewed = new Map(rows.map((row) => [row.run_id, row.cancel_action]));
    } catch (error) {
      // The database is away. Runs go on until their lease would have run out.
      for (const run of this.#active.values()) {
        if (run.heldUntil < Date.now()) run.controller.abort({ kind: "lost" } satisfies Stop);
      }
      throw error;
    }
    for (const runId of held) {
      const run = this.#active.get(runId);
      if (!run) continue;
      if (!renewed.has(runId)) {
        run.controller.abort({ kind: "lost" } satisfies Stop);
        continue;
      }
      run.heldUntil = asked + this.#options.leaseMs;
      const action = renewed.get(runId);
      if (action) this.stop(runId, action);
    }
  }

  async #execute(
    run: RunRecord,
    active: ActiveRun,
    emptyThread: boolean,
  ): Promise<RunResult | undefined> {
    const { events } = this.#options;
    const { signal } = active.controller;
    const startedAt = new Date();
    const writer = await events.open(run.run_id, {
      resumable: run.kwargs.resumable,
      attempt: run.attempt,
    });
    let result: RunResult | undefined;
    const observation = this.#options.observer.startRun({
      ...toObservedRun(run, startedAt),
      signal,
      awaits_result: true,
    });
    const log = this.#logOf(run, observation);
    try {
      writer.append({ event: "metadata", data: this.#metadata(run, observation) });
      // Lets the answer out that is on its way: a graph that never waits would hold it back to its end.
      await new Promise((resolve) => setImmediate(resolve));
      result = await this.#attempt({ run, active, emptyThread, writer, observation, log });
      return result;
    } finally {
      observation.settled?.(result !== undefined);
      await writer.close();
      const stop = signal.aborted ? (signal.reason as Stop) : undefined;
      log.info(
        {
          graph: run.graph_id,
          attempt: run.attempt,
          status: result ? (result.interrupted ? "interrupted" : result.status) : stop?.kind,
          queue_ms: startedAt.getTime() - run.created_at.getTime(),
          duration_ms: Date.now() - startedAt.getTime(),
          trace: this.#options.observer.traceUrl(run.run_id, run.origin.trace),
          error: result?.error?.message,
        },
        "run",
      );
    }
  }

  async #attempt(context: {
    run: RunRecord;
    active: ActiveRun;
    emptyThread: boolean;
    writer: EventWriter;
    observation: RunObservation;
    log: Logger;
  }): Promise<RunResult | undefined> {
    const { run, active, emptyThread, writer, observation, log } = context;
    const { signal } = active.controller;
    const graphs = this.#options.graphs();
    const checkpoints = this.#options.checkpointsOf({ run, graphs, emptyThread });
    const execution =
      run.attempt > MAX_ATTEMPTS
        ? { values: undefined, interrupt: undefined, error: new Error(tooManyAttempts(run)) }
        : await executeRun({
            run,
            graphs,
            checkpointer: checkpoints?.saver,
            store: this.#options.store,
            observation,
            signal,
            append(part) {
              observation.firstEvent?.();
              writer.append(part);
            },
          });
    const stop = signal.aborted ? (signal.reason as Stop) : undefined;
    const { result, outcome } = settle(execution, stop);
    observation.end(outcome);
    const recorded = observation.recorded?.();
    if (!result) {
      if (stop?.kind === "shutdown") await this.#options.queue.release(active.lease);
      return undefined;
    }
    if (stop?.kind === "rollback" && checkpoints)
      Object.assign(result, await checkpoints.rollback());
    const { feedback_keys: keys } = run.kwargs;
    if (keys && result.status === "success" && observation.traceId !== undefined) {
      const links = this.#options.feedback.links(
        run.origin.base_url ?? "",
        { run_id: run.run_id, place: run.origin.trace },
        keys,
      );
      writer.append({ event: "feedback", data: links });
    }
    if (result.error) {
      writer.append({ event: "error", data: result.error });
      log.debug({ err: execution.error }, "run failed");
    }
    await writer.flush().catch((error: unknown) => this.#complain(error, log));
    // Before anybody is told that the run is over: its trace outlives this process as the run does.
    await recorded;
    const written = await this.#finish(active.lease, result);
    if (written?.error && !result.error) writer.append({ event: "error", data: written.error });
    if (written && stop?.kind === "rollback") await this.#options.runs.delete(run.run_id);
    return written;
  }

  /**
   * Writes the result, patiently: it is all that is left of the work. Gives what was written, which is an
   * error if the result has no form that can be stored; `undefined` if the lease is lost.
   */
  async #finish(lease: Lease, result: RunResult): Promise<RunResult | undefined> {
    for (let tries = 1; ; tries += 1) {
      try {
        const done = await this.#options.queue.finish(lease, result);
        if (done === "followed") this.#mayWait = true;
        return done === "lost" ? undefined : result;
      } catch (error) {
        if (error instanceof ServerError) return this.#finish(lease, toFailure(error));
        if (tries === FINISH_TRIES) throw error;
        await new Promise((resolve) => setTimeout(resolve, 100 * 2 ** tries));
      }
    }
  }

  #metadata(run: RunRecord, observation: RunObservation): Record<string, unknown> {
    const url = this.#options.observer.traceUrl(run.run_id, run.origin.trace);
    return {
      run_id: run.run_id,
      attempt: run.attempt,
      ...(observation.traceId !== undefined && { trace_id: observation.traceId }),
      ...(observation.traceId !== undefined && url !== undefined && { trace_url: url }),
    };
  }

  /** Every line about a run has its id, its thread's and its trace's. */
  #logOf(run: RunRecord, observation?: RunObservation): Logger {
    const traceId = observation?.traceId ?? run.origin.trace?.trace_id;
    return this.#options.log.child({
      run_id: run.run_id,
      ...(run.temporary ? {} : { thread_id: run.thread_id }),
      ...(traceId === undefined ? {} : { trace_id: traceId }),
    });
  }

  #complain(error: unknown, log: Logger = this.#options.log): void {
    log.error({ err: error }, "worker");
  }
}

function toFailure(error: ServerError): RunResult {
  return {
    status: "error",
    interrupted: false,
    output: undefined,
    error: toPublicError(error),
    values: undefined,
    interrupts: {},
  };
}

function tooManyAttempts(run: RunRecord): string {
  return `The run was given up: the process that executed it was lost ${MAX_ATTEMPTS} times. Run ${run.run_id} may be what kills it.`;
}
