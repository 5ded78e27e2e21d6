import type { ObservedRun, Observer, TraceableRun, TracePlace } from "../observability/observer.ts";
import type { NewRun } from "../storage/run-creation.ts";
import type { LeftAttempt, RunRecord } from "../storage/run-record.ts";

/** Where a run that is about to be accepted will be traced; `undefined` where it will not be. */
export function placeTrace(observer: Observer, run: NewRun): TracePlace | undefined {
  if (observer.place === undefined) return { trace_id: run.run_id.replaceAll("-", "") };
  return observer.place({ ...toTraceable(run), user_id: run.user_id });
}

/** A run as the observers see it. */
export function toObservedRun(run: RunRecord, startedAt: Date): ObservedRun {
  const { kwargs, origin } = run;
  const checkpoint = kwargs.config.configurable?.["checkpoint_id"];
  return {
    ...toTraceable(run),
    user_id: run.user_id ?? undefined,
    session_id: run.temporary ? origin.session_id : run.thread_id,
    assistant_name: origin.assistant_name,
    assistant_version: origin.assistant_version,
    attempt: run.attempt,
    left_attempts: run.left_attempts.map(toLeft),
    trigger: origin.trigger,
    tags: kwargs.config.tags ?? [],
    input: kwargs.command ? (kwargs.command.resume ?? kwargs.command) : kwargs.input,
    checkpoint_id: typeof checkpoint === "string" ? checkpoint : undefined,
    resumed_from: run.resumed_from ?? undefined,
    created_at: run.created_at,
    started_at: startedAt,
  };
}

function toLeft(left: LeftAttempt): NonNullable<ObservedRun["left_attempts"]>[number] {
  const { attempt, started_at: startedAt, ended_at: endedAt, lost } = left;
  return {
    attempt,
    started_at: new Date(startedAt ?? endedAt),
    ended_at: new Date(endedAt),
    lost,
  };
}

/** A run that ended in the queue, where no worker tells of it. */
export function toWaitingRun(run: RunRecord, endedAt: Date): ObservedRun {
  return { ...toObservedRun(run, endedAt), waiting: true };
}

function toTraceable(run: NewRun | RunRecord): Omit<TraceableRun, "user_id"> {
  return {
    run_id: run.run_id,
    thread_id: run.thread_id,
    graph_id: run.graph_id,
    assistant_id: run.assistant_id,
    metadata: toClientMetadata(run),
    headers: run.origin.headers,
    traceparent: run.origin.traceparent,
    place: run.origin.trace,
  };
}

/** The metadata a client gave; without the ids the server put beside it, which the trace has anyway. */
function toClientMetadata(run: NewRun | RunRecord): Record<string, unknown> {
  const { created_by: creator, ...metadata } = { ...run.kwargs.config.metadata, ...run.metadata };
  if (metadata["graph_id"] === run.graph_id) delete metadata["graph_id"];
  if (metadata["assistant_id"] === run.assistant_id) delete metadata["assistant_id"];
  return creator === undefined || creator === "system"
    ? metadata
    : { ...metadata, created_by: creator };
}
