import type { RunListQuery } from "../protocol/runs.ts";
import type { Filter } from "../protocol/filters.ts";
import { Conditions, toContained } from "./conditions.ts";
import type { Queryable } from "./database.ts";
import { toJson } from "./json.ts";
import { createRun, type Created, type NewRun } from "./run-creation.ts";
import { RUN_COLUMNS, type RunRecord } from "./run-record.ts";

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
    create: (run) => createRun(database, run),

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

const FIND_BY_KEY = `
  WITH given_up AS (
    UPDATE runs SET idempotency_key = NULL
    WHERE coalesce(user_id, '') = $1 AND idempotency_key = $2
      AND created_at <= now() - ${KEY_AGE}
  )
  SELECT ${RUN_COLUMNS} FROM runs
  WHERE coalesce(user_id, '') = $1 AND idempotency_key = $2
    AND created_at > now() - ${KEY_AGE}`;
