import type {
  CheckpointPendingWrite,
  DeltaChannelHistory,
  SerializerProtocol,
} from "@langchain/langgraph-checkpoint";
import type { CheckpointAddress } from "./checkpoint-rows.ts";
import { load } from "./checkpoint-values.ts";
import type { Queryable } from "./database.ts";

interface HistoryRow {
  is_seed: boolean;
  task_id: string;
  channel: string;
  type: string;
  blob: Uint8Array;
}

/**
 * What rebuilds the channels that a checkpoint does not hold itself: for each, the value at the nearest
 * ancestor that holds it, and all writes since, oldest first. LangGraph's default asks for one ancestor at
 * a time, and there may be thousands between two values; this is one query.
 */
export async function readDeltaHistory(
  database: Queryable,
  serde: SerializerProtocol,
  query: { address: CheckpointAddress; channels: readonly string[] },
): Promise<Record<string, DeltaChannelHistory>> {
  const { address, channels } = query;
  const { rows } = await database.query<HistoryRow>(
    // "missing" are the channels that no checkpoint between here and the start has held.
    `WITH RECURSIVE ancestors AS (
      SELECT start.parent_checkpoint_id AS id, 1 AS distance, $4::text[] AS missing
      FROM (
        SELECT parent_checkpoint_id FROM checkpoints
        WHERE thread_id = $1 AND checkpoint_ns = $2 AND ($3::text IS NULL OR checkpoint_id = $3)
        ORDER BY checkpoint_id DESC LIMIT 1
      ) start
      UNION ALL
      SELECT cp.parent_checkpoint_id, a.distance + 1, ARRAY(
        SELECT channel FROM unnest(a.missing) AS channel
        WHERE NOT EXISTS (
          SELECT FROM checkpoint_blobs bl
          WHERE bl.thread_id = $1 AND bl.checkpoint_ns = $2 AND bl.channel = channel.channel
            AND bl.version = cp.checkpoint -> 'channel_versions' ->> channel.channel
            AND bl.type <> 'empty' AND bl.blob IS NOT NULL
        )
      )
      FROM ancestors a
      JOIN checkpoints cp
        ON cp.thread_id = $1 AND cp.checkpoint_ns = $2 AND cp.checkpoint_id = a.id
      WHERE cardinality(a.missing) > 0
    )
    SELECT is_seed, task_id, channel, type, blob FROM (
      SELECT false AS is_seed, cw.task_id, cw.channel, cw.type, cw.blob,
        a.distance, cw.task_path, cw.idx
      FROM ancestors a
      JOIN checkpoint_writes cw
        ON cw.thread_id = $1 AND cw.checkpoint_ns = $2 AND cw.checkpoint_id = a.id
        AND cw.channel = ANY (a.missing)
      UNION ALL
      SELECT true, '', bl.channel, bl.type, bl.blob, a.distance, '', 0
      FROM ancestors a
      JOIN checkpoints cp
        ON cp.thread_id = $1 AND cp.checkpoint_ns = $2 AND cp.checkpoint_id = a.id
      CROSS JOIN unnest(a.missing) AS channel
      JOIN checkpoint_blobs bl
        ON bl.thread_id = $1 AND bl.checkpoint_ns = $2 AND bl.channel = channel.channel
        AND bl.version = cp.checkpoint -> 'channel_versions' ->> channel.channel
        AND bl.type <> 'empty' AND bl.blob IS NOT NULL
    ) found
    ORDER BY distance DESC, task_path COLLATE "C", task_id COLLATE "C", idx`,
    [address.threadId, address.namespace, address.checkpointId, channels],
  );
  const histories = new Map<string, DeltaChannelHistory>(
    channels.map((channel) => [channel, { writes: [] }]),
  );
  const values = await Promise.all(rows.map(({ type, blob }) => load(serde, type, blob)));
  for (const [index, { is_seed, task_id, channel }] of rows.entries()) {
    const history = histories.get(channel);
    if (!history) continue;
    const value: unknown = values[index];
    if (is_seed) history.seed = value;
    else history.writes.push([task_id, channel, value] satisfies CheckpointPendingWrite);
  }
  return Object.fromEntries(histories);
}
