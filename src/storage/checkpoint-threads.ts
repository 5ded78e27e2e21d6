import { uuid5 } from "@langchain/langgraph-checkpoint";
import type { Queryable } from "./database.ts";

/** LangGraph's id for writes that belong to no task, such as the answer to an interrupt. */
const NULL_TASK_ID = "00000000-0000-0000-0000-000000000000";

/** Removes all checkpoints, values and writes of a thread, in one statement. */
export async function deleteThread(database: Queryable, threadId: string): Promise<void> {
  await database.query(
    `WITH b AS (DELETE FROM checkpoint_blobs WHERE thread_id = $1),
      w AS (DELETE FROM checkpoint_writes WHERE thread_id = $1)
    DELETE FROM checkpoints WHERE thread_id = $1`,
    [threadId],
  );
}

/**
 * Parts of a statement that copies all checkpoints, values and writes of thread `$1` to `$2`, which has none;
 * ids and namespaces stay the same.
 */
export const COPY_CHECKPOINTS = `
  blobs_copied AS (
    INSERT INTO checkpoint_blobs (thread_id, checkpoint_ns, channel, version, type, blob)
    SELECT $2::text, checkpoint_ns, channel, version, type, blob
    FROM checkpoint_blobs WHERE thread_id = $1::text
  ), writes_copied AS (
    INSERT INTO checkpoint_writes
      (thread_id, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path)
    SELECT $2::text, checkpoint_ns, checkpoint_id, task_id, idx, channel, type, blob, task_path
    FROM checkpoint_writes WHERE thread_id = $1::text
  ), checkpoints_copied AS (
    INSERT INTO checkpoints
      (thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata)
    SELECT $2::text, checkpoint_ns, checkpoint_id, parent_checkpoint_id, type, checkpoint, metadata
    FROM checkpoints WHERE thread_id = $1::text
  )`;

/**
 * Parts of a statement (`WITH RECURSIVE`) that removes the history of thread `$1` but for the latest checkpoint
 * of each namespace, if a part named `held` has a row. Channels that are kept as changes since an older
 * checkpoint keep what leads to it, and a checkpoint of an old format the parent that has its sends.
 */
export const PRUNE_CHECKPOINTS = `
  latest AS (
    SELECT DISTINCT ON (checkpoint_ns) c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint,
      ARRAY(SELECT jsonb_object_keys(coalesce(c.metadata -> 'counters_since_delta_snapshot', '{}'))) AS changes
    FROM checkpoints c, held WHERE c.thread_id = $1::text
    ORDER BY c.checkpoint_ns, c.checkpoint_id COLLATE "C" DESC
  ), kept AS (
    SELECT checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, changes,
      (checkpoint ->> 'v')::int < 4 AS needs_parent FROM latest
    UNION ALL
    SELECT c.checkpoint_ns, c.checkpoint_id, c.parent_checkpoint_id, c.checkpoint, ARRAY(
      SELECT channel FROM unnest(k.changes) AS channel WHERE NOT EXISTS (
        SELECT FROM checkpoint_blobs b
        WHERE b.thread_id = $1::text AND b.checkpoint_ns = c.checkpoint_ns AND b.channel = channel.channel
          AND b.version = c.checkpoint -> 'channel_versions' ->> channel.channel)
    ), false
    FROM kept k JOIN checkpoints c ON c.thread_id = $1::text
      AND c.checkpoint_ns = k.checkpoint_ns AND c.checkpoint_id = k.parent_checkpoint_id
    WHERE cardinality(k.changes) > 0 OR k.needs_parent
  ), used AS MATERIALIZED (
    SELECT DISTINCT checkpoint_ns, v.key AS channel, v.value AS version
    FROM kept CROSS JOIN LATERAL jsonb_each_text(kept.checkpoint -> 'channel_versions') v
  ), blobs_gone AS (
    DELETE FROM checkpoint_blobs b USING held WHERE b.thread_id = $1::text AND NOT EXISTS (
      SELECT FROM used
      WHERE (used.checkpoint_ns, used.channel, used.version) = (b.checkpoint_ns, b.channel, b.version))
  ), writes_gone AS (
    DELETE FROM checkpoint_writes w USING held WHERE w.thread_id = $1::text AND NOT EXISTS (
      SELECT FROM kept WHERE (kept.checkpoint_ns, kept.checkpoint_id) = (w.checkpoint_ns, w.checkpoint_id))
  ), checkpoints_gone AS (
    DELETE FROM checkpoints c USING held WHERE c.thread_id = $1::text AND NOT EXISTS (
      SELECT FROM kept WHERE (kept.checkpoint_ns, kept.checkpoint_id) = (c.checkpoint_ns, c.checkpoint_id))
  ), made_first AS (
    UPDATE checkpoints c SET parent_checkpoint_id = NULL FROM kept k
    WHERE c.thread_id = $1::text AND (c.checkpoint_ns, c.checkpoint_id) = (k.checkpoint_ns, k.checkpoint_id)
      AND NOT EXISTS (SELECT FROM kept parent
        WHERE (parent.checkpoint_ns, parent.checkpoint_id) = (k.checkpoint_ns, k.parent_checkpoint_id))
  )`;

