import type { Checkpoints, RunCheckpointSaver } from "../storage/checkpoints.ts";
import type { RunRecord } from "../storage/run-record.ts";
import type { RunRepository } from "../storage/runs.ts";
import type { EventLog } from "./event-log.ts";
import { toRunMetadata } from "./run-config.ts";

/** The checkpoints of one run. */
export interface RunCheckpoints {
  saver: RunCheckpointSaver;
  /** Removes what this run wrote. */
  rollback(): Promise<void>;
}

/** A run that is about to be executed. */
export interface RunStart {
  run: RunRecord;
  /** Its thread is known to have no checkpoints. */
  emptyThread: boolean;
}

export interface RunCheckpointsOptions {
  checkpoints: Checkpoints;
  runs: RunRepository;
  events: EventLog;
}

/** What keeps a run's checkpoints; nothing for a run without a thread. */
export function createRunCheckpoints(
  options: RunCheckpointsOptions,
): (start: RunStart) => RunCheckpoints | undefined {
  return ({ run, emptyThread }) => {
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
    return { saver, rollback: () => rollback(run, options) };
  };
}

async function rollback(
  run: RunRecord,
  { checkpoints, runs }: RunCheckpointsOptions,
): Promise<void> {
  const before = await runs.checkpointBefore(run);
  await checkpoints.deleteAfter(run.thread_id, before, {
    runId: run.run_id,
    attempt: run.attempt,
  });
}
