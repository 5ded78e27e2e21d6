import { WRITES_IDX_MAP } from "@langchain/langgraph-checkpoint";
import type {
  ChannelVersions,
  Checkpoint,
  CheckpointMetadata,
  PendingWrite,
  SerializerProtocol,
} from "@langchain/langgraph-checkpoint";

/** One row of `checkpoints`; both documents are JSON text that `jsonb` accepts. */
export interface CheckpointRow {
  threadId: string;
  namespace: string;
  checkpointId: string;
  parentId: string | null;
  checkpoint: Uint8Array;
  metadata: Uint8Array;
}

/** One row of `checkpoint_blobs`: the value of a channel at one version. */
export interface BlobRow {
  threadId: string;
  namespace: string;
  channel: string;
  version: string;
  type: string;
  bytes: Uint8Array;
}

/** One row of `checkpoint_writes`: what a task wrote while the next checkpoint was not there yet. */
export interface WriteRow {
  threadId: string;
  namespace: string;
  checkpointId: string;
  taskId: string;
  idx: number;
  channel: string;
  type: string;
  bytes: Uint8Array;
  taskPath: string;
  /** Whether a row that is there already is replaced (interrupts, errors, resumes) or kept (results). */
  replaces: boolean;
}

/** What one `put` or `putWrites` adds to the database: all of it, or nothing. */
export interface SaveRows {
  checkpoints: CheckpointRow[];
  blobs: BlobRow[];
  writes: WriteRow[];
  /** Size of the values, to bound a statement; keys are small and not counted. */
  byteCount: number;
}

export interface CheckpointAddress {
  threadId: string;
  namespace: string;
  checkpointId: string | undefined;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** The rows of one checkpoint. Serialisation starts before the first `await`, so later changes are not seen. */
export async function toCheckpointRows(
  serde: SerializerProtocol,
  parent: CheckpointAddress,
  save: { checkpoint: Checkpoint; metadata: CheckpointMetadata; newVersions: ChannelVersions },
): Promise<SaveRows> {
  const { threadId, namespace } = parent;
  const { channel_values: values, ...document } = save.checkpoint;
  const checkpoint = encoder.encode(toJsonbText(JSON.stringify(document)));
  const metadataDump = serde.dumpsTyped(save.metadata);
  // A channel that has no value at its new version needs no row: readers join versions to rows.
  const dumps = Object.entries(save.newVersions)
    .filter(([channel]) => Object.hasOwn(values, channel))
    .map(async ([channel, version]): Promise<BlobRow> => {
      const [type, bytes] = await serde.dumpsTyped(values[channel]);
      return { threadId, namespace, channel, version: String(version), type, bytes };
    });
  const blobs = await Promise.all(dumps);
  const metadata = encoder.encode(toJsonbText(decoder.decode((await metadataDump)[1])));
  return {
    checkpoints: [
      {
        threadId,
        namespace,
        checkpointId: save.checkpoint.id,
        parentId: parent.checkpointId ?? null,
        checkpoint,
        metadata,
      },
    ],
    blobs,
    writes: [],
    byteCount: countBytes(blobs) + checkpoint.byteLength + metadata.byteLength,
  };
}

/** The rows of one task's writes. Serialisation starts before the first `await`. */
export async function toWriteRows(
  serde: SerializerProtocol,
  checkpoint: CheckpointAddress & { checkpointId: string },
  save: { writes: readonly PendingWrite[]; taskId: string; taskPath: string },
): Promise<SaveRows> {
  const replaces = save.writes.every(([channel]) => channel in WRITES_IDX_MAP);
  const writes = await Promise.all(
    save.writes.map(async ([channel, value], index): Promise<WriteRow> => {
      const [type, bytes] = await serde.dumpsTyped(value);
      return {
        ...checkpoint,
        taskId: save.taskId,
        idx: WRITES_IDX_MAP[channel] ?? index,
        channel,
        type,
        bytes,
        taskPath: save.taskPath,
        replaces,
      };
    }),
  );
  return { checkpoints: [], blobs: [], writes, byteCount: countBytes(writes) };
}

/**
 * One set of rows out of several saves, in their order, in which no row appears twice: PostgreSQL refuses
 * to touch a row twice in one statement. The result is what the saves would leave one after another.
 */
export function mergeRows(saves: readonly SaveRows[]): SaveRows {
  const checkpoints = new Map<string, CheckpointRow>();
  const blobs = new Map<string, BlobRow>();
  const writes = new Map<string, WriteRow>();
  let byteCount = 0;
  for (const save of saves) {
    for (const row of save.checkpoints) {
      checkpoints.set(toKey(row.threadId, row.namespace, row.checkpointId), row);
    }
    for (const row of save.blobs) {
      const key = toKey(row.threadId, row.namespace, row.channel, row.version);
      if (!blobs.has(key)) blobs.set(key, row);
    }
    for (const row of save.writes) {
      const key = toKey(row.threadId, row.namespace, row.checkpointId, row.taskId, String(row.idx));
      if (row.replaces || !writes.has(key)) writes.set(key, row);
    }
    byteCount += save.byteCount;
  }
  return {
    checkpoints: [...checkpoints.values()],
    blobs: [...blobs.values()],
    writes: [...writes.values()],
    byteCount,
  };
}

/**
 * JSON text that `jsonb` accepts: without NUL characters, which it cannot hold, and with U+FFFD in place of
 * lone surrogates. Only escapes are looked at: `JSON.stringify` writes both of them as escapes.
 */
export function toJsonbText(json: string): string {
  if (!/\\u(?:0000|[dD][89a-fA-F])/.test(json)) return json;
  return json.replace(
    /\\(?:u0000|u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|u[dD][89a-fA-F][\da-fA-F]{2}|.)/g,
    (escape) => {
      if (escape === "\\u0000") return "";
      return escape.length === 6 && /^\\u[dD][89a-fA-F]/.test(escape) ? "\\ufffd" : escape;
    },
  );
}

function countBytes(rows: readonly { bytes: Uint8Array }[]): number {
  return rows.reduce((sum, row) => sum + row.bytes.byteLength, 0);
}

/** Lengths make the key unambiguous whatever characters its parts hold. */
function toKey(...parts: string[]): string {
  return parts.map((part) => `${part.length}:${part}`).join();
}
