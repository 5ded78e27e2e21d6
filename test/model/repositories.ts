import { randomUUID } from "node:crypto";
import { emptyCheckpoint } from "@langchain/langgraph-checkpoint";
import { ServerError } from "../../src/errors.ts";
import { openCheckpoints, type Checkpoints } from "../../src/storage/checkpoints.ts";
import type { Database } from "../../src/storage/database.ts";
import { createRunQueue, type RunQueue } from "../../src/storage/run-queue.ts";
import { encodeResult, type RunResult } from "../../src/storage/run-result.ts";
import { createRunRepository, type RunRepository } from "../../src/storage/runs.ts";
import {
  createThreadStateRepository,
  type StateWriter,
  type ThreadStateRepository,
} from "../../src/storage/thread-state.ts";
import type { Held, ModelRun, ModelState, ModelThread, Step } from "./run-model.ts";

const HOUR_MS = 3_600_000;

/** What a step answered, as far as whoever asked can tell; the model has to agree. */
export type Said = string | number | boolean | undefined;

/** Takes the model's steps by the statements of the server. */
export class Repositories {
  readonly #database: Database;
  readonly #runs: RunRepository;
  readonly #queue: RunQueue;
  readonly #states: ThreadStateRepository;
  readonly #checkpoints: Checkpoints;
  readonly #threadIds: string[] = [];
  readonly #runIds: string[] = [];
  readonly #workerIds: string[] = [];
  readonly #writers = new Map<number, StateWriter>();

  constructor(database: Database) {
    this.#database = database;
    this.#runs = createRunRepository(database);
    this.#queue = createRunQueue(database);
    this.#states = createThreadStateRepository(database);
    this.#checkpoints = openCheckpoints(database);
  }

