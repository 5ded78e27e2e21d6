import type { ThreadTtl } from "../protocol/thread-ttl.ts";
import type { Thread, ThreadFilter, ThreadSearch } from "../protocol/threads.ts";
import type { Filter } from "../protocol/filters.ts";
import { Conditions, toContained } from "./conditions.ts";
import type { Database, Queryable } from "./database.ts";
import { toJson } from "./json.ts";

const COLUMNS =
  "thread_id, created_at, updated_at, state_updated_at, metadata, config, status, values, interrupts, error";

const DEADLOCK = "40P01";
const DELETE_TRIES = 5;

/**
 * Threads in the database. Their history is in the checkpoints. With a `filter`, a thread that does not pass it
 * is as good as absent.
 */
export interface ThreadRepository {
  /**
   * Creates it; `undefined` if one with this id exists already. Without a `ttl` it has the one that is
   * configured for all.
   */
  create(threadId: string, metadata: unknown, ttl?: ThreadTtl): Promise<Thread | undefined>;
  get(threadId: string, filter: Filter | undefined): Promise<Thread | undefined>;
  /**
   * Merges into the metadata, and sets how long the thread is kept (null: for ever); `undefined` if there is no
   * such thread.
   */
  patch(
    threadId: string,
    change: { metadata?: unknown; ttl?: ThreadTtl | null | undefined },
    filter: Filter | undefined,
  ): Promise<Thread | undefined>;
  /** Deletes the thread with its runs, events and checkpoints; false if there is no such thread. */
  delete(threadId: string, filter: Filter | undefined): Promise<boolean>;
  /** The ids of threads whose last run was of this assistant, up to 1000. */
  ofAssistant(assistantId: string, filter: Filter | undefined): Promise<string[]>;
  search(
    search: ThreadSearch,
    filter: Filter | undefined,
  ): Promise<{ threads: Thread[]; total: number }>;
  count(search: ThreadFilter, filter: Filter | undefined): Promise<number>;
  /** The last position that a run has in the thread's stream; 0 if there is none. */
  lastStreamPosition(threadId: string): Promise<number>;
  /** A text for each of these threads that is another one when a run has started, or the state was written. */
  streamMarks(threadIds: readonly string[]): Promise<Map<string, string>>;
}

/** Deletes the threads `$1`, whose rows are locked, with everything on them. */
export const DELETE_THREADS = `
  WITH gone AS (DELETE FROM threads WHERE thread_id = ANY($1::uuid[]) RETURNING thread_id::text),
    runs_gone AS (DELETE FROM runs r USING gone WHERE r.thread_id = gone.thread_id::uuid),
    checkpoints_gone AS (DELETE FROM checkpoints c USING gone WHERE c.thread_id = gone.thread_id),
    blobs_gone AS (DELETE FROM checkpoint_blobs b USING gone WHERE b.thread_id = gone.thread_id),
    writes_gone AS (DELETE FROM checkpoint_writes w USING gone WHERE w.thread_id = gone.thread_id)
  SELECT thread_id FROM gone`;

/**
 * The row is locked first and all else deleted in a second statement: one alone would not see the run of a
 * request that was ahead of it at the lock.
 */
async function deleteThread(
  tx: Queryable,
  threadId: string,
  filter: Filter | undefined,
): Promise<boolean> {
  const { rows } = await tx.query(
    "SELECT thread_id FROM threads WHERE thread_id = $1::uuid AND metadata @> $2::jsonb FOR UPDATE",
    [threadId, toContained(filter)],
  );
  if (rows.length === 0) return false;
  await tx.query(DELETE_THREADS, [[threadId]]);
  return true;
}

/** Creates a thread, alone or as part of a transaction; `undefined` if one with this id exists already. */
export async function insertThread(
  database: Queryable,
  thread: { threadId: string; metadata: unknown; ttl: ThreadTtl | undefined },
): Promise<Thread | undefined> {
  const { rows } = await database.query<Thread>(
    `INSERT INTO threads (thread_id, metadata, ttl_minutes, ttl_strategy)
     VALUES ($1, $2, $3, coalesce($4, 'delete'))
     ON CONFLICT (thread_id) DO NOTHING RETURNING ${COLUMNS}`,
    [
      thread.threadId,
      toJson(thread.metadata),
      thread.ttl?.ttl ?? null,
      thread.ttl?.strategy ?? null,
    ],
  );
  return rows[0];
}

