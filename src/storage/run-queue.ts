import type { CancelAction, RunStatus } from "../protocol/runs.ts";
import type { Database, Queryable, QueryResult } from "./database.ts";
import { CLAIM, NEXT_PLACE } from "./run-claim.ts";
import { unstorable, type EncodedResult } from "./run-result.ts";
import { RUN_COLUMNS, type RunRecord } from "./run-record.ts";

/** The lease under which a worker executes a run; every write of a result proves it. */
export interface Lease {
  run_id: string;
  worker_id: string;
  attempt: number;
}

/** The most runs that may run at the same time, in all processes together; `undefined` is no limit. */
export interface RunLimits {
  perUser: number | undefined;
  perAssistant: number | undefined;
}

/** The queue and the leases of runs: who may execute what, and write what came of it. */
export interface RunQueue {
  /** How many runs wait for a worker, and for how many seconds the first of them does; 0 if none does. */
  depth(): Promise<{ waiting: number; oldest_seconds: number }>;
  /** How many runs wait for a worker, counted up to `atMost`. */
  waiting(atMost: number): Promise<number>;
  /**
   * Takes up to `limit` runs that may start now, one per thread, in turn among users. `limits` are the most runs
   * of a user and of an assistant that may run at the same time, in all processes together.
   */
  claim(claim: {
    workerId: string;
    leaseMs: number;
    limit: number;
    limits?: RunLimits;
  }): Promise<RunRecord[]>;
  /** Prolongs leases; gives those that are still held, with a stop that was asked for meanwhile. */
  renew(
    workerId: string,
    runIds: readonly string[],
    leaseMs: number,
  ): Promise<{ run_id: string; cancel_action: CancelAction | null; logged: boolean }[]>;
  /**
   * Puts runs whose worker went silent back into the queue, but for those in the hands of the one who asks
   * (`held`). `everything` takes all running ones, whatever their lease.
   */
  recover(options: {
    held: readonly string[];
    everything: boolean;
  }): Promise<{ run_id: string; attempt: number }[]>;
  /** Notes the questions that a run is about to tell its readers. */
  ask(lease: Lease, ids: readonly string[]): Promise<void>;
  /** Gives a run back unfinished, so that another worker takes it; false if the lease is lost. */
  release(lease: Lease): Promise<boolean>;
  /**
   * Ends a run, settles its thread, and writes the webhook to `webhook`, if there is one, in one statement:
   * `followed` if other runs wait for the thread, `lost` if the lease is not held any more, `unlogged` if its
   * events are wanted in the database and, as `logged` says, are not there: nothing was written then. Rejects
   * with `invalid_request` if the result has no form the database can store, however often it is tried. With
   * `remove` nothing is left of the run itself.
   */
  finish(
    lease: Lease,
    result: EncodedResult,
    options: { logged: boolean; webhook?: string | undefined; remove?: boolean },
  ): Promise<"finished" | "followed" | "lost" | "unlogged">;
  /**
   * Stops a run: a pending one ends at once, and its webhook is written with it; a running one is marked for
   * its worker. A pending one that is rolled back is gone. Gives what was done, or `undefined` if the run had ended (or does not exist).
   */
  cancel(
    runId: string,
    action: CancelAction,
    reason: string | undefined,
  ): Promise<"ended" | "asked" | undefined>;
}

/** Another statement took the same place in a thread's stream, or waited for this one while this one waited for it. */
const MET = new Set(["23505", "40P01"]);
const MEETINGS = 5;

async function again<T>(statement: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await statement();
    } catch (error) {
      if (!MET.has(String((error as { code?: unknown }).code)) || tries === MEETINGS) throw error;
    }
  }
}

/** Any number will do; it only has to be this server's own among the advisory locks of a database. */
const CLAIM_LOCK = 4_719_205_114;

function randomHash(): number {
  return Math.floor(Math.random() * 2 ** 32) - 2 ** 31;
}

async function isHeld(database: Queryable, lease: Lease): Promise<boolean> {
  const { rows } = await database.query(
    "SELECT 1 FROM runs WHERE run_id = $1 AND worker_id = $2 AND attempt = $3 AND status = 'running'",
    [lease.run_id, lease.worker_id, lease.attempt],
  );
  return rows.length > 0;
}

