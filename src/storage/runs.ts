import type {
  CancelAction,
  MultitaskStrategy,
  RunKwargs,
  RunListQuery,
  RunStatus,
} from "../protocol/runs.ts";
import type { Metadata } from "../protocol/common.ts";
import type { ThreadTtl } from "../protocol/thread-ttl.ts";
import type { Filter } from "../protocol/filters.ts";
import { Conditions, toContained } from "./conditions.ts";
import type { Queryable } from "./database.ts";
import { toJson } from "./json.ts";

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
  /** The questions the run went past without an answer. */
  dropped_interrupts: unknown[] | null;
  attempt: number;
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

export interface NewRun {
  run_id: string;
  thread_id: string;
  assistant_id: string;
  graph_id: string;
  metadata: Metadata;
  kwargs: RunKwargs;
  /** The config without what the server adds; a graph factory gets it when the thread's state is read. */
  thread_config: Record<string, unknown>;
  /** What of `configurable` the run itself asked for: it holds for later runs of the thread. */
  settings: Record<string, unknown>;
  multitask_strategy: MultitaskStrategy;
  user_id: string | undefined;
  temporary: boolean;
  origin: RunOrigin;
  afterSeconds: number;
  /** Under which a request that is sent again finds this run. */
  idempotency?: { key: string; hash: string } | undefined;
  /** How long its thread is kept from now on; `undefined` leaves that as it is. */
  ttl?: ThreadTtl | undefined;
  /** What the thread must hold, or the run is not made: `thread_missing`. */
  filter: Filter | undefined;
  /** Take the run at once, if its thread is free. */
  claim: { workerId: string; leaseMs: number } | undefined;
  /** Which runs write their events to the database: this one, or this one if it is not taken at once. */
  logged: "always" | "unless_claimed" | "on_demand";
}

/** What became of a request for a run. */
export type Created =
  /** `emptyThread`: nothing has been done on the thread before, so it has no checkpoints. */
  | { kind: "created"; run: RunRecord; emptyThread: boolean }
  | { kind: "thread_missing" }
  | { kind: "thread_busy" }
  /** Another run has its idempotency key. */
  | { kind: "key_taken" };

/** The columns of a `RunRecord`, for statements that return one. */
export const RUN_COLUMNS = `run_id, thread_id, assistant_id, graph_id, status, metadata, kwargs, multitask_strategy, user_id,
  temporary, origin, resumed_from, dropped_interrupts, idempotency_hash, attempt, losses, stream_position, worker_id,
  logged, cancel_action, cancel_reason, interrupted, output, error,
  created_at, updated_at, started_at, ended_at`;

type CreatedRow = RunRecord & { found: boolean; empty_thread: boolean };

function isKeyTaken(error: unknown): boolean {
  const { code, constraint } = error as { code?: unknown; constraint?: unknown };
  return code === "23505" && constraint === "runs_idempotency";
}

const qualified = (alias: string): string =>
  RUN_COLUMNS.split(",")
    .map((column) => `${alias}.${column.trim()}`)
    .join(", ");

/**
 * Runs as a resource. What waits, and who executes it, is in `run-queue.ts`: the same table. A `filter` is
 * asked of a run's thread, and of the run itself where it has none; a run that does not pass is as good as
 * absent.
 */
