import type { MultitaskStrategy, RunKwargs } from "../protocol/runs.ts";
import type { Metadata } from "../protocol/common.ts";
import type { Filter } from "../protocol/filters.ts";
import type { ThreadTtl } from "../protocol/thread-ttl.ts";
import { toContained } from "./conditions.ts";
import type { Queryable } from "./database.ts";
import { toJson } from "./json.ts";
import { RUN_COLUMNS, type RunOrigin, type RunRecord } from "./run-record.ts";

/** A run as it is asked for, before it has a row. */
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
 * Writes and queues a run, and marks its thread busy, in one statement. `reject` on a busy thread gives
 * `thread_busy`. With `claim`, a run whose thread is free starts out as running, under that lease.
 */
export async function createRun(database: Queryable, run: NewRun): Promise<Created> {
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
}

/**
 * The columns a new run is written to; `$11` is the claiming worker or NULL, `$12` its lease in ms, `$13` which
 * runs are logged.
 */
const INSERT_RUN = `INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, metadata, kwargs, multitask_strategy,
  user_id, origin, available_at, idempotency_key, idempotency_hash, temporary, resumed_from, stream_position,
  status, worker_id, attempt, started_at, attempt_started_at, lease_expires_at, logged)`;

const NEW_RUN = (
  metadata: string,
  origin = "$9::json",
): string => `$1::uuid, $2::uuid, $3::uuid, $4::text, ${metadata}, $6::json,
  $7::text, $8::text, ${origin}, now() + $10::float8 * interval '1 second', $14::text, $15::text`;

const LEASE_OF = (
  claimed: string,
): string => `CASE WHEN ${claimed} THEN 'running' ELSE 'pending' END,
  CASE WHEN ${claimed} THEN $11::uuid END, CASE WHEN ${claimed} THEN 1 ELSE 0 END,
  CASE WHEN ${claimed} THEN now() END, CASE WHEN ${claimed} THEN now() END,
  CASE WHEN ${claimed} THEN now() + $12::float8 * interval '1 millisecond' END,
  $13::text = 'always' OR ($13::text = 'unless_claimed' AND NOT (${claimed}))`;

const CREATE_TEMPORARY = `
  WITH run AS (
    ${INSERT_RUN}
    SELECT ${NEW_RUN("$5::jsonb")}, true, NULL, NULL, ${LEASE_OF("$11::uuid IS NOT NULL")}
    RETURNING ${RUN_COLUMNS}
  )
  SELECT true AS found, true AS empty_thread, run.* FROM run`;

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