export function createRunQueue(database: Pick<Database, "query" | "transaction">): RunQueue {
  return {
    async depth() {
      const { rows } = await database.query<{ waiting: number; oldest_seconds: number }>(
        `SELECT count(*)::int AS waiting,
           coalesce(extract(epoch FROM now() - min(available_at)), 0)::float8 AS oldest_seconds
         FROM runs WHERE status = 'pending' AND available_at <= now()`,
      );
      return rows[0]!;
    },

    async waiting(atMost) {
      const { rows } = await database.query<{ waiting: number }>(
        `SELECT count(*)::int AS waiting FROM (
           SELECT 1 FROM runs WHERE status = 'pending' AND available_at <= now() LIMIT $1) waiting`,
        [atMost],
      );
      return rows[0]?.waiting ?? 0;
    },

    async claim({ workerId, leaseMs, limit, limits }) {
      const { perUser, perAssistant } = limits ?? {};
      const params = [workerId, leaseMs, limit, randomHash(), perUser, perAssistant];
      const { rows } = await again(() => {
        if (perUser === undefined && perAssistant === undefined) {
          return database.query<RunRecord>(CLAIM, params);
        }
        // Two claims at the same time would each count without the other's runs.
        return database.transaction(async (tx) => {
          await tx.query("SELECT pg_advisory_xact_lock($1)", [CLAIM_LOCK]);
          return tx.query<RunRecord>(CLAIM, params);
        });
      });
      return rows;
    },

    async renew(workerId, runIds, leaseMs) {
      const { rows } = await database.query<{
        run_id: string;
        cancel_action: CancelAction | null;
        logged: boolean;
      }>(RENEW, [workerId, runIds, leaseMs]);
      return rows;
    },

    async recover({ held, everything }) {
      const { rows } = await database.query<{ run_id: string; attempt: number }>(
        `UPDATE runs SET status = 'pending', worker_id = NULL, lease_expires_at = NULL, updated_at = now(),
           losses = losses + 1, left_attempts = ${WITH_LEFT("true")}
         WHERE run_id IN (
           SELECT run_id FROM runs
           WHERE status = 'running' AND NOT (run_id = ANY($2::uuid[])) AND ($1 OR lease_expires_at < now())
           FOR UPDATE SKIP LOCKED)
         RETURNING run_id, attempt`,
        [everything, held],
      );
      return rows;
    },

    async ask(lease, ids) {
      await database.query(
        `UPDATE runs SET asked = coalesce(asked, '{}') || $4::text[]
         WHERE run_id = $1 AND worker_id = $2 AND attempt = $3 AND status = 'running'`,
        [lease.run_id, lease.worker_id, lease.attempt, ids],
      );
    },

    async release(lease) {
      const { rowCount } = await database.query(
        `UPDATE runs SET status = 'pending', worker_id = NULL, lease_expires_at = NULL, updated_at = now(),
           left_attempts = ${WITH_LEFT("false")}
         WHERE run_id = $1 AND worker_id = $2 AND attempt = $3 AND status = 'running'`,
        [lease.run_id, lease.worker_id, lease.attempt],
      );
      return rowCount > 0;
    },

    async finish(lease, result, { logged, webhook, remove = false }) {
      const params = [
        lease.run_id,
        lease.worker_id,
        lease.attempt,
        result.plain.status,
        result.plain.interrupted,
        result.output,
        result.error,
        result.values,
        result.interrupts,
        result.resting,
        logged,
      ];
      const finishIn = (queryable: Queryable): Promise<QueryResult<{ followers: number }>> =>
        webhook === undefined
          ? queryable.query(FINISH, params)
          : queryable.query(FINISH_WITH_WEBHOOK, [...params, webhook]);
      const finishing = remove
        ? database.transaction(async (tx) => {
            const finished = await finishIn(tx);
            if (finished.rows[0]) await tx.query(REMOVE, [lease.run_id]);
            return finished;
          })
        : finishIn(database);
      const { rows } = await finishing.catch((cause: unknown) => {
        // The data itself is refused (22), or is too large (54).
        const { code } = cause as { code?: unknown };
        throw typeof code === "string" && /^(22|54)/.test(code) ? unstorable(cause) : cause;
      });
      if (!rows[0]) return (await isHeld(database, lease)) ? "unlogged" : "lost";
      return rows[0].followers > 0 ? "followed" : "finished";
    },

    async cancel(runId, action, reason) {
      const params = [runId, action, reason ?? null];
      const { rows } = await again(() => {
        if (action !== "rollback") return database.query<{ status: RunStatus }>(CANCEL, params);
        return database.transaction(async (tx) => {
          const stopped = await tx.query<{ status: RunStatus }>(CANCEL, params);
          if (stopped.rows[0] && stopped.rows[0].status !== "running")
            await tx.query(REMOVE, [runId]);
          return stopped;
        });
      });
      if (!rows[0]) return undefined;
      return rows[0].status === "running" ? "asked" : "ended";
    },
  };
}

const WITH_LEFT = (lost: string): string =>
  `left_attempts || jsonb_build_object('attempt', attempt, 'started_at', attempt_started_at, 'ended_at', now(), 'lost', ${lost})`;

const REMOVE = "DELETE FROM runs WHERE run_id = $1";