export interface RunRepository {
  /**
   * Writes and queues a run, and marks its thread busy, in one statement. `reject` on a busy thread gives
   * `thread_busy`. With `claim`, a run whose thread is free starts out as running, under that lease.
   */
  create(run: NewRun): Promise<Created>;
  get(runId: string, filter: Filter | undefined): Promise<RunRecord | undefined>;
  /** The run a user made with this idempotency key within 24 hours; an older run gives its key up. */
  findByKey(userId: string | undefined, key: string): Promise<RunRecord | undefined>;
  list(threadId: string, query: RunListQuery): Promise<RunRecord[]>;
  /** The active runs among these, of one thread or of all, newest first. */
  findActive(which: {
    threadId?: string | undefined;
    runIds?: readonly string[] | undefined;
    status?: "pending" | "running" | undefined;
    /** Of these, the ones whose metadata holds all of this. */
    metadata?: Record<string, unknown> | undefined;
    filter: Filter | undefined;
  }): Promise<RunRecord[]>;
  /** The run that answers this one's question or goes on from it; `undefined` if there is none. */
  resumedBy(run: { run_id: string; thread_id: string }): Promise<RunRecord | undefined>;
  /** The pending and running runs of a thread, oldest first. */
  active(threadId: string): Promise<RunRecord[]>;
  /** The newest checkpoint of the run's thread that is not the run's own; `undefined` if there is none. */
  checkpointBefore(run: { run_id: string; thread_id: string }): Promise<string | undefined>;
  /** The first run of a thread's stream after a place in it; `undefined` if none has started since. */
  nextInStream(
    threadId: string,
    position: number,
    filter: Filter | undefined,
  ): Promise<RunRecord | undefined>;
  /** The last run of a thread's stream; `undefined` if none has started. */
  lastInStream(threadId: string): Promise<RunRecord | undefined>;
  /** Deletes a run that has ended; false if it is active or absent. */
  delete(runId: string): Promise<boolean>;
  /**
   * Deletes up to `limit` finished runs without a thread that ended before now minus `olderThanMs`, but for those
   * whose idempotency key is still good.
   */
  sweepTemporary(olderThanMs: number, limit: number): Promise<number>;
}

function passing(filter: Filter | undefined): Conditions {
  const conditions = new Conditions();
  if (!filter) return conditions;
  return conditions.add((p) => {
    const contained = `${p(toContained(filter))}::jsonb`;
    return `(EXISTS (SELECT 1 FROM threads t WHERE t.thread_id = runs.thread_id AND t.metadata @> ${contained})
      OR (runs.temporary AND coalesce((runs.origin -> 'scope')::jsonb, runs.metadata) @> ${contained}))`;
  });
}

/** How long a request that is sent again finds the run it has made. */
const KEY_AGE = "interval '24 hours'";

