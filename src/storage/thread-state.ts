import { randomUUID } from "node:crypto";
import type { Metadata } from "../protocol/common.ts";
import type { Thread } from "../protocol/threads.ts";
import { COPY_CHECKPOINTS, PRUNE_CHECKPOINTS } from "./checkpoint-threads.ts";
import type { Database } from "./database.ts";
import { toJson } from "./json.ts";

/*
 * A thread whose state is written by hand:   free --hold--> held --release, lapse--> free
 *
 * It is held only while no run is active on it, and a run that is created while it is held waits in the queue:
 * the row's lock decides which of the two came first. Checkpoints are written under the writer's id, so a
 * writer whose hold has lapsed, or whose thread is gone, writes nothing more.
 */

/** The state of a thread as it is kept beside its checkpoints. */
export interface ThreadSnapshot {
  values: unknown;
  interrupts: Record<string, unknown[]>;
  /** Whether nodes are left to run, with or without a question. */
  interrupted: boolean;
}

/** The right to write a thread's state by hand. */
export interface StateWriter {
  threadId: string;
  writer: string;
}

/** What became of the wish to write: `busy` with a run, or with another writer (`held`). */
export type Hold = StateWriter | "busy" | "held" | undefined;

/** The state of threads as clients write it, beside what runs do. */
export interface ThreadStateRepository {
  /** Takes a free thread for at most `leaseMs`; `undefined` if there is no such thread. */
  hold(threadId: string, leaseMs: number): Promise<Hold>;
  /**
   * Lets the thread go, with the state that was written if any was. Gives whether runs wait for it;
   * `undefined` if the hold had lapsed.
   */
  release(writer: StateWriter, snapshot: ThreadSnapshot | undefined): Promise<boolean | undefined>;
  /** Merges into the metadata of the latest checkpoint; false if there is none, or the hold has lapsed. */
  patchMetadata(writer: StateWriter, metadata: Metadata): Promise<boolean>;
  /**
   * Copies a thread with its history as it is at one moment, at rest and with this metadata; `active` tells that
   * a run was under way, so that the history may be ahead of the values. `undefined` if there is no original.
   */
  copy(
    fromId: string,
    toId: string,
    metadata: Metadata,
  ): Promise<{ thread: Thread; active: boolean } | undefined>;
  /** Removes all of a thread's history but its latest checkpoints; false if the hold has lapsed. */
  prune(writer: StateWriter): Promise<boolean>;
}

export function createThreadStateRepository(database: Database): ThreadStateRepository {
  return {
    async hold(threadId, leaseMs) {
      const writer = randomUUID();
      const { rows } = await database.query<{ busy: boolean; held: boolean }>(HOLD, [
        threadId,
        writer,
        leaseMs,
      ]);
      if (!rows[0]) return undefined;
      if (rows[0].busy) return "busy";
      return rows[0].held ? { threadId, writer } : "held";
    },

    async release({ threadId, writer }, snapshot) {
      const { rows } = await database.query<{ active_runs: number }>(
        snapshot ? `${RELEASE}, ${SAVE_STATE} ${OF_WRITER}` : `${RELEASE} ${OF_WRITER}`,
        snapshot
          ? [
              threadId,
              writer,
              toJson(snapshot.values),
              toJson(snapshot.interrupts),
              snapshot.interrupted ? "interrupted" : "idle",
            ]
          : [threadId, writer],
      );
      return rows[0] && rows[0].active_runs > 0;
    },

    async patchMetadata({ threadId, writer }, metadata) {
      const { rowCount } = await database.query(PATCH_METADATA, [
        threadId,
        writer,
        toJson(metadata),
      ]);
      return rowCount > 0;
    },

    async copy(fromId, toId, metadata) {
      const { rows } = await database.query<Thread & { active: boolean }>(COPY, [
        fromId,
        toId,
        toJson(metadata),
      ]);
      if (!rows[0]) return undefined;
      const { active, ...thread } = rows[0];
      return { thread, active };
    },

    async prune({ threadId, writer }) {
      const { rows } = await database.query(PRUNE, [threadId, writer]);
      return rows.length > 0;
    },
  };
}

// Whether it is free is read from the locked row, after any transaction that was ahead of this one.
const HOLD = `
  WITH thread AS (
    SELECT thread_id, active_runs > 0 AS busy, coalesce(writing_until > now(), false) AS writing
    FROM threads WHERE thread_id = $1::uuid FOR UPDATE
  ), held AS (
    UPDATE threads t SET writer = $2::uuid, writing_until = now() + $3::float8 * interval '1 millisecond'
    FROM thread WHERE t.thread_id = thread.thread_id AND NOT thread.busy AND NOT thread.writing
    RETURNING t.thread_id
  )
  SELECT thread.busy, held.thread_id IS NOT NULL AS held FROM thread LEFT JOIN held ON true`;

const RELEASE = "UPDATE threads SET writing_until = NULL";
const SAVE_STATE = `values = $3, interrupts = $4, error = NULL, updated_at = now(), state_updated_at = now(),
  resting_status = $5, status = CASE WHEN active_runs > 0 THEN 'busy' ELSE $5 END`;
const OF_WRITER = `WHERE thread_id = $1 AND writer = $2 AND writing_until > now() RETURNING active_runs`;

/** The thread, if this writer still holds it; deleting it waits until the statement is over. */
const HELD = `held AS (
    SELECT thread_id::text FROM threads
    WHERE thread_id = $1::uuid AND writer = $2::uuid AND writing_until > now() FOR KEY SHARE
  )`;

const PATCH_METADATA = `
  WITH ${HELD}
  UPDATE checkpoints c SET metadata = c.metadata || $3::jsonb FROM held
  WHERE c.thread_id = held.thread_id AND c.checkpoint_ns = '' AND c.checkpoint_id = (
    SELECT max(checkpoint_id COLLATE "C") FROM checkpoints WHERE thread_id = $1::text AND checkpoint_ns = '')`;

const THREAD_COLUMNS =
  "thread_id, created_at, updated_at, state_updated_at, metadata, config, status, values, interrupts, error";

// One statement, so one moment: never a checkpoint without its values, nor a thread without its checkpoints.
const COPY = `
  WITH original AS (SELECT * FROM threads WHERE thread_id = $1::uuid),
  ${COPY_CHECKPOINTS},
  copy AS (
    INSERT INTO threads
      (thread_id, status, resting_status, metadata, config, values, interrupts, error, state_updated_at, writer,
        ttl_minutes, ttl_strategy, settings)
    SELECT $2::uuid, resting_status, resting_status, $3::jsonb, config, values, interrupts, error,
      state_updated_at, $2::uuid, ttl_minutes, ttl_strategy, settings
    FROM original RETURNING ${THREAD_COLUMNS}
  )
  SELECT copy.*, original.active_runs > 0 AS active FROM copy, original`;

const PRUNE = `WITH RECURSIVE ${HELD}, ${PRUNE_CHECKPOINTS} SELECT thread_id FROM held`;
