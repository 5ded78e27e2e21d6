import type { RunnableConfig } from "@langchain/core/runnables";
import { BaseCheckpointSaver, WRITES_IDX_MAP } from "@langchain/langgraph-checkpoint";
import type {
  ChannelVersions,
  Checkpoint,
  CheckpointListOptions,
  CheckpointMetadata,
  CheckpointPendingWrite,
  CheckpointTuple,
  DeltaChannelHistory,
  PendingWrite,
} from "@langchain/langgraph-checkpoint";
import type { GroupCommitter, Writer } from "./checkpoint-committer.ts";
import { readDeltaHistory } from "./checkpoint-deltas.ts";
import { readTuples } from "./checkpoint-reads.ts";
import type { CheckpointQuery } from "./checkpoint-reads.ts";
import { toCheckpointRows, toWriteRows } from "./checkpoint-rows.ts";
import type { CheckpointAddress, SaveRows } from "./checkpoint-rows.ts";
import type { SaveGuard } from "./checkpoint-statement.ts";
import { deleteThread } from "./checkpoint-threads.ts";
import type { Queryable } from "./database.ts";
import { createPersistentReader } from "./persistence.ts";

export interface RunSaverOptions {
  /** The run's own thread; `last` and `onCheckpoint` are about it alone. Without one, about any thread. */
  threadId?: string;
  /** Says that `threadId` has no checkpoints yet, which saves the query that would find none. */
  assumeEmpty?: boolean;
  /**
   * When `put` and `putWrites` resolve. "committed" (the default): when the rows are. "queued": at once,
   * so that LangGraph, which waits for a checkpoint before it hands over the next, never waits for the
   * database; only for runs with durability "async", and whoever reports such a run's end awaits
   * `settled` first.
   */
  resolve?: "committed" | "queued";
  /** Kept with each checkpoint, under LangGraph's own keys: whose run it is, for history and recovery. */
  metadata?: Readonly<Record<string, unknown>>;
  /** Refuses the rows once the run or the writer does not hold its thread any more, with `conflict`. */
  guard?: SaveGuard;
  /** Awaited before rows are committed, for what must be stored before them. Never rejects. */
  before?: () => Promise<void>;
  /** Called with each checkpoint of the run's root graph, when it is given to the saver. */
  onCheckpoint?: (
    config: RunnableConfig,
    checkpoint: Checkpoint,
    metadata: CheckpointMetadata,
  ) => void;
}

/** Bytes a run may have waiting before "queued" waits like "committed". */
const MAX_QUEUED_BYTES = 8 * 1024 * 1024;
/** Distinguishes the versions that branches of a thread give a channel; see `getNextVersion`. */
const VERSION_FRACTIONS = 1e9;

/**
 * LangGraph's saver as one run uses it: a light view of the shared committer, made per run and dropped
 * with it. It holds no connection and needs no closing.
 *
 * Usable; after one of its saves failed, broken: every later save rejects with the same error, because a
 * checkpoint whose predecessors are missing cannot be read back whole.
 */
export class RunCheckpointSaver extends BaseCheckpointSaver {
  readonly #database: Queryable;
  readonly #committer: GroupCommitter;
  readonly #options: RunSaverOptions;
  readonly #writer: Writer;
  /** Ids of the checkpoints of this run, and the namespaces they are in. */
  readonly #checkpointIds = new Set<string>();
  readonly #namespaces = new Set<string>();
  #last: CheckpointTuple | undefined;
  /** The writes to the last checkpoint, and to those that are still to be put. */
  readonly #rootWrites = new Map<string, CheckpointPendingWrite[]>();
  #queuedBytes = 0;
  #pending: Promise<void> = Promise.resolve();

  constructor(database: Queryable, committer: GroupCommitter, options: RunSaverOptions) {
    super();
    // Saves go through the committer, so all that is done here is reading.
    this.#database = createPersistentReader(database);
    this.#committer = committer;
    this.#options = options;
    this.#writer = { guard: options.guard, before: options.before, failure: undefined };
  }

