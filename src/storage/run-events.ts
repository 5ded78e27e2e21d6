import type { RunEvent, RunStatus } from "../protocol/runs.ts";
import type { Queryable } from "./database.ts";
import type { Lease } from "./run-queue.ts";

/** Events of one attempt at a run, which are written only while its lease is held. */
export interface LeasedEvents {
  lease: Lease;
  events: readonly RunEvent[];
}

/** A part of a run's log, and how the run stood when it was read. */
export interface LogPage {
  status: RunStatus;
  attempt: number;
  /** Whether the run's events are wanted in the database. */
  logged: boolean;
  events: RunEvent[];
  /** Whether these were all the events there were. */
  last: boolean;
}

/** How a run and its log stand, without the events. */
export interface LogState {
  run_id: string;
  status: RunStatus;
  attempt: number;
  /** The id of the newest event; -1 if there is none. */
  last_id: number;
}

/** The events of runs, for readers in other processes and for those that come back. */
export interface RunEventRepository {
  /**
   * Writes the events of many runs in one statement, which also sends `payloads` on `channel`. Gives the runs
   * whose lease is held; of the others nothing was written. Ids that are there already are left as they are.
   *
   * The rows of the runs are locked against a change of hands until the events are there, in the order of
   * their ids: no event of an attempt appears after the next one began.
   */
  append(
    parts: readonly LeasedEvents[],
    notify: { channel: string; payloads: readonly string[] },
  ): Promise<ReadonlySet<string>>;
  /** Events with an id above `after`, in order; `undefined` if there is no such run. */
  read(runId: string, after: number): Promise<LogPage | undefined>;
  /** How these runs stand; those that are gone are missing. */
  states(runIds: readonly string[]): Promise<LogState[]>;
  /** Asks for the events of an active run to be in the database; false if they are asked for already. */
  want(runId: string): Promise<boolean>;
  /** Deletes a run's events up to and with this one. */
  trim(runId: string, lastId: number): Promise<void>;
  /** Deletes the events of up to `limit` runs that ended before now minus `olderThanMs`; gives how many runs. */
  sweep(olderThanMs: number, limit: number): Promise<number>;
}

/** What is read at once: rows, and characters, of which one more event may follow. */
const PAGE_EVENTS = 500;
const PAGE_CHARS = 4 * 1024 * 1024;

export function createRunEventRepository(database: Queryable): RunEventRepository {
  return {
    async append(parts, { channel, payloads }) {
      const events = parts.flatMap((part) =>
        part.events.map((event) => ({ ...event, run_id: part.lease.run_id })),
      );
      // As one buffer, which the driver sends as it is; in an array every quote of the JSON would be escaped.
      const data = events.map((event) => Buffer.from(event.data));
      let end = 1;
      const starts = data.map(({ byteLength }) => (end += byteLength) - byteLength);
      const { rows } = await database.query<{ held: string[] }>(APPEND, [
        parts.map(({ lease }) => lease.run_id),
        parts.map(({ lease }) => lease.worker_id),
        parts.map(({ lease }) => lease.attempt),
        events.map((event) => event.run_id),
        events.map((event) => event.id),
        events.map((event) => event.event),
        starts,
        data.map(({ byteLength }) => byteLength),
        Buffer.concat(data),
        channel,
        payloads,
      ]);
      return new Set(rows[0]?.held);
    },

    async read(runId, after) {
      const { rows } = await database.query<
        Pick<LogPage, "status" | "attempt" | "logged"> & { id: number | null } & Omit<
            RunEvent,
            "id"
          >
      >(READ, [runId, after, PAGE_EVENTS, PAGE_CHARS]);
      const [first] = rows;
      if (!first) return undefined;
      const events = rows.flatMap(({ id, event, data }) =>
        id === null ? [] : { id, event, data },
      );
      const chars = events.reduce((sum, { data }) => sum + Buffer.byteLength(data), 0);
      const { status, attempt, logged } = first;
      const last = events.length < PAGE_EVENTS && chars < PAGE_CHARS;
      return { status, attempt, logged, events, last };
    },

    async states(runIds) {
      const { rows } = await database.query<LogState>(
        `SELECT run_id, status, attempt,
           coalesce((SELECT max(id) FROM run_events e WHERE e.run_id = r.run_id), -1) AS last_id
         FROM runs r WHERE run_id = ANY($1::uuid[])`,
        [runIds],
      );
      return rows;
    },

    async want(runId) {
      const { rowCount } = await database.query(
        `UPDATE runs SET logged = true
         WHERE run_id = $1 AND status IN ('pending', 'running') AND NOT logged`,
        [runId],
      );
      return rowCount > 0;
    },

    async trim(runId, lastId) {
      await database.query("DELETE FROM run_events WHERE run_id = $1 AND id <= $2", [
        runId,
        lastId,
      ]);
    },

    async sweep(olderThanMs, limit) {
      const { rows } = await database.query<{ runs: number }>(SWEEP, [olderThanMs, limit]);
      return rows[0]?.runs ?? 0;
    },
  };
}

const APPEND = `
  WITH held AS (
    SELECT r.run_id FROM unnest($1::uuid[], $2::uuid[], $3::int[]) AS l (run_id, worker_id, attempt)
    JOIN runs r USING (run_id, worker_id, attempt)
    WHERE r.status = 'running' ORDER BY r.run_id FOR SHARE OF r
  ), written AS (
    INSERT INTO run_events (run_id, id, event, data)
    SELECT e.run_id, e.id, e.event, convert_from(substring($9::bytea FROM e.start FOR e.size), 'UTF8')
    FROM unnest($4::uuid[], $5::bigint[], $6::text[], $7::int[], $8::int[]) AS e (run_id, id, event, start, size)
    JOIN held USING (run_id)
    ON CONFLICT DO NOTHING
  )
  SELECT ARRAY(SELECT run_id::text FROM held) AS held,
    (SELECT string_agg(pg_notify($10, payload)::text, '') FROM unnest($11::text[]) AS payload) AS told`;

const READ = `
  SELECT r.status, r.attempt, r.logged, e.id, e.event, e.data
  FROM runs r LEFT JOIN LATERAL (
    SELECT id, event, data FROM (
      SELECT id, event, data, sum(octet_length(data)) OVER (ORDER BY id) - octet_length(data) AS ahead
      FROM (SELECT id, event, data FROM run_events WHERE run_id = $1 AND id > $2 ORDER BY id LIMIT $3) page
    ) sized WHERE ahead < $4::bigint
  ) e ON true
  WHERE r.run_id = $1 ORDER BY e.id`;

// The runs that have events, found by stepping from one to the next: there are many events to a run.
const SWEEP = `
  WITH RECURSIVE logged AS (
    (SELECT run_id FROM run_events ORDER BY run_id LIMIT 1)
    UNION ALL
    SELECT (SELECT e.run_id FROM run_events e WHERE e.run_id > logged.run_id ORDER BY e.run_id LIMIT 1)
    FROM logged WHERE logged.run_id IS NOT NULL
  ), old AS (
    SELECT r.run_id FROM runs r
    WHERE r.run_id IN (SELECT run_id FROM logged) AND r.ended_at < now() - $1::float8 * interval '1 millisecond'
    LIMIT $2 FOR UPDATE OF r SKIP LOCKED
  ), gone AS (
    DELETE FROM run_events e USING old WHERE e.run_id = old.run_id
  )
  SELECT count(*)::int AS runs FROM old`;
