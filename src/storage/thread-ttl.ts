import type { ThreadExpiry } from "../protocol/thread-ttl.ts";
import { PRUNE_CHECKPOINTS } from "./checkpoint-threads.ts";
import type { Database } from "./database.ts";
import { DELETE_THREADS } from "./threads.ts";

/** Threads that are kept only for a while after their last use. */
export interface ThreadTtlRepository {
  /** When a thread expires; `undefined` if it never does. */
  get(threadId: string): Promise<ThreadExpiry | undefined>;
  /**
   * Deletes up to `limit` expired threads with everything on them; gives how many. Threads that another process
   * is deleting are left to it.
   */
  deleteExpired(limit: number): Promise<number>;
  /** Up to `limit` threads of whose expired history only the latest state is to stay. */
  withExpiredHistory(limit: number): Promise<string[]>;
  /** Removes the history of such a thread; false if it was used meanwhile, or another process does so. */
  pruneExpired(threadId: string): Promise<boolean>;
}

export function createThreadTtlRepository(database: Database): ThreadTtlRepository {
  return {
    async get(threadId) {
      const { rows } = await database.query<ThreadExpiry>(
        `SELECT ttl_strategy AS strategy, ttl_minutes, ${EXPIRES_AT} AS expires_at FROM threads
         WHERE thread_id = $1 AND ttl_minutes IS NOT NULL`,
        [threadId],
      );
      return rows[0];
    },

    deleteExpired: (limit) =>
      database.transaction(async (tx) => {
        const { rows } = await tx.query<{ thread_id: string }>(
          `SELECT thread_id FROM threads t WHERE ttl_strategy = 'delete' AND ${EXPIRED}
             AND NOT EXISTS (SELECT 1 FROM crons c WHERE c.thread_id = t.thread_id AND c.next_run_date IS NOT NULL)
           ORDER BY updated_at LIMIT $1 FOR UPDATE SKIP LOCKED`,
          [limit],
        );
        if (rows.length === 0) return 0;
        await tx.query(DELETE_THREADS, [rows.map((row) => row.thread_id)]);
        return rows.length;
      }),

    async withExpiredHistory(limit) {
      const { rows } = await database.query<{ thread_id: string }>(
        `SELECT thread_id FROM threads WHERE ttl_strategy = 'keep_latest' AND ${EXPIRED}
         ORDER BY updated_at LIMIT $1`,
        [limit],
      );
      return rows.map((row) => row.thread_id);
    },

    async pruneExpired(threadId) {
      const { rows } = await database.query(PRUNE_EXPIRED, [threadId]);
      return rows.length > 0;
    },
  };
}

const EXPIRES_AT = "updated_at + ttl_minutes * interval '1 minute'";

// A thread is in use while a run waits or goes on, and while a client writes its state. The second line is the
// index's own condition.
const EXPIRED = `${EXPIRES_AT} <= now() AND active_runs = 0 AND coalesce(writing_until <= now(), true)
  AND ttl_minutes IS NOT NULL AND (pruned_at IS NULL OR pruned_at < updated_at)`;

// The row's lock keeps runs from beginning until the history is gone.
const PRUNE_EXPIRED = `
  WITH RECURSIVE expired AS (
    SELECT thread_id FROM threads WHERE thread_id = $1::uuid AND ttl_strategy = 'keep_latest' AND ${EXPIRED}
    FOR UPDATE SKIP LOCKED
  ), held AS (
    UPDATE threads t SET pruned_at = now() FROM expired WHERE t.thread_id = expired.thread_id
    RETURNING t.thread_id::text
  ), ${PRUNE_CHECKPOINTS}
  SELECT thread_id FROM held`;