  /**
   * The newest state of the run's root graph that passed through here: the last checkpoint given to `put`,
   * or read by the run when it began, with the writes to it since. Its values are the graph's own objects:
   * read them, do not change them.
   */
  get last(): CheckpointTuple | undefined {
    if (!this.#last) return undefined;
    return { ...this.#last, pendingWrites: this.#rootWrites.get(this.#lastId()) ?? [] };
  }

  /** Resolves when all that was given to this saver is committed. @throws what any save failed with. */
  async settled(): Promise<void> {
    await this.#pending;
    if (this.#writer.failure) throw this.#writer.failure;
  }

  override async getTuple(config: RunnableConfig): Promise<CheckpointTuple | undefined> {
    const { threadId, namespace, checkpointId } = toAddress(config);
    if (threadId === undefined) return undefined;
    if (checkpointId === undefined && this.#isKnownEmpty(threadId, namespace, config))
      return undefined;
    const query: CheckpointQuery = { threadId, namespace, checkpointId, limit: 1 };
    for await (const tuple of this.#read(query)) {
      if (checkpointId === undefined && this.#isRoot(threadId, namespace)) {
        this.#last = tuple;
        this.#rootWrites.set(this.#lastId(), tuple.pendingWrites ?? []);
      }
      return tuple;
    }
    return undefined;
  }

  override async *list(
    config: RunnableConfig,
    options: CheckpointListOptions = {},
  ): AsyncGenerator<CheckpointTuple> {
    const { threadId, checkpointId } = toAddress(config);
    const namespace: unknown = config.configurable?.["checkpoint_ns"];
    yield* this.#read({
      threadId,
      namespace: typeof namespace === "string" ? namespace : undefined,
      checkpointId,
      filter: options.filter,
      beforeId: options.before && toAddress(options.before).checkpointId,
      limit: options.limit,
    });
  }

  override async put(
    config: RunnableConfig,
    checkpoint: Checkpoint,
    ownMetadata: CheckpointMetadata,
    newVersions: ChannelVersions,
  ): Promise<RunnableConfig> {
    const metadata = { ...this.#options.metadata, ...ownMetadata };
    const parent = toAddress(config);
    const { threadId, namespace } = parent;
    if (threadId === undefined) throw new Error(missing("thread_id"));
    this.#checkpointIds.add(checkpoint.id);
    this.#namespaces.add(namespace);
    const saved: RunnableConfig = {
      configurable: { thread_id: threadId, checkpoint_ns: namespace, checkpoint_id: checkpoint.id },
    };
    if (this.#isRoot(threadId, namespace)) {
      this.#rootWrites.delete(this.#lastId());
      this.#last = { config: saved, checkpoint, metadata };
      if (parent.checkpointId !== undefined) this.#last.parentConfig = config;
      this.#options.onCheckpoint?.(saved, checkpoint, metadata);
    }
    const rows = toCheckpointRows(
      this.serde,
      { ...parent, threadId },
      { checkpoint, metadata, newVersions },
    );
    await this.#save(threadId, rows);
    return saved;
  }

  override async putWrites(
    config: RunnableConfig,
    writes: PendingWrite[],
    taskId: string,
    taskPath = "",
  ): Promise<void> {
    const { threadId, namespace, checkpointId } = toAddress(config);
    if (threadId === undefined) throw new Error(missing("thread_id"));
    if (checkpointId === undefined) throw new Error(missing("checkpoint_id"));
    if (this.#isRoot(threadId, namespace)) this.#keepRootWrites(checkpointId, writes, taskId);
    const rows = toWriteRows(
      this.serde,
      { threadId, namespace, checkpointId },
      { writes, taskId, taskPath },
    );
    await this.#save(threadId, rows);
  }

  override async getDeltaChannelHistory({
    config,
    channels,
  }: {
    config: RunnableConfig;
    channels: string[];
  }): Promise<Record<string, DeltaChannelHistory>> {
    const { threadId, ...address } = toAddress(config);
    if (threadId === undefined || channels.length === 0) {
      return Object.fromEntries(channels.map((channel) => [channel, { writes: [] }]));
    }
    await this.#committer.settled(threadId);
    return readDeltaHistory(this.#database, this.serde, {
      address: { ...address, threadId },
      channels,
    });
  }

  override async deleteThread(threadId: string): Promise<void> {
    await this.#committer.settled(threadId);
    await deleteThread(this.#database, threadId);
  }

  /**
   * The next whole number plus a random fraction. Versions are the keys of a channel's values, so two
   * branches of a thread must not give a channel the same one: with plain numbers, as in PostgresSaver,
   * a run from an older checkpoint reads the values of the branch before it. They stay numbers, so they
   * compare with the versions of threads that PostgresSaver wrote.
   */
  override getNextVersion(current: number | undefined): number {
    return (
      Math.floor(current ?? 0) +
      1 +
      Math.floor(Math.random() * VERSION_FRACTIONS) / VERSION_FRACTIONS
    );
  }

  async #save(threadId: string, rows: Promise<SaveRows>): Promise<void> {
    if (this.#writer.failure) {
      rows.catch(noop);
      throw this.#writer.failure;
    }
    const saved = this.#committer.add(this.#writer, threadId, rows);
    const before = this.#pending;
    this.#pending = saved.catch(noop).then(() => before);
    if (this.#options.resolve !== "queued") return saved;
    const { byteCount } = await rows;
    if (this.#queuedBytes + byteCount > MAX_QUEUED_BYTES) return saved;
    this.#queuedBytes += byteCount;
    void saved.catch(noop).finally(() => {
      this.#queuedBytes -= byteCount;
    });
  }

  async *#read(query: CheckpointQuery): AsyncGenerator<CheckpointTuple> {
    await this.#committer.settled(query.threadId);
    yield* readTuples(this.#database, this.serde, query);
  }

  #isRoot(threadId: string, namespace: string): boolean {
    return namespace === "" && (this.#options.threadId ?? threadId) === threadId;
  }

  /**
   * Whether nothing can be stored there: the thread is new and this run has not written to the namespace,
   * or the namespace is that of a task (`node:task id`) of a checkpoint this run is known to have made
   * itself. With "committed" LangGraph often hands that checkpoint over too late for this to help.
   */
  #isKnownEmpty(threadId: string, namespace: string, config: RunnableConfig): boolean {
    if (this.#options.threadId !== threadId || this.#namespaces.has(namespace)) return false;
    if (this.#options.assumeEmpty) return true;
    const end = namespace.lastIndexOf("|");
    if (!namespace.slice(end + 1).includes(":")) return false;
    const map: unknown = config.configurable?.["checkpoint_map"];
    const parentId: unknown = isRecord(map)
      ? map[end < 0 ? "" : namespace.slice(0, end)]
      : undefined;
    return typeof parentId === "string" && this.#checkpointIds.has(parentId);
  }

  /** LangGraph may hand over the writes to a checkpoint before the checkpoint itself. */
  #keepRootWrites(checkpointId: string, writes: readonly PendingWrite[], taskId: string): void {
    const replaces = writes.every(([channel]) => channel in WRITES_IDX_MAP);
    const added = writes.map(([channel, value]): CheckpointPendingWrite => [
      taskId,
      channel,
      value,
    ]);
    const kept = (this.#rootWrites.get(checkpointId) ?? []).filter(
      (write) =>
        !replaces || !added.some(([id, channel]) => id === write[0] && channel === write[1]),
    );
    this.#rootWrites.set(checkpointId, [...kept, ...added]);
  }

  #lastId(): string {
    return String(this.#last?.config.configurable?.["checkpoint_id"]);
  }
}

function toAddress(
  config: RunnableConfig,
): Omit<CheckpointAddress, "threadId"> & { threadId: string | undefined } {
  const { thread_id, checkpoint_ns, checkpoint_id }: Record<string, unknown> =
    config.configurable ?? {};
  return {
    threadId: toId(thread_id),
    namespace: typeof checkpoint_ns === "string" ? checkpoint_ns : "",
    checkpointId: toId(checkpoint_id),
  };
}

function toId(value: unknown): string | undefined {
  if (typeof value === "number") return String(value);
  return typeof value === "string" && value !== "" ? value : undefined;
}

function missing(key: string): string {
  return `A checkpoint cannot be saved without "${key}" in the config's "configurable".`;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}

function noop(): void {}