// In the order of the ids, as every statement that locks runs of several threads: no two wait for each other.
const RENEW = `
  UPDATE runs SET lease_expires_at = now() + $3::float8 * interval '1 millisecond'
  WHERE run_id IN (
    SELECT run_id FROM runs
    WHERE run_id = ANY($2::uuid[]) AND worker_id = $1 AND status = 'running'
    ORDER BY run_id FOR NO KEY UPDATE)
  RETURNING run_id, cancel_action, logged`;

// The questions that waited when the run began and do not any more, though it was no answer to them.
const DROPPED = `
  SELECT jsonb_agg(question.value)
  FROM threads t, jsonb_each(t.interrupts) task, jsonb_array_elements(task.value) question
  WHERE t.thread_id = runs.thread_id AND t.interrupts <> '{}' AND runs.kwargs #>> '{command,resume}' IS NULL
    AND NOT EXISTS (
      SELECT FROM jsonb_each(coalesce($9::text::jsonb, t.interrupts)) left_task, jsonb_array_elements(left_task.value) still
      WHERE still.value ->> 'id' = question.value ->> 'id')`;

/** `alias` holds all columns of ended runs; each becomes a webhook to `url`. */
const WRITE_WEBHOOK = (alias: string, url: string): string =>
  `INSERT INTO webhook_deliveries (run_id, thread_id, url, run)
    SELECT ${alias}.run_id, ${alias}.thread_id, ${url}, row_to_json(${alias}) FROM ${alias}
    WHERE ${url} IS NOT NULL`;

/** The metadata of thread `t` without `run`: its graph is that of the last other run that began, or still will. */
const METADATA_WITHOUT = (run: string): string => `t.metadata || coalesce(
    (SELECT jsonb_build_object('graph_id', other.graph_id, 'assistant_id', other.assistant_id)
     FROM runs other WHERE other.thread_id = t.thread_id AND other.run_id <> ${run}.run_id
       AND (other.started_at IS NOT NULL OR other.status = 'pending')
     ORDER BY other.position DESC LIMIT 1), '{}')`;

const finish = (columns: string, then = ""): string => `
  WITH done AS (
    UPDATE runs SET status = $4, interrupted = $5, output = $6::text::json, error = $7::text::json,
      lease_expires_at = NULL, ended_at = now(), updated_at = now(), dropped_interrupts = (${DROPPED})
    WHERE run_id = $1 AND worker_id = $2 AND attempt = $3 AND status = 'running' AND (NOT logged OR $11::boolean)
    RETURNING ${columns}
  ), thread AS (
    UPDATE threads t SET active_runs = t.active_runs - 1, updated_at = now(), state_updated_at = now(),
      values = coalesce($8::text::jsonb, t.values),
      interrupts = coalesce($9::text::jsonb, t.interrupts),
      error = CASE WHEN $10::text IS NULL THEN t.error WHEN $10 = 'error' THEN $7::text::jsonb END,
      metadata = CASE WHEN $10 IS NULL THEN ${METADATA_WITHOUT("done")} ELSE t.metadata END,
      resting_status = coalesce($10, t.resting_status),
      status = CASE WHEN t.active_runs > 1 THEN 'busy' ELSE coalesce($10, t.resting_status) END
    FROM done WHERE t.thread_id = done.thread_id AND NOT done.temporary
    RETURNING t.active_runs
  )${then}
  SELECT coalesce((SELECT active_runs FROM thread), 0) AS followers FROM done`;

const FINISH = finish("run_id, thread_id, temporary");
const FINISH_WITH_WEBHOOK = finish(
  RUN_COLUMNS,
  `, webhook AS (${WRITE_WEBHOOK("done", "$12::text")})`,
);

const CANCEL = `
  WITH run AS (
    UPDATE runs SET
      status = CASE WHEN status = 'pending' THEN 'interrupted' ELSE status END,
      ended_at = CASE WHEN status = 'pending' THEN now() END,
      cancel_action = CASE WHEN status = 'running' THEN $2::text ELSE cancel_action END,
      cancel_reason = coalesce($3::text, cancel_reason), updated_at = now(),
      stream_position = CASE WHEN temporary THEN NULL ELSE ${NEXT_PLACE} END
    WHERE run_id = $1 AND status IN ('pending', 'running')
    RETURNING ${RUN_COLUMNS}
  ), thread AS (
    UPDATE threads t SET active_runs = t.active_runs - 1, updated_at = now(), state_updated_at = now(),
      last_stream_position = greatest(t.last_stream_position, run.stream_position),
      metadata = ${METADATA_WITHOUT("run")},
      status = CASE WHEN t.active_runs > 1 THEN 'busy' ELSE t.resting_status END
    FROM run WHERE t.thread_id = run.thread_id AND run.status = 'interrupted' AND NOT run.temporary
  ), ended AS (SELECT * FROM run WHERE status = 'interrupted'
  ), webhook AS (${WRITE_WEBHOOK("ended", "ended.kwargs ->> 'webhook'")})
  SELECT status FROM run`;
