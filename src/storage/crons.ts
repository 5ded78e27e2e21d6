import type { Metadata } from "../protocol/common.ts";
import type { Cron, CronFilter, CronSearch } from "../protocol/crons.ts";
import type { Filter } from "../protocol/filters.ts";
import type { ThreadTtl } from "../protocol/thread-ttl.ts";
import { Conditions, toContained } from "./conditions.ts";
import type { Database, Queryable } from "./database.ts";
import { toJson } from "./json.ts";
import { createRunRepository } from "./runs.ts";
import type { Created, NewRun } from "./run-creation.ts";
import { insertThread } from "./threads.ts";

/** What the server noted when the cron was made, for its runs; the API never shows it. */
export interface CronOrigin {
  /** How the client reached the server. */
  base_url: string;
  /** The authenticated user as the handler returned it. */
  user?: Record<string, unknown> | undefined;
  permissions?: string[] | undefined;
}

/** A row of the crons table, without its claim. */
export interface CronRecord extends Cron {
  origin: CronOrigin;
}

/** A cron to be made. */
export type NewCron = Omit<CronRecord, "created_at" | "updated_at">;

/** What of a cron can change. */
export type CronChange = Pick<
  CronRecord,
  | "schedule"
  | "timezone"
  | "enabled"
  | "end_time"
  | "on_run_completed"
  | "payload"
  | "metadata"
  | "next_run_date"
>;

/** A cron that is due, for the process that took it. */
export interface DueCron {
  cron: CronRecord;
  /** For when it is due, as the database writes it: JavaScript's dates drop the microseconds. */
  due: string;
  /** The database's time. */
  now: Date;
}

/** Crons in the database. With a `filter`, a cron that does not pass it is as good as absent. */
export interface CronRepository {
  /** `undefined` if its assistant is gone, or its thread is, or does not pass `threadFilter`. */
  create(cron: NewCron, threadFilter: Filter | undefined): Promise<CronRecord | undefined>;
  get(cronId: string, filter: Filter | undefined): Promise<CronRecord | undefined>;
  /** Writes what `change` makes of it, given the database's time; `undefined` if there is no such cron. */
  update(
    cronId: string,
    change: (cron: CronRecord, now: Date) => CronChange,
    filter: Filter | undefined,
  ): Promise<CronRecord | undefined>;
  /** False if there is none. */
  delete(cronId: string, filter: Filter | undefined): Promise<boolean>;
  search(
    search: CronSearch,
    filter: Filter | undefined,
  ): Promise<{ crons: (Cron & { now: Date })[]; total: number }>;
  count(search: CronFilter, filter: Filter | undefined): Promise<number>;
  /** The database's time, by which everything about crons is judged. */
  now(): Promise<Date>;
  /**
   * Takes up to `limit` due crons for `forMs`. What is taken is not taken by others meanwhile; it can still be
   * changed and deleted.
   */
  claimDue(limit: number, forMs: number): Promise<DueCron[]>;
  /**
   * Fires a cron: moves it on to `next` and writes its run (and the run's thread with the metadata `newThread`, if there is any), in one
   * transaction, so that each of its times gives one run. `elsewhere` if it is not due for `due` any more:
   * another process has fired it, or it was changed or deleted.
   */
  fire(firing: {
    cron_id: string;
    due: string;
    next: Date | null;
    run: NewRun;
    newThread: Metadata | undefined;
  }): Promise<Created | { kind: "elsewhere" }>;
}

const PUBLIC_COLUMNS = `cron_id, assistant_id, thread_id, schedule, timezone, enabled, end_time, on_run_completed,
  payload, metadata, user_id, next_run_date, created_at, updated_at`;
const COLUMNS = `${PUBLIC_COLUMNS}, origin`;
const FOREIGN_KEY_VIOLATION = "23503";

