import { RUN_COLUMNS } from "./run-record.ts";

/*
 * Which waiting runs a worker takes.
 *
 * Every user is served in turn: the run goes first whose user has the fewest runs running and ahead of it, and
 * of those the one that waits longest. A claim must stay cheap however many runs wait, so it does not sort the
 * queue. It looks at a sample of fixed size: the runs that wait longest, the longest waiting of each of some
 * users, and the first of some threads. Where more users or threads wait than fit the sample, these are the ones
 * from a random place on, in the order of their hashes, so that nobody is overlooked for long. Without the users a
 * flood of one would hide the others; without the threads a thread with thousands of runs would hide its user's
 * other threads.
 *
 * Measured on PostgreSQL 18 with 100,000 runs waiting: see docs/scaling.md.
 */

const OLDEST = 24;
const USERS = 16;
const RUNS_PER_USER = 3;
const THREADS = 8;

/** The hash of a user and of a thread, as the indexes have them. */
const USER = (alias: string): string => `hashtext(coalesce(${alias}.user_id, ''))`;
const THREAD = (alias: string): string => `uuid_hash(${alias}.thread_id)`;

/**
 * The distinct hashes among the waiting runs, in order, from the one given by `from` on: one step in the index for
 * each, however many runs share it. As many are computed as are read.
 */
const hashes = (name: string, hash: (alias: string) => string, from: string): string => `
  ${name} AS (
    (SELECT ${hash("r")} AS hash FROM runs r
     WHERE r.status = 'pending' AND ${hash("r")} >= ${from} ORDER BY ${hash("r")} LIMIT 1)
    UNION ALL
    SELECT (SELECT ${hash("r")} FROM runs r
      WHERE r.status = 'pending' AND ${hash("r")} > s.hash ORDER BY ${hash("r")} LIMIT 1)
    FROM ${name} s WHERE s.hash IS NOT NULL
  )`;

const sampled = (from: string, fromStart: string, count: number): string => `
  (SELECT hash FROM ${from} WHERE hash IS NOT NULL LIMIT ${count})
  UNION (SELECT hash FROM ${fromStart} WHERE hash IS NOT NULL LIMIT ${count})`;

/** Written so that it is looked up for each row: as a join, a planner without statistics may read the whole table. */
const NONE = (what: string): string => `(SELECT 1 FROM ${what} LIMIT 1) IS NULL`;

const LOWEST = "(-2147483648)";

/** The next place in the stream of a run's thread, for a run that has none. */
export const NEXT_PLACE = `coalesce(runs.stream_position,
  (SELECT t.last_stream_position + 1 FROM threads t WHERE t.thread_id = runs.thread_id))`;

/**
 * `$1` worker, `$2` lease in ms, `$3` how many, `$4` a random integer, `$5` and `$6` the most runs of a user and
 * of an assistant that may run at the same time, or NULL.
 *
 * A thread's runs start in order, one at a time, and none while a client writes the thread's state. The partial
 * unique index has the last word.
 */
export const CLAIM = `
  WITH RECURSIVE ${[
    hashes("users_on", USER, "$4::int"),
    hashes("users_around", USER, LOWEST),
    hashes("threads_on", THREAD, "$4::int"),
    hashes("threads_around", THREAD, LOWEST),
  ].join(",")},
  candidates AS (
    (SELECT r.run_id FROM runs r WHERE r.status = 'pending' AND r.available_at <= now()
     ORDER BY r.available_at, r.position LIMIT ${OLDEST})
    UNION
    SELECT head.run_id FROM (${sampled("users_on", "users_around", USERS)}) u CROSS JOIN LATERAL (
      SELECT r.run_id FROM runs r
      WHERE r.status = 'pending' AND ${USER("r")} = u.hash AND r.available_at <= now()
      ORDER BY ${USER("r")}, r.available_at, r.position LIMIT ${RUNS_PER_USER}) head
    UNION
    SELECT head.run_id FROM (${sampled("threads_on", "threads_around", THREADS)}) t CROSS JOIN LATERAL (
      SELECT r.run_id FROM runs r
      WHERE r.status = 'pending' AND ${THREAD("r")} = t.hash AND r.available_at <= now()
      ORDER BY ${THREAD("r")}, r.position LIMIT 1) head
  ), running AS MATERIALIZED (
    SELECT coalesce(user_id, '') AS user_id, assistant_id, count(*) AS runs
    FROM runs WHERE status = 'running' GROUP BY 1, 2
  ), free AS MATERIALIZED (
    SELECT r.* FROM candidates CROSS JOIN LATERAL (
      SELECT r.run_id, r.thread_id, coalesce(r.user_id, '') AS user_id, r.assistant_id, r.available_at, r.position
      FROM runs r WHERE r.run_id = candidates.run_id AND r.status = 'pending' LIMIT 1) r
    WHERE ${NONE("runs o WHERE o.thread_id = r.thread_id AND o.status = 'running'")}
      AND ${NONE(`runs o WHERE ${THREAD("o")} = ${THREAD("r")} AND o.thread_id::text = r.thread_id::text
        AND o.status = 'pending' AND o.position < r.position AND o.available_at <= now()`)}
      AND ${NONE("threads t WHERE t.thread_id = r.thread_id AND t.writing_until > now()")}
      AND ($6::int IS NULL OR $6::int >
        coalesce((SELECT sum(g.runs) FROM running g WHERE g.assistant_id = r.assistant_id), 0))
  ), by_user AS (
    SELECT f.*, row_number() OVER (PARTITION BY f.user_id ORDER BY f.available_at, f.position)
      + coalesce((SELECT sum(r.runs) FROM running r WHERE r.user_id = f.user_id), 0) AS of_user
    FROM free f
  ), ranked AS (
    SELECT u.*, row_number() OVER (PARTITION BY u.assistant_id ORDER BY u.of_user, u.available_at, u.position)
      + coalesce((SELECT sum(r.runs) FROM running r WHERE r.assistant_id = u.assistant_id), 0) AS of_assistant
    FROM by_user u WHERE $5::int IS NULL OR u.of_user <= $5::int
  ), best AS (
    -- A few more than are wanted, in place of those that another worker takes at this moment.
    SELECT array_agg(run_id ORDER BY of_user, available_at, position) AS ids FROM (
      SELECT * FROM ranked WHERE $6::int IS NULL OR of_assistant <= $6::int
      ORDER BY of_user, available_at, position LIMIT $3::int + 16) b
  ), chosen AS (
    SELECT r.run_id FROM runs r
    WHERE r.run_id = ANY((SELECT ids FROM best)::uuid[]) AND r.status = 'pending'
    ORDER BY array_position((SELECT ids FROM best), r.run_id) LIMIT $3::int FOR UPDATE SKIP LOCKED
  ), claimed AS (
    UPDATE runs SET status = 'running', attempt = attempt + 1, worker_id = $1,
      lease_expires_at = now() + $2::float8 * interval '1 millisecond',
      started_at = coalesce(started_at, now()), attempt_started_at = now(), updated_at = now(), stream_position = ${NEXT_PLACE}
    WHERE run_id = ANY(ARRAY(SELECT run_id FROM chosen))
    RETURNING ${RUN_COLUMNS}
  ), placed AS (
    UPDATE threads t SET last_stream_position = p.stream_position FROM claimed p
    WHERE t.thread_id = p.thread_id AND t.last_stream_position < p.stream_position
  )
  SELECT * FROM claimed`;
