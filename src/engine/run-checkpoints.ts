import type { BaseStore } from "@langchain/langgraph-checkpoint";
import type { GraphRegistry } from "../graphs/registry.ts";
import type { Checkpoints, RunCheckpointSaver } from "../storage/checkpoints.ts";
import type { RunRecord, RunRepository } from "../storage/runs.ts";
import type { EventLog } from "./event-log.ts";
import { toRunMetadata } from "./run-config.ts";
import { pendingInterrupts } from "./thread-state.ts";

/** What a run that was rolled back leaves on its thread. */
export interface LeftState {
  values: unknown;
  interrupts: Record<string, unknown[]>;
  interrupted: boolean;
}

/** The checkpoints of one run. */
export interface RunCheckpoints {
  saver: RunCheckpointSaver;
  /** Removes what this run wrote, and gives the state that is left. */
  rollback(): Promise<LeftState>;
}

/** A run that is about to be executed. */
export interface RunStart {
  run: RunRecord;
  graphs: GraphRegistry;
  /** Its thread is known to have no checkpoints. */
  emptyThread: boolean;
}

export interface RunCheckpointsOptions {
  checkpoints: Checkpoints;
  store: BaseStore;
  runs: RunRepository;
  events: EventLog;
}

/** What keeps a run's checkpoints; nothing for a run without a thread. */
export function createRunCheckpoints(
  options: RunCheckpointsOptions,
): (start: RunStart) => RunCheckpoints | undefined {
  return ({ run, graphs, emptyThread }) => {
    if (run.temporary) return undefined;
    const saver = options.checkpoints.forRun({
      threadId: run.thread_id,
      assumeEmpty: emptyThread,
      // Each step is on its way before the next one starts; `settled` waits for it before the run ends.
      resolve: run.kwargs.durability === "sync" ? "committed" : "queued",
      metadata: toRunMetadata(run),
      guard: { runId: run.run_id, attempt: run.attempt },
      // The next attempt does not say again what led to a checkpoint.
      before: () => options.events.written(run.run_id),
    });
    return { saver, rollback: () => rollback(run, graphs, options) };
  };
}

async function rollback(
  run: RunRecord,
  graphs: GraphRegistry,
  { checkpoints, store, runs }: RunCheckpointsOptions,
): Promise<LeftState> {
  const before = await runs.checkpointBefore(run);
  await checkpoints.deleteAfter(run.thread_id, before, {
    runId: run.run_id,
    attempt: run.attempt,
  });
  const config = { configurable: { thread_id: run.thread_id } };
  const snapshot = await graphs
    .bind(run.graph_id, {
      config,
      access: "threads.read",
      checkpointer: checkpoints.forRun({ threadId: run.thread_id }),
      store,
    })
    .then((graph) => graph.getState(config))
    // A graph that cannot be built any more must not keep its run from ending.
    .catch(() => undefined);
  if (!snapshot) return { values: {}, interrupts: {}, interrupted: false };
  const interrupts = pendingInterrupts(snapshot);
  return {
    values: snapshot.values ?? {},
    interrupts,
    interrupted: Object.keys(interrupts).length > 0,
  };
}