/**
 * Takes a thread back to one of its checkpoints: removes every newer one of every namespace with its
 * writes, and the values that only they used. Checkpoint ids sort by time of creation.
 *
 * If the checkpoint was waiting at interrupts that were answered since, they wait again: the answers and
 * the results of the interrupted tasks go too. A task that was interrupted several times in one step loses
 * its earlier answers as well and asks again from the first, since rows do not say which run wrote them.
 */
export async function deleteAfter(
  database: Queryable,
  threadId: string,
  checkpointId: string,
): Promise<void> {
  await database.query(
    `WITH kept AS MATERIALIZED (
      SELECT checkpoint_ns, checkpoint_id, checkpoint FROM checkpoints
      WHERE thread_id = $1 AND checkpoint_id COLLATE "C" <= $2
    ), used AS MATERIALIZED (
      SELECT DISTINCT checkpoint_ns, v.key AS channel, v.value AS version
      FROM kept CROSS JOIN LATERAL jsonb_each_text(kept.checkpoint -> 'channel_versions') v
    ), ends AS MATERIALIZED (
      SELECT checkpoint_ns, max(checkpoint_id COLLATE "C") AS checkpoint_id FROM kept GROUP BY checkpoint_ns
    ), b AS (
      DELETE FROM checkpoint_blobs bl WHERE thread_id = $1 AND NOT EXISTS (
        SELECT FROM used WHERE (used.checkpoint_ns, used.channel, used.version)
          = (bl.checkpoint_ns, bl.channel, bl.version)
      )
    ), w AS (
      DELETE FROM checkpoint_writes cw WHERE thread_id = $1 AND (
        checkpoint_id COLLATE "C" > $2
        OR (checkpoint_ns, checkpoint_id) IN (SELECT checkpoint_ns, checkpoint_id FROM ends) AND (
          task_id = $3
          OR task_id = '${NULL_TASK_ID}' AND channel = '__resume__'
          OR channel <> '__interrupt__' AND EXISTS (
            SELECT FROM checkpoint_writes stop
            WHERE stop.thread_id = $1 AND stop.channel = '__interrupt__'
              AND (stop.checkpoint_ns, stop.checkpoint_id, stop.task_id)
                = (cw.checkpoint_ns, cw.checkpoint_id, cw.task_id)
          )
        )
      )
    )
    DELETE FROM checkpoints WHERE thread_id = $1 AND checkpoint_id COLLATE "C" > $2`,
    [threadId, checkpointId, toInputTaskId(checkpointId)],
  );
}

/** Under which a run keeps its input to channels that store only writes, at the checkpoint it starts from. */
function toInputTaskId(checkpointId: string): string {
  return uuid5("__input__", checkpointId);
}
