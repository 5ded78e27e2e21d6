import type { RunEvent } from "../protocol/runs.ts";
import type { Queryable } from "./database.ts";

/** The events of resumable runs, for readers that come back after the buffer in memory is gone. */
export interface RunEventRepository {
  /** Writes events in one statement. Ids that are there already are left as they are. */
  append(runId: string, events: readonly RunEvent[]): Promise<void>;
  /** Events with an id above `after`, in order. */
  read(runId: string, after: number, limit: number): Promise<RunEvent[]>;
  /** The highest id written; -1 if there is none. */
  lastId(runId: string): Promise<number>;
  /** Deletes the events of runs that ended before now minus `olderThanMs`. */
  sweep(olderThanMs: number): Promise<number>;
}

export function createRunEventRepository(database: Queryable): RunEventRepository {
  return {
    async append(runId, events) {
      await database.query(
        `INSERT INTO run_events (run_id, id, event, data)
         SELECT $1::uuid, * FROM unnest($2::integer[], $3::text[], $4::text[])
         ON CONFLICT DO NOTHING`,
        [
          runId,
          events.map((event) => event.id),
          events.map((event) => event.event),
          events.map((event) => event.data),
        ],
      );
    },

    async read(runId, after, limit) {
      const { rows } = await database.query<RunEvent>(
        "SELECT id, event, data FROM run_events WHERE run_id = $1 AND id > $2 ORDER BY id LIMIT $3",
        [runId, after, limit],
      );
      return rows;
    },

    async lastId(runId) {
      const { rows } = await database.query<{ id: number }>(
        "SELECT coalesce(max(id), -1) AS id FROM run_events WHERE run_id = $1",
        [runId],
      );
      return rows[0]?.id ?? -1;
    },

    async sweep(olderThanMs) {
      const { rowCount } = await database.query(
        `DELETE FROM run_events e USING runs r
         WHERE r.run_id = e.run_id AND r.ended_at < now() - $1 * interval '1 millisecond'`,
        [olderThanMs],
      );
      return rowCount;
    },
  };
}