export function createRunRepository(database: Queryable): RunRepository {
  return {
    async create(run) {
      const params = [
        run.run_id,
        run.thread_id,
        run.assistant_id,
        run.graph_id,
        toJson(run.metadata),
        toJson(run.kwargs),
        run.multitask_strategy,
        run.user_id ?? null,
        toJson(run.origin),
        run.afterSeconds,
        run.afterSeconds > 0 ? null : (run.claim?.workerId ?? null),
        run.claim?.leaseMs ?? 0,
        run.logged,
        run.idempotency?.key ?? null,
        run.idempotency?.hash ?? null,
      ];
      const creating = run.temporary
        ? database.query<CreatedRow>(CREATE_TEMPORARY, params)
        : database.query<CreatedRow>(CREATE_ON_THREAD, [
            ...params,
            toJson(run.thread_config),
            toContained(run.filter),
            run.ttl?.ttl ?? null,
            run.ttl?.strategy ?? null,
            toJson(run.settings),
          ]);
      const result = await creating.catch((error: unknown) => {
        if (isKeyTaken(error)) return undefined;
        throw error;
      });
      if (!result) return { kind: "key_taken" };
      const [row] = result.rows;
      if (!row?.found) return { kind: "thread_missing" };
      if (row.run_id === null) return { kind: "thread_busy" };
      const { found: _found, empty_thread: emptyThread, ...created } = row;
      return { kind: "created", run: created, emptyThread };
    },

    async get(runId, filter) {
      const conditions = passing(filter).add((p) => `run_id = ${p(runId)}`);
      const { rows } = await database.query<RunRecord>(
        `SELECT ${RUN_COLUMNS} FROM runs ${conditions.sql}`,
        conditions.params,
      );
      return rows[0];
    },

    async findByKey(userId, key) {
      const { rows } = await database.query<RunRecord>(FIND_BY_KEY, [userId ?? "", key]);
      return rows[0];
    },

    async list(threadId, query) {
      const { rows } = await database.query<RunRecord>(
        `SELECT ${RUN_COLUMNS} FROM runs WHERE thread_id = $1 AND ($2::text IS NULL OR status = $2)
         ORDER BY position DESC LIMIT ${query.limit} OFFSET ${query.offset}`,
        [threadId, query.status ?? null],
      );
      return rows;
    },

    async findActive(which) {
      const conditions = passing(which.filter).add(() => "status IN ('pending', 'running')");
      if (which.threadId) conditions.add((p) => `thread_id = ${p(which.threadId)}`);
      if (which.runIds) conditions.add((p) => `run_id = ANY(${p(which.runIds)}::uuid[])`);
      if (which.status) conditions.add((p) => `status = ${p(which.status)}`);
      if (which.metadata) conditions.add((p) => `metadata @> ${p(toJson(which.metadata))}::jsonb`);
      const { rows } = await database.query<RunRecord>(
        `SELECT ${RUN_COLUMNS} FROM runs ${conditions.sql} ORDER BY position DESC`,
        conditions.params,
      );
      return rows;
    },

    async resumedBy(run) {
      const { rows } = await database.query<RunRecord>(
        `SELECT ${RUN_COLUMNS} FROM runs WHERE thread_id = $1 AND resumed_from = $2 ORDER BY position LIMIT 1`,
        [run.thread_id, run.run_id],
      );
      return rows[0];
    },

    async active(threadId) {
      const { rows } = await database.query<RunRecord>(
        `SELECT ${RUN_COLUMNS} FROM runs WHERE thread_id = $1 AND status IN ('pending', 'running') ORDER BY position`,
        [threadId],
      );
      return rows;
    },

    async checkpointBefore(run) {
      const { rows } = await database.query<{ checkpoint_id: string | null }>(
        `SELECT max(checkpoint_id) AS checkpoint_id FROM checkpoints
         WHERE thread_id = $1::text AND checkpoint_ns = '' AND metadata ->> 'run_id' IS DISTINCT FROM $2::text`,
        [run.thread_id, run.run_id],
      );
      return rows[0]?.checkpoint_id ?? undefined;
    },

    async nextInStream(threadId, position, filter) {
      const conditions = passing(filter)
        .add((p) => `thread_id = ${p(threadId)}`)
        .add((p) => `stream_position > ${p(position)}`);
      const { rows } = await database.query<RunRecord>(
        `SELECT ${RUN_COLUMNS} FROM runs ${conditions.sql} ORDER BY stream_position LIMIT 1`,
        conditions.params,
      );
      return rows[0];
    },

    async lastInStream(threadId) {
      const { rows } = await database.query<RunRecord>(
        `SELECT ${RUN_COLUMNS} FROM runs WHERE thread_id = $1 AND stream_position IS NOT NULL
         ORDER BY stream_position DESC LIMIT 1`,
        [threadId],
      );
      return rows[0];
    },

    async delete(runId) {
      const { rowCount } = await database.query(
        "DELETE FROM runs WHERE run_id = $1 AND status NOT IN ('pending', 'running')",
        [runId],
      );
      return rowCount > 0;
    },

    async sweepTemporary(olderThanMs, limit) {
      const { rowCount } = await database.query(
        `DELETE FROM runs WHERE run_id IN (
           SELECT run_id FROM runs
           WHERE temporary AND ended_at < now() - $1::float8 * interval '1 millisecond'
             AND (idempotency_key IS NULL OR created_at <= now() - ${KEY_AGE})
           LIMIT $2 FOR UPDATE SKIP LOCKED)`,
        [olderThanMs, limit],
      );
      return rowCount;
    },
  };
}

/**
 * The columns a new run is written to; `$11` is the claiming worker or NULL, `$12` its lease in ms, `$13` which
 * runs are logged.
 */
const INSERT_RUN = `INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, metadata, kwargs, multitask_strategy,
  user_id, origin, available_at, idempotency_key, idempotency_hash, temporary, resumed_from, stream_position,
  status, worker_id, attempt, started_at, lease_expires_at, logged)`;

const NEW_RUN = (
  metadata: string,
  origin = "$9::json",
): string => `$1::uuid, $2::uuid, $3::uuid, $4::text, ${metadata}, $6::json,
  $7::text, $8::text, ${origin}, now() + $10::float8 * interval '1 second', $14::text, $15::text`;

