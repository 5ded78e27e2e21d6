import type { StateSnapshot } from "@langchain/langgraph";
import type { BaseStore } from "@langchain/langgraph-checkpoint";
import { ServerError } from "../errors.ts";
import type { CompiledGraph } from "../graphs/compiled.ts";
import type { GraphAccess, GraphRegistry } from "../graphs/registry.ts";
import type { Checkpoint, Metadata } from "../protocol/common.ts";
import type { Filter } from "../protocol/filters.ts";
import type {
  HistoryRequest,
  StateUpdate,
  Superstep,
  Thread,
  ThreadState,
} from "../protocol/threads.ts";
import type { PruneStrategy } from "../protocol/thread-ttl.ts";
import type { Checkpoints } from "../storage/checkpoints.ts";
import type {
  StateWriter,
  ThreadSnapshot,
  ThreadStateRepository,
} from "../storage/thread-state.ts";
import type { ThreadRepository } from "../storage/threads.ts";
import { toCommand } from "./run-config.ts";
import type { RunEngine } from "./runs.ts";
import {
  emptyThreadState,
  pendingInterrupts,
  toKnownCheckpoint,
  toThreadState,
} from "./thread-state.ts";

/** How long a client's write may take; a run that is created meanwhile waits for it. */
const HOLD_MS = 30_000;
/** How long a client's write waits for another one on the same thread, and how often it looks. */
const WAIT_MS = 5_000;
const LOOK_MS = 20;

export interface ThreadStatesOptions {
  threads: ThreadRepository;
  states: ThreadStateRepository;
  checkpoints: Checkpoints;
  store: BaseStore;
  graphs: () => GraphRegistry;
  runs: RunEngine;
}

/** The state and history of threads, read and written through the graph that made them. */
export class ThreadStates {
  readonly #options: ThreadStatesOptions;

  constructor(options: ThreadStatesOptions) {
    this.#options = options;
  }

  /** The state at a checkpoint, or the latest; empty for a thread that no graph has run on. */
  async read(
    thread: Thread,
    checkpoint: Checkpoint | undefined,
    options: { subgraphs: boolean },
  ): Promise<ThreadState> {
    const graph = await this.#graphOf(thread, "threads.read");
    if (!graph) return emptyThreadState();
    const snapshot = await graph.getState(toConfig(thread, checkpoint), options);
    if (checkpoint?.checkpoint_id && !snapshot.createdAt) {
      throw new ServerError(
        "not_found",
        `Checkpoint ${checkpoint.checkpoint_id} not found in thread ${thread.thread_id}`,
      );
    }
    return toThreadState(snapshot);
  }

  /** Past states, newest first. */
  async history(thread: Thread, request: HistoryRequest): Promise<ThreadState[]> {
    const graph = await this.#graphOf(thread, "threads.read");
    if (!graph) return [];
    const config = toConfig(thread, { checkpoint_ns: "", ...request.checkpoint });
    const states: ThreadState[] = [];
    const before = toBefore(request.before);
    const snapshots = graph.getStateHistory(config, {
      limit: request.limit,
      ...(before && { before }),
      ...(request.metadata && { filter: request.metadata }),
    });
    for await (const snapshot of snapshots) states.push(toThreadState(snapshot));
    return states;
  }