/** `defaultTtl` is for the threads that crons create. */
export function createCronRepository(
  database: Database,
  { defaultTtl }: { defaultTtl?: ThreadTtl | undefined } = {},
): CronRepository {
  const where = (search: CronFilter, filter: Filter | undefined): Conditions => {
    const conditions = new Conditions().addFilter(filter);
    const { assistant_id, thread_id, enabled, metadata } = search;
    if (assistant_id !== undefined) conditions.add((p) => `assistant_id = ${p(assistant_id)}`);
    if (thread_id !== undefined) conditions.add((p) => `thread_id = ${p(thread_id)}`);
    if (enabled !== undefined) conditions.add((p) => `enabled = ${p(enabled)}`);
    if (metadata) conditions.add((p) => `metadata @> ${p(toJson(metadata))}::jsonb`);
    return conditions;
  };

  return {
    async create(cron, threadFilter) {
      try {
        const { rows } = await database.query<CronRecord>(
          `INSERT INTO crons (cron_id, assistant_id, thread_id, schedule, timezone, enabled, end_time,
             on_run_completed, payload, metadata, user_id, origin, next_run_date)
           SELECT $1::uuid, $2::uuid, $3::uuid, $4, $5, $6, $7, $8, $9::json, $10::jsonb, $11, $12::json, $13
           WHERE $3::uuid IS NULL
             OR EXISTS (SELECT 1 FROM threads WHERE thread_id = $3::uuid AND metadata @> $14::jsonb)
           RETURNING ${COLUMNS}`,
          [
            cron.cron_id,
            cron.assistant_id,
            cron.thread_id,
            cron.schedule,
            cron.timezone,
            cron.enabled,
            cron.end_time,
            cron.on_run_completed,
            toJson(cron.payload),
            toJson(cron.metadata),
            cron.user_id,
            toJson(cron.origin),
            cron.next_run_date,
            toContained(threadFilter),
          ],
        );
        return rows[0];
      } catch (error) {
        if ((error as { code?: unknown }).code === FOREIGN_KEY_VIOLATION) return undefined;
        throw error;
      }
    },

    async get(cronId, filter) {
      const { rows } = await database.query<CronRecord>(
        `SELECT ${COLUMNS} FROM crons WHERE cron_id = $1 AND metadata @> $2::jsonb`,
        [cronId, toContained(filter)],
      );
      return rows[0];
    },

    update: (cronId, change, filter) =>
      database.transaction(async (tx) => {
        const { rows } = await tx.query<CronRecord & { now: Date }>(
          `SELECT ${COLUMNS}, now() AS now FROM crons WHERE cron_id = $1 AND metadata @> $2::jsonb
           FOR UPDATE`,
          [cronId, toContained(filter)],
        );
        const [row] = rows;
        if (!row) return undefined;
        const { now, ...cron } = row;
        return writeChange(tx, cronId, change(cron, now));
      }),

    async delete(cronId, filter) {
      const { rowCount } = await database.query(
        "DELETE FROM crons WHERE cron_id = $1 AND metadata @> $2::jsonb",
        [cronId, toContained(filter)],
      );
      return rowCount > 0;
    },

    async search(search, filter) {
      const conditions = where(search, filter);
      const [total, { rows }] = await Promise.all([
        this.count(search, filter),
        database.query<Cron & { now: Date }>(
          `SELECT ${PUBLIC_COLUMNS}, now() AS now FROM crons ${conditions.sql}
         ORDER BY ${search.sort_by} ${search.sort_order}, cron_id
         LIMIT ${search.limit} OFFSET ${search.offset}`,
          conditions.params,
        ),
      ]);
      return { crons: rows, total };
    },

    async count(search, filter) {
      const conditions = where(search, filter);
      const { rows } = await database.query<{ count: number }>(
        `SELECT count(*)::integer AS count FROM crons ${conditions.sql}`,
        conditions.params,
      );
      return rows[0]?.count ?? 0;
    },

    async now() {
      const { rows } = await database.query<{ now: Date }>("SELECT now() AS now");
      return rows[0]!.now;
    },

    async claimDue(limit, forMs) {
      const { rows } = await database.query<CronRecord & { due: string; now: Date }>(CLAIM_DUE, [
        limit,
        forMs,
      ]);
      return rows.map(({ due, now, ...cron }) => ({ cron, due, now }));
    },

    fire: ({ cron_id, due, next, run, newThread }) =>
      database.transaction(async (tx) => {
        // Before the cron's own row, as whoever deletes the thread does: both together would wait for ever.
        if (!newThread && !run.temporary) {
          await tx.query("SELECT 1 FROM threads WHERE thread_id = $1 FOR UPDATE", [run.thread_id]);
        }
        const { rowCount } = await tx.query(
          `UPDATE crons SET next_run_date = $3, claimed_until = NULL
           WHERE cron_id = $1 AND enabled AND next_run_date = $2::timestamptz`,
          [cron_id, due, next],
        );
        if (rowCount === 0) return { kind: "elsewhere" } as const;
        if (newThread) {
          const threadId = run.thread_id;
          await insertThread(tx, { threadId, metadata: newThread, ttl: defaultTtl });
        }
        return createRunRepository(tx).create(run);
      }),
  };
}

async function writeChange(
  tx: Queryable,
  cronId: string,
  change: CronChange,
): Promise<CronRecord | undefined> {
  const { rows } = await tx.query<CronRecord>(
    `UPDATE crons SET schedule = $2, timezone = $3, enabled = $4, end_time = $5, on_run_completed = $6,
       payload = $7, metadata = $8, next_run_date = $9, updated_at = now()
     WHERE cron_id = $1 RETURNING ${COLUMNS}`,
    [
      cronId,
      change.schedule,
      change.timezone,
      change.enabled,
      change.end_time,
      change.on_run_completed,
      toJson(change.payload),
      toJson(change.metadata),
      change.next_run_date,
    ],
  );
  return rows[0];
}

const CLAIM_DUE = `
  UPDATE crons SET claimed_until = now() + $2::float8 * interval '1 millisecond'
  WHERE cron_id IN (
    SELECT cron_id FROM crons
    WHERE enabled AND next_run_date <= now() AND (claimed_until IS NULL OR claimed_until <= now())
    ORDER BY next_run_date LIMIT $1 FOR UPDATE SKIP LOCKED)
  RETURNING ${COLUMNS}, next_run_date::text AS due, now() AS now`;
