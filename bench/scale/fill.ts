import type { Queryable } from "../../src/storage/database.ts";

/** How many rows a database has before it is measured. */
export interface Filling {
  threads: number;
  /** Of each thread. */
  checkpoints: number;
}

/** A fifth of the threads is of a graph that is served. */
const GRAPHS = "('{five,six,seven,eight,nine}'::text[])[n % 5 + 1]";
/** What one statement inserts, so that no statement holds the machine for long. */
const AT_ONCE = 10_000;

/** Threads that have rested for a while, each with its history; a hundredth of them waits for an answer. */
export async function fill(database: Queryable, { threads, checkpoints }: Filling): Promise<void> {
  for (let from = 0; from < threads; from += AT_ONCE) {
    const to = Math.min(threads, from + AT_ONCE) - 1;
    await database.query(
      `INSERT INTO threads (thread_id, status, resting_status, metadata, values, created_at, updated_at, state_updated_at)
       SELECT md5('thread' || n)::uuid, s, s,
         jsonb_build_object('graph_id', ${GRAPHS}, 'owner', 'user' || n % 1000, 'n', n),
         jsonb_build_object('messages', jsonb_build_array(repeat('word ', 40))),
         t, t, t
       FROM generate_series($1::int, $2::int) n,
         LATERAL (SELECT CASE n % 100 WHEN 0 THEN 'interrupted' WHEN 1 THEN 'error' ELSE 'idle' END AS s,
           now() - n * interval '1 second' AS t) x`,
      [from, to],
    );
    await database.query(
      `INSERT INTO checkpoints (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
       SELECT md5('thread' || n)::uuid::text, '', id(c), CASE WHEN c > 0 THEN id(c - 1) END, 'json',
         jsonb_build_object('v', 4, 'id', id(c), 'ts', '2026-01-01T00:00:00.000Z',
           'channel_values', '{}'::jsonb, 'channel_versions', jsonb_build_object('messages', c),
           'versions_seen', '{}'::jsonb),
         jsonb_build_object('source', 'loop', 'step', c, 'parents', '{}'::jsonb)
       FROM generate_series($1::int, $2::int) n, generate_series(0, $3::int - 1) c`.replaceAll(
        /id\((.*?)\)/gu,
        (_, number: string) => `'1f000000-0000-6000-8000-' || lpad((${number})::text, 12, '0')`,
      ),
      [from, to, checkpoints],
    );
    await database.query(
      `INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
       SELECT md5('thread' || n)::uuid::text, '', 'messages', c::text, 'json', '"a message of some length"'::bytea
       FROM generate_series($1::int, $2::int) n, generate_series(0, $3::int - 1) c`,
      [from, to, checkpoints],
    );
  }
  await database.query("ANALYZE");
}

/** Runs that wait: each on a thread of its own, but for those of one crowded thread that runs already. */
export async function fillQueue(
  database: Queryable,
  { waiting, crowd }: { waiting: number; crowd: number },
): Promise<void> {
  const columns = `run_id, thread_id, assistant_id, graph_id, status, kwargs, multitask_strategy, attempt, worker_id,
    lease_expires_at, metadata`;
  // The crowd first: it is at the head of the queue, and none of it may start.
  await database.query(
    `INSERT INTO runs (${columns})
     SELECT gen_random_uuid(), md5('thread0')::uuid, gen_random_uuid(), 'five',
       CASE n WHEN 0 THEN 'running' ELSE 'pending' END, '{}', 'enqueue', CASE n WHEN 0 THEN 1 ELSE 0 END,
       CASE n WHEN 0 THEN gen_random_uuid() END, CASE n WHEN 0 THEN now() + interval '1 day' END, '{"filled": true}'
     FROM generate_series(0, $1::int) n`,
    [crowd],
  );
  await database.query(
    `INSERT INTO runs (${columns})
     SELECT gen_random_uuid(), md5('thread' || n)::uuid, gen_random_uuid(), 'five', 'pending', '{}', 'enqueue', 0,
       NULL, NULL, '{"filled": true}'
     FROM generate_series(1, $1::int) n`,
    [waiting],
  );
  await database.query("ANALYZE runs");
}

export async function emptyQueue(database: Queryable): Promise<void> {
  await database.query(`DELETE FROM runs WHERE metadata @> '{"filled": true}'`);
}