  /**
   * Writes values as if a node had, on top of a checkpoint or the latest one. Throws `conflict` while a run
   * is active on the thread, and `invalid_request` for what the graph refuses.
   */
  async update(
    thread: Thread,
    update: StateUpdate,
  ): Promise<{ checkpoint: Record<string, unknown> }> {
    const place = { ...update.checkpoint };
    if (update.checkpoint_id) place.checkpoint_id = update.checkpoint_id;
    const config = toConfig(thread, { checkpoint_ns: "", ...place });
    const written = await this.#write(thread, (graph) =>
      graph.updateState(config, update.values ?? null, update.as_node),
    );
    return { checkpoint: { ...toKnownCheckpoint(written) } };
  }

  /** Writes what nodes would have in several steps, on a new thread. Throws as `update` does. */
  async apply(thread: Thread, supersteps: readonly Superstep[]): Promise<void> {
    const steps = supersteps.map(({ updates }) => ({
      updates: updates.map(({ values, command, as_node: asNode }) => ({
        values: (command ? toCommand(command) : (values ?? null)) as Record<string, unknown> | null,
        asNode,
      })),
    }));
    const config = toConfig(thread, { checkpoint_ns: "" });
    await this.#write(thread, (graph) => graph.bulkUpdateState(config, steps));
  }

  /** Merges into the metadata of the latest state. Throws `conflict`, and `not_found` if there is no state. */
  async patch(thread: Thread, metadata: Metadata): Promise<void> {
    const { states } = this.#options;
    const writer = await this.#hold(thread.thread_id);
    try {
      if (await states.patchMetadata(writer, metadata)) return;
      throw new ServerError("not_found", `Thread ${thread.thread_id} has no state to patch`);
    } finally {
      await this.#release(writer, undefined);
    }
  }

  /**
   * Deletes threads, or only their history but for the latest state; gives how many. A thread with an active
   * run keeps its history, and one that does not pass its filter is left alone.
   */
  async prune(
    threads: readonly { thread_id: string; filter: Filter | undefined }[],
    strategy: PruneStrategy,
  ): Promise<number> {
    let count = 0;
    for (const { thread_id: threadId, filter } of threads) {
      const pruned =
        strategy === "delete"
          ? await this.delete(threadId, filter)
          : await this.#keepLatest(threadId, filter);
      if (pruned) count += 1;
    }
    return count;
  }

  async #keepLatest(threadId: string, filter: Filter | undefined): Promise<boolean> {
    const { states, threads } = this.#options;
    if (filter && !(await threads.get(threadId, filter))) return false;
    const writer = await states.hold(threadId, HOLD_MS);
    if (writer === undefined || writer === "busy" || writer === "held") return false;
    try {
      return await states.prune(writer);
    } finally {
      await this.#release(writer, undefined);
    }
  }

  /**
   * Copies a thread with its history, inside the database, under this id and with this metadata; the copy has
   * no runs.
   */
  async copy(threadId: string, id: string, metadata: Metadata): Promise<Thread | undefined> {
    const { states, threads } = this.#options;
    const copied = await states.copy(threadId, id, metadata);
    if (!copied?.active) return copied?.thread;
    // The history has what the run under way has saved so far; the values are still those before it.
    await this.#write(copied.thread, async () => {}).catch((error: unknown) => {
      // A graph that is gone cannot tell its state; the copy keeps the original's values.
      if (!(error instanceof ServerError)) throw error;
    });
    return threads.get(id, undefined);
  }

  /** Deletes a thread with everything on it, after stopping its runs; false if there is none that passes. */
  async delete(threadId: string, filter: Filter | undefined): Promise<boolean> {
    if (filter && !(await this.#options.threads.get(threadId, filter))) return false;
    await this.#options.runs.stopThread(threadId);
    const deleted = await this.#options.threads.delete(threadId, filter);
    // What a run was still saving when its thread went.
    if (deleted) await this.#options.checkpoints.deleteThread(threadId);
    return deleted;
  }

  /** Has the graph of a thread change its state, while no run may start on it. */
  async #write<T>(thread: Thread, work: (graph: CompiledGraph) => Promise<T>): Promise<T> {
    const writer = await this.#hold(thread.thread_id);
    let snapshot: ThreadSnapshot | undefined;
    let answer: T;
    try {
      const graph = await this.#graphOf(thread, "threads.update", writer);
      if (!graph) {
        throw new ServerError(
          "invalid_request",
          `Thread ${thread.thread_id} has no graph ID. Run a graph on it, or create it with metadata.graph_id.`,
        );
      }
      answer = await work(graph);
      snapshot = toSnapshot(await graph.getState(toConfig(thread, undefined)));
    } catch (cause) {
      if (cause instanceof Error && cause.name === "InvalidUpdateError") {
        throw new ServerError("invalid_request", cause.message, { cause });
      }
      throw cause;
    } finally {
      await this.#release(writer, snapshot);
    }
    return answer;
  }

  /** Takes a thread for a write, after another one if there is one. Throws `conflict` and `not_found`. */
  async #hold(threadId: string): Promise<StateWriter> {
    for (let waited = 0; ; waited += LOOK_MS) {
      const hold = await this.#options.states.hold(threadId, HOLD_MS);
      if (hold === undefined) {
        throw new ServerError("not_found", `Thread with ID ${threadId} not found`);
      }
      if (typeof hold === "object") return hold;
      if (hold === "busy" || waited >= WAIT_MS) {
        throw new ServerError(
          "conflict",
          hold === "busy"
            ? "Thread is busy with a run. Wait for it to end, or cancel it."
            : "Thread is busy with another update of its state. Try again.",
        );
      }
      await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    }
  }

  async #release(writer: StateWriter, snapshot: ThreadSnapshot | undefined): Promise<void> {
    const waiting = await this.#options.states.release(writer, snapshot);
    if (waiting) this.#options.runs.wake();
    if (waiting !== undefined || !snapshot) return;
    throw new ServerError(
      "conflict",
      `The update of thread ${writer.threadId} took longer than ${HOLD_MS / 1_000} s, or the thread was deleted meanwhile.`,
    );
  }

  async #graphOf(
    thread: Thread,
    access: GraphAccess,
    guard?: StateWriter,
  ): Promise<CompiledGraph | undefined> {
    const graphId = thread.metadata["graph_id"];
    if (typeof graphId !== "string") return undefined;
    const config = thread.config as { configurable?: Record<string, unknown> };
    return this.#options.graphs().bind(graphId, {
      config: { ...config, configurable: { ...config.configurable, thread_id: thread.thread_id } },
      access,
      checkpointer: this.#options.checkpoints.forRun({
        threadId: thread.thread_id,
        metadata: { graph_id: graphId },
        ...(guard && { guard }),
      }),
      store: this.#options.store,
    });
  }
}

function toSnapshot(snapshot: StateSnapshot): ThreadSnapshot {
  return {
    values: snapshot.values,
    interrupts: pendingInterrupts(snapshot),
    // As after a run: a thread with a node to go on with waits for somebody.
    interrupted: snapshot.next.length > 0,
  };
}

function toConfig(
  thread: Thread,
  checkpoint: Checkpoint | undefined,
): { configurable: Record<string, unknown> } {
  const place = Object.entries(checkpoint ?? {}).filter(
    ([key, value]) => key !== "thread_id" && value !== null && value !== undefined,
  );
  return { configurable: { ...Object.fromEntries(place), thread_id: thread.thread_id } };
}

/** The client may name a checkpoint by its id, as a checkpoint, or inside a config. */
function toBefore(
  before: HistoryRequest["before"],
): { configurable: Record<string, unknown> } | undefined {
  if (before === undefined) return undefined;
  if (typeof before === "string") return { configurable: { checkpoint_id: before } };
  const config = (before["configurable"] ?? before) as Record<string, unknown>;
  return { configurable: { checkpoint_id: config["checkpoint_id"] } };
}