  /** Threads and workers of its own, for another walk. */
  async begin(state: ModelState): Promise<void> {
    this.#runIds.length = 0;
    this.#writers.clear();
    // What an earlier walk left must not be claimed in this one.
    await this.#database.query("DELETE FROM runs");
    this.#threadIds.splice(0, Infinity, ...state.threads.map(() => randomUUID()));
    this.#workerIds.splice(0, Infinity, ...state.workers.map(() => randomUUID()));
    for (const threadId of this.#threadIds)
      await this.#database.query("INSERT INTO threads (thread_id) VALUES ($1)", [threadId]);
  }

  /** Takes a step in the database. For a claim it says which run was taken. */
  async take(step: Step, before: ModelState): Promise<Said> {
    switch (step.op) {
      case "create":
        return this.#create(step);
      case "due":
        return this.#set(step.run, "available_at = now()");
      case "expire":
        return this.#set(step.run, "lease_expires_at = now() - interval '1 second'");
      case "claim": {
        const workerId = this.#workerIds[step.worker]!;
        const [run] = await this.#queue.claim({ workerId, leaseMs: HOUR_MS, limit: 1 });
        return run && this.#runIds.indexOf(run.run_id);
      }
      case "renew": {
        const ids = [
          ...new Set(before.workers[step.worker]!.held.map(({ run }) => this.#runIds[run]!)),
        ];
        return (await this.#queue.renew(this.#workerIds[step.worker]!, ids, HOUR_MS)).length;
      }
      case "recover": {
        const held = before.workers[step.worker]!.held.map(({ run }) => this.#runIds[run]!);
        return (await this.#queue.recover({ held, everything: false })).length;
      }
      case "write":
        return this.#write(step.held, before);
      case "finish":
        return this.#queue.finish(
          this.#lease(step.worker, step.held),
          encodeResult(toResult(step.as)),
          {
            logged: true,
          },
        );
      case "release":
        return this.#queue.release(this.#lease(step.worker, step.held));
      case "cancel":
        return this.#queue.cancel(this.#runIds[step.run]!, step.action, undefined);
      case "hold":
        return this.#hold(step.thread);
      case "let go":
        return this.#states.release(this.#writers.get(step.thread)!, undefined);
      case "lapse":
        await this.#database.query(
          "UPDATE threads SET writing_until = now() - interval '1 second' WHERE thread_id = $1",
          [this.#threadIds[step.thread]],
        );
        return undefined;
      case "freeze":
      case "thaw":
      case "die":
        return undefined;
    }
  }

  /** What the database has, in the model's words. */
  async read(): Promise<{ runs: object[]; threads: object[] }> {
    const { rows: runs } = await this.#database.query<{
      thread_id: string;
      worker_id: string | null;
      status: string;
    }>(
      `SELECT thread_id, status, attempt, worker_id, coalesce(lease_expires_at < now(), false) AS expired,
         available_at <= now() AS due, cancel_action AS cancel FROM runs ORDER BY position`,
    );
    const { rows: threads } = await this.#database.query(
      `SELECT active_runs AS active, status, resting_status AS resting,
         coalesce(writing_until > now(), false) AS writing
       FROM threads WHERE thread_id = ANY($1::uuid[]) ORDER BY array_position($1::uuid[], thread_id)`,
      [this.#threadIds],
    );
    return {
      threads,
      runs: runs.map(({ thread_id: threadId, worker_id: workerId, ...run }) => ({
        ...run,
        thread: this.#threadIds.indexOf(threadId),
        // Who ended it stays in the row.
        worker: run.status === "running" ? this.#workerIds.indexOf(workerId ?? "") : null,
      })),
    };
  }

  #lease(worker: number, { run, attempt }: Held) {
    return { run_id: this.#runIds[run]!, worker_id: this.#workerIds[worker]!, attempt };
  }

  async #set(run: number, what: string): Promise<undefined> {
    await this.#database.query(`UPDATE runs SET ${what} WHERE run_id = $1`, [this.#runIds[run]]);
  }

  async #create(step: Extract<Step, { op: "create" }>): Promise<Said> {
    const runId = randomUUID();
    const created = await this.#runs.create({
      run_id: runId,
      thread_id: this.#threadIds[step.thread]!,
      assistant_id: randomUUID(),
      graph_id: "graph",
      metadata: {},
      kwargs: { stream_mode: ["values"], config: {}, context: {}, resumable: false } as never,
      thread_config: { configurable: {} },
      settings: {},
      multitask_strategy: step.strategy,
      user_id: undefined,
      temporary: false,
      origin: { trigger: "api", assistant_name: "graph", assistant_version: 1 },
      afterSeconds: step.due ? 0 : 3_600,
      filter: undefined,
      logged: "on_demand",
      claim:
        step.claim === null
          ? undefined
          : { workerId: this.#workerIds[step.claim]!, leaseMs: HOUR_MS },
    });
    if (created.kind === "created") this.#runIds.push(runId);
    return created.kind;
  }

  async #hold(thread: number): Promise<Said> {
    const hold = await this.#states.hold(this.#threadIds[thread]!, HOUR_MS);
    if (typeof hold !== "object") return hold;
    this.#writers.set(thread, hold);
    return "held";
  }

  /** A checkpoint of an attempt, as the engine's saver writes it. */
  async #write({ run, attempt }: Held, before: ModelState): Promise<Said> {
    const threadId = this.#threadIds[before.runs[run]!.thread]!;
    const saver = this.#checkpoints.forRun({
      threadId,
      resolve: "committed",
      guard: { runId: this.#runIds[run]!, attempt } as never,
    });
    try {
      const config = { configurable: { thread_id: threadId, checkpoint_ns: "" } };
      await saver.put(config, emptyCheckpoint(), { source: "loop", step: 0, parents: {} }, {});
      return true;
    } catch (error) {
      if (error instanceof ServerError && error.code === "conflict") return false;
      throw error;
    }
  }
}

function toResult(as: Extract<Step, { op: "finish" }>["as"]): RunResult {
  const failed = as === "error" || as === "timeout";
  return {
    status: as === "asks" ? "success" : as,
    interrupted: as === "asks",
    output: {},
    error: failed ? { error: "Error", message: "no" } : undefined,
    values: {},
    interrupts: {},
  };
}

/** What the model says of the rows. */
export function toRows({ runs, threads }: ModelState): { runs: object[]; threads: object[] } {
  const toRun = ({ steps: _steps, results: _results, gone: _gone, ...run }: ModelRun): object => ({
    ...run,
    worker: run.status === "running" ? run.worker : null,
  });
  const kept = runs.filter(({ gone }) => !gone);
  return { runs: kept.map((run) => toRun(run)), threads: threads.map((one: ModelThread) => one) };
}
