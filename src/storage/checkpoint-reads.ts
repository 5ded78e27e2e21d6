import { maxChannelVersion, TASKS } from "@langchain/langgraph-checkpoint";
import type {
  Checkpoint,
  CheckpointListOptions,
  CheckpointTuple,
  SerializerProtocol,
} from "@langchain/langgraph-checkpoint";
import { load } from "./checkpoint-values.ts";
import type { Queryable } from "./database.ts";

const encoder = new TextEncoder();

/** Which checkpoints to read; without an id the newest. Empty fields do not restrict. */
export interface CheckpointQuery {
  threadId?: string | undefined;
  namespace?: string | undefined;
  checkpointId?: string | undefined;
  filter?: CheckpointListOptions["filter"];
  /** Only checkpoints older than the one with this id. */
  beforeId?: string | undefined;
  limit?: number | undefined;
}

/** Channel, serialisation type and size of each value, in the order in which `data` holds them. */
type ValueIndex = [name: string, type: string, size: number][];

interface TupleRow {
  thread_id: string;
  checkpoint_ns: string;
  checkpoint_id: string;
  parent_checkpoint_id: string | null;
  checkpoint: Checkpoint;
  metadata: string;
  channel_index: ValueIndex | null;
  channel_data: Uint8Array | null;
  write_index: [taskId: string, channel: string, type: string, size: number][] | null;
  write_data: Uint8Array | null;
}

/** A page of a thread's history; bounds memory, as each checkpoint comes with all of its values. */
const PAGE_SIZE = 50;

/** The matching checkpoints, newest first, with their values and pending writes, in one query per page. */
export async function* readTuples(
  database: Queryable,
  serde: SerializerProtocol,
  query: CheckpointQuery,
): AsyncGenerator<CheckpointTuple> {
  let left = query.limit ?? Number.POSITIVE_INFINITY;
  let after: TupleRow | undefined;
  while (left > 0) {
    const size = Math.min(left, PAGE_SIZE);
    const { text, params } = toSelect(query, size, after);
    const { rows } = await database.query<TupleRow>(text, params);
    for (const row of rows) yield await toTuple(database, serde, row);
    left -= rows.length;
    after = rows.at(-1);
    if (rows.length < size) return;
  }
}

function toSelect(
  query: CheckpointQuery,
  limit: number,
  after: TupleRow | undefined,
): { text: string; params: unknown[] } {
  const params: unknown[] = [];
  const param = (value: unknown): string => `$${params.push(value)}`;
  const where: string[] = [];
  if (query.threadId !== undefined) where.push(`thread_id = ${param(query.threadId)}`);
  if (query.namespace !== undefined) where.push(`checkpoint_ns = ${param(query.namespace)}`);
  if (query.checkpointId !== undefined) where.push(`checkpoint_id = ${param(query.checkpointId)}`);
  if (query.beforeId !== undefined) where.push(`checkpoint_id < ${param(query.beforeId)}`);
  if (query.filter && Object.keys(query.filter).length > 0) {
    where.push(`metadata @> ${param(JSON.stringify(query.filter))}::jsonb`);
  }
  if (after) {
    const position = [after.checkpoint_id, after.thread_id, after.checkpoint_ns]
      .map(param)
      .join(", ");
    where.push(`(checkpoint_id, thread_id, checkpoint_ns) < (${position})`);
  }
  // The laterals look each value up by its whole key. As plain joins the planner may read every version
  // of a long thread, because it cannot know how few channels a checkpoint has.
  const text = `SELECT cp.*, channels.*, writes.*
    FROM (
      SELECT thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id, checkpoint, metadata::text AS metadata
      FROM checkpoints ${where.length > 0 ? `WHERE ${where.join(" AND ")}` : ""}
      ORDER BY checkpoint_id DESC${isSingleNamespace(query) ? "" : ", thread_id DESC, checkpoint_ns DESC"}
      LIMIT ${param(limit)}
    ) cp
    CROSS JOIN LATERAL (
      SELECT json_agg(json_build_array(v.key, bl.type, octet_length(bl.blob))) AS channel_index,
        string_agg(bl.blob, ''::bytea) AS channel_data
      FROM jsonb_each_text(cp.checkpoint -> 'channel_versions') v
      CROSS JOIN LATERAL (
        SELECT type, blob FROM checkpoint_blobs
        WHERE thread_id = cp.thread_id AND checkpoint_ns = cp.checkpoint_ns
          AND channel = v.key AND version = v.value AND type <> 'empty' AND blob IS NOT NULL
        OFFSET 0
      ) bl
    ) channels
    CROSS JOIN LATERAL (
      SELECT json_agg(json_build_array(cw.task_id, cw.channel, cw.type, octet_length(cw.blob))) AS write_index,
        string_agg(cw.blob, ''::bytea) AS write_data
      FROM (
        SELECT task_id, channel, type, blob FROM checkpoint_writes
        WHERE thread_id = cp.thread_id AND checkpoint_ns = cp.checkpoint_ns AND checkpoint_id = cp.checkpoint_id
        ORDER BY task_path COLLATE "C", task_id COLLATE "C", idx
      ) cw
    ) writes
    ORDER BY cp.checkpoint_id DESC, cp.thread_id DESC, cp.checkpoint_ns DESC`;
  return { text, params };
}