/** The paths a search extracts, as one more column. */
function extracting({ extract }: ThreadSearch, conditions: Conditions): string {
  if (!extract) return "";
  const pairs = Object.entries(extract).map(([name, path]) => {
    const [column, ...keys] = [...path.matchAll(/[^.[\]]+/g)].map(([key]) => key);
    return `${conditions.bind(name)}::text, ${column!} #> ${conditions.bind(keys)}::text[]`;
  });
  return `, jsonb_build_object(${pairs.join(", ")}) AS extracted`;
}

/** `defaultTtl` is for threads that are created without one. */
export function createThreadRepository(
  database: Database,
  { defaultTtl }: { defaultTtl?: ThreadTtl | undefined } = {},
): ThreadRepository {
  const where = (
    search: ThreadFilter & { ids?: string[] | undefined },
    filter: Filter | undefined,
  ): Conditions => {
    const conditions = new Conditions().addFilter(filter);
    if (search.ids) conditions.add((p) => `thread_id = ANY(${p(search.ids)}::uuid[])`);
    if (search.metadata) conditions.add((p) => `metadata @> ${p(toJson(search.metadata))}::jsonb`);
    if (search.values) conditions.add((p) => `values @> ${p(toJson(search.values))}::jsonb`);
    if (search.status) conditions.add((p) => `status = ${p(search.status)}`);
    return conditions;
  };

  return {
    create: (threadId, metadata, ttl = defaultTtl) =>
      insertThread(database, { threadId, metadata, ttl }),

    async get(threadId, filter) {
      const { rows } = await database.query<Thread>(
        `SELECT ${COLUMNS} FROM threads WHERE thread_id = $1 AND metadata @> $2::jsonb`,
        [threadId, toContained(filter)],
      );
      return rows[0];
    },

    async patch(threadId, { metadata, ttl }, filter) {
      const { rows } = await database.query<Thread>(
        `UPDATE threads SET metadata = metadata || $2::jsonb, updated_at = now(),
           ttl_minutes = CASE WHEN $4 THEN $5::float8 ELSE ttl_minutes END,
           ttl_strategy = CASE WHEN $4::boolean THEN coalesce($6, 'delete') ELSE ttl_strategy END
         WHERE thread_id = $1 AND metadata @> $3::jsonb RETURNING ${COLUMNS}`,
        [
          threadId,
          toJson(metadata ?? {}),
          toContained(filter),
          ttl !== undefined,
          ttl?.ttl ?? null,
          ttl?.strategy ?? null,
        ],
      );
      return rows[0];
    },

    async delete(threadId, filter) {
      for (let tries = 1; ; tries += 1) {
        try {
          return await database.transaction((tx) => deleteThread(tx, threadId, filter));
        } catch (error) {
          // A run that ends at this moment has its own row and waits for the thread's: one of the two gives way.
          if ((error as { code?: unknown }).code !== DEADLOCK || tries === DELETE_TRIES)
            throw error;
        }
      }
    },

    async ofAssistant(assistantId, filter) {
      const { rows } = await database.query<{ thread_id: string }>(
        `SELECT thread_id FROM threads WHERE metadata @> $1::jsonb AND metadata @> $2::jsonb LIMIT 1000`,
        [toJson({ assistant_id: assistantId }), toContained(filter)],
      );
      return rows.map((row) => row.thread_id);
    },

    async search(search, filter) {
      const conditions = where(search, filter);
      const columns = search.select ? ["thread_id", ...search.select] : [COLUMNS];
      const [total, { rows }] = await Promise.all([
        this.count(search, filter),
        database.query<Thread>(
          `SELECT ${columns.join(", ")}${extracting(search, conditions)} FROM threads ${conditions.sql}
         ORDER BY ${search.sort_by} ${search.sort_order}, thread_id
         LIMIT ${search.limit} OFFSET ${search.offset}`,
          conditions.params,
        ),
      ]);
      return { threads: rows, total };
    },

    async count(search, filter) {
      const conditions = where(search, filter);
      const { rows } = await database.query<{ count: number }>(
        `SELECT count(*)::integer AS count FROM threads ${conditions.sql}`,
        conditions.params,
      );
      return rows[0]?.count ?? 0;
    },

    async lastStreamPosition(threadId) {
      const { rows } = await database.query<{ position: number }>(
        "SELECT last_stream_position AS position FROM threads WHERE thread_id = $1",
        [threadId],
      );
      return rows[0]?.position ?? 0;
    },

    async streamMarks(threadIds) {
      const { rows } = await database.query<{ thread_id: string; mark: string }>(
        `SELECT thread_id, concat(last_stream_position, ' ', state_updated_at) AS mark
         FROM threads WHERE thread_id = ANY($1::uuid[])`,
        [threadIds],
      );
      return new Map(rows.map((row) => [row.thread_id, row.mark]));
    },
  };
}