const LEASE_OF = (
  claimed: string,
): string => `CASE WHEN ${claimed} THEN 'running' ELSE 'pending' END,
  CASE WHEN ${claimed} THEN $11::uuid END, CASE WHEN ${claimed} THEN 1 ELSE 0 END,
  CASE WHEN ${claimed} THEN now() END, CASE WHEN ${claimed} THEN now() + $12::float8 * interval '1 millisecond' END,
  $13::text = 'always' OR ($13::text = 'unless_claimed' AND NOT (${claimed}))`;

const CREATE_TEMPORARY = `
  WITH run AS (
    ${INSERT_RUN}
    SELECT ${NEW_RUN("$5::jsonb")}, true, NULL, NULL, ${LEASE_OF("$11::uuid IS NOT NULL")}
    RETURNING ${RUN_COLUMNS}
  )
  SELECT true AS found, true AS empty_thread, run.* FROM run`;

const FIND_BY_KEY = `
  WITH given_up AS (
    UPDATE runs SET idempotency_key = NULL
    WHERE coalesce(user_id, '') = $1 AND idempotency_key = $2
      AND created_at <= now() - ${KEY_AGE}
  )
  SELECT ${RUN_COLUMNS} FROM runs
  WHERE coalesce(user_id, '') = $1 AND idempotency_key = $2
    AND created_at > now() - ${KEY_AGE}`;

// The thread's row is locked first, so whether it is busy is read from the row itself, after any transaction
// that was ahead of this one; the runs table would show the statement's older snapshot.
const STARTS_AT_ONCE = "$11::uuid IS NOT NULL AND thread.free";
// An answer, or no input at all. Whatever else a run brings, the question of the run before is left behind.
const GOES_ON = `($6::json #>> '{command,resume}' IS NOT NULL
  OR ($6::json -> 'command' IS NULL AND $6::json #>> '{input}' IS NULL))`;
const WITH_SETTINGS = `CASE WHEN thread.settings = '{}' THEN $9::json
  ELSE ($9::jsonb || jsonb_build_object('settings', thread.settings))::json END`;
const CREATE_ON_THREAD = `
  WITH before AS (
    SELECT thread_id, active_runs, settings, status = 'interrupted' OR (active_runs = 0 AND interrupts <> '{}') AS asks,
      active_runs = 0 AND coalesce(writing_until < now(), true) AS free,
      active_runs = 0 AND writer IS NULL AND state_updated_at = created_at AS empty
    FROM threads WHERE thread_id = $2::uuid AND metadata @> $17::jsonb FOR UPDATE
  ), thread AS (
    UPDATE threads t
    SET status = 'busy', active_runs = t.active_runs + 1, updated_at = now(),
        metadata = t.metadata || jsonb_build_object('graph_id', $4::text, 'assistant_id', $3::uuid),
        config = jsonb_set($16::jsonb, '{configurable}', ($16::jsonb -> 'configurable') || t.settings || $20::jsonb),
        settings = t.settings || $20::jsonb,
        ttl_minutes = coalesce($18::float8, t.ttl_minutes), ttl_strategy = coalesce($19::text, t.ttl_strategy),
        last_stream_position = t.last_stream_position
          + CASE WHEN $11::uuid IS NOT NULL AND b.free THEN 1 ELSE 0 END
    FROM before b
    WHERE t.thread_id = b.thread_id AND (b.active_runs = 0 OR $7::text <> 'reject')
    RETURNING b.free, b.asks, b.settings, t.metadata AS thread_metadata,
      t.last_stream_position
  ), run AS (
    ${INSERT_RUN}
    SELECT ${NEW_RUN("thread.thread_metadata || $5::jsonb", WITH_SETTINGS)}, false,
      CASE WHEN thread.asks AND ${GOES_ON} THEN
        (SELECT r.run_id FROM runs r WHERE r.thread_id = $2::uuid AND r.interrupted ORDER BY r.position DESC LIMIT 1)
      END,
      CASE WHEN ${STARTS_AT_ONCE} THEN thread.last_stream_position END,
      ${LEASE_OF(STARTS_AT_ONCE)}
    FROM thread
    RETURNING ${RUN_COLUMNS}
  )
  SELECT true AS found, before.empty AS empty_thread, ${qualified("run")} FROM before LEFT JOIN run ON true`;