/** Then the primary key gives the order, and a sort of the whole thread is avoided. */
function isSingleNamespace({ threadId, namespace }: CheckpointQuery): boolean {
  return threadId !== undefined && namespace !== undefined;
}

async function toTuple(
  database: Queryable,
  serde: SerializerProtocol,
  row: TupleRow,
): Promise<CheckpointTuple> {
  const { thread_id, checkpoint_ns, checkpoint_id, parent_checkpoint_id } = row;
  const address = (id: string) => ({
    configurable: { thread_id, checkpoint_ns, checkpoint_id: id },
  });
  const checkpoint: Checkpoint = {
    ...row.checkpoint,
    channel_versions: row.checkpoint.channel_versions ?? {},
    versions_seen: row.checkpoint.versions_seen ?? {},
    channel_values: {},
  };
  const channels = cut(row.channel_data, row.channel_index ?? [], (entry) => entry[2]);
  const writes = cut(row.write_data, row.write_index ?? [], (entry) => entry[3]);
  const [values, pendingWrites, metadata] = await Promise.all([
    Promise.all(
      channels.map(
        async ([[name, type], bytes]) => [name, await load(serde, type, bytes)] as const,
      ),
    ),
    Promise.all(
      writes.map(async ([[taskId, channel, type], bytes]): Promise<[string, string, unknown]> => [
        taskId,
        channel,
        await load(serde, type, bytes),
      ]),
    ),
    load(serde, "json", encoder.encode(row.metadata)) as Promise<CheckpointTuple["metadata"]>,
  ]);
  checkpoint.channel_values = Object.fromEntries(values.filter(([, value]) => value !== undefined));
  if (checkpoint.v < 4 && parent_checkpoint_id !== null) {
    await addPendingSends(database, serde, { row, checkpoint, parentId: parent_checkpoint_id });
  }
  return {
    config: address(checkpoint_id),
    checkpoint,
    metadata,
    ...(parent_checkpoint_id === null ? {} : { parentConfig: address(parent_checkpoint_id) }),
    pendingWrites,
  };
}

/** Pairs each index entry with its value's bytes. */
function cut<Entry>(
  data: Uint8Array | null,
  index: readonly Entry[],
  size: (entry: Entry) => number,
): [Entry, Uint8Array][] {
  let start = 0;
  return index.map((entry) => {
    const end = start + size(entry);
    // A plain copy: values that are bytes themselves must not share or keep the whole answer's memory.
    const bytes = Uint8Array.from((data ?? new Uint8Array()).subarray(start, end));
    start = end;
    return [entry, bytes];
  });
}

/** Before format 4 a superstep's sends were not a channel, but the writes to the checkpoint before. */
async function addPendingSends(
  database: Queryable,
  serde: SerializerProtocol,
  { row, checkpoint, parentId }: { row: TupleRow; checkpoint: Checkpoint; parentId: string },
): Promise<void> {
  const { rows } = await database.query<{ type: string; blob: Uint8Array }>(
    `SELECT type, blob FROM checkpoint_writes
    WHERE thread_id = $1 AND checkpoint_ns = $2 AND checkpoint_id = $3 AND channel = $4
    ORDER BY task_path COLLATE "C", task_id COLLATE "C", idx`,
    [row.thread_id, row.checkpoint_ns, parentId, TASKS],
  );
  if (rows.length === 0) return;
  const versions = Object.values(checkpoint.channel_versions);
  checkpoint.channel_values[TASKS] = await Promise.all(
    rows.map(({ type, blob }) => load(serde, type, blob)),
  );
  checkpoint.channel_versions[TASKS] = versions.length > 0 ? maxChannelVersion(...versions) : 1;
}
