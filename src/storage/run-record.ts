import type { CancelAction, MultitaskStrategy, RunKwargs, RunStatus } from "../protocol/runs.ts";
import type { Metadata } from "../protocol/common.ts";

/** What the server noted when the run was asked for; it goes into the trace. */
export interface RunOrigin {
  /** `api`, `cron`, ... */
  trigger: string;
  assistant_name: string;
  assistant_version: number;
  /** The session a client named for a run without a thread. */
  session_id?: string | undefined;
  traceparent?: string | undefined;
  /**
   * For a run without a thread that somebody authenticated asked for: what the request wrote into its metadata,
   * without the assistant's. Authorization filters are asked of this, or the assistant's owner would own the run.
   */
  scope?: Record<string, unknown> | undefined;
  /** Where the run's trace is: decided once, so that its links and scores stay right. Absent for an untraced run. */
  trace?:
    | { trace_id: string; parent_span_id?: string | undefined; project?: string | undefined }
    | undefined;
  /** How the client reached the server. */
  base_url?: string | undefined;
  /** Request headers a graph may read from its `configurable`. */
  headers?: Record<string, string> | undefined;
  /** What earlier runs of the thread asked for in their `configurable`. */
  settings?: Record<string, unknown> | undefined;
  /** Which keys of `configurable` are the run's own, where its assistant has some too. */
  given?: string[] | undefined;
  /** The authenticated user as the handler returned it; graphs read it, the API never shows it. */
  user?: Record<string, unknown> | undefined;
  permissions?: string[] | undefined;
}

/** Why a run failed. The ids are those of a strict resume that was refused. */
export interface RunError {
  error: string;
  message: string;
  reason?: string;
  interrupt_ids?: string[];
  pending_ids?: string[];
}

/** An attempt that did not end its run: its worker was lost, or handed the run back. */
export interface LeftAttempt {
  attempt: number;
  started_at: string | null;
  ended_at: string;
  lost: boolean;
}

/** A row of the runs table. */
export interface RunRecord {
  run_id: string;
  thread_id: string;
  assistant_id: string;
  graph_id: string;
  status: RunStatus;
  metadata: Metadata;
  kwargs: RunKwargs;
  multitask_strategy: MultitaskStrategy;
  user_id: string | null;
  temporary: boolean;
  origin: RunOrigin;
  resumed_from: string | null;
  /** Of the request that made the run, where it came with an `Idempotency-Key`. */
  idempotency_hash: string | null;
  /**
   * The ids of the questions it has told its readers while it was running; empty for a stop that asks nothing, `null`
   * before it stops anywhere.
   */
  asked: string[] | null;
  /** The questions the run went past without an answer. */
  dropped_interrupts: unknown[] | null;
  attempt: number;
  /** The attempts that did not end it, and how they were left. Times are ISO texts, `null` where nobody noted them. */
  left_attempts: LeftAttempt[];
  /** How often a worker of the run went silent. */
  losses: number;
  /** Its place among the runs in its thread's stream; `null` until it starts, and for a run without a thread. */
  stream_position: number | null;
  worker_id: string | null;
  /** Whether its events are wanted in the database. */
  logged: boolean;
  cancel_action: CancelAction | null;
  cancel_reason: string | null;
  interrupted: boolean;
  output: unknown;
  error: RunError | null;
  created_at: Date;
  updated_at: Date;
  started_at: Date | null;
  ended_at: Date | null;
}

/** The columns of a `RunRecord`, for statements that return one. */
export const RUN_COLUMNS = `run_id, thread_id, assistant_id, graph_id, status, metadata, kwargs, multitask_strategy, user_id,
  temporary, origin, resumed_from, asked, left_attempts, dropped_interrupts, idempotency_hash, attempt, losses, stream_position, worker_id,
  logged, cancel_action, cancel_reason, interrupted, output, error,
  created_at, updated_at, started_at, ended_at`;
