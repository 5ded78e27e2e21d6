import type { BaseStore } from "@langchain/langgraph-checkpoint";
import { ServerError } from "../errors.ts";
import type { CompiledGraph } from "../graphs/compiled.ts";
import type { GraphAccess, GraphRegistry } from "../graphs/registry.ts";
import type { Checkpoint, Metadata } from "../protocol/common.ts";
import type { Filter } from "../protocol/filters.ts";
import type { HistoryRequest, StateUpdate, Thread, ThreadState } from "../protocol/threads.ts";
import type { Checkpoints } from "../storage/checkpoints.ts";
import type { ThreadRepository } from "../storage/threads.ts";
import type { RunEngine } from "./runs.ts";
import {
  emptyThreadState,
  pendingInterrupts,
  toStateCheckpoint,
  toThreadState,
} from "./thread-state.ts";

export interface ThreadStatesOptions {
  threads: ThreadRepository;
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
    if (thread.status === "busy") {
      throw new ServerError(
        "conflict",
        "Thread is busy with a run. Wait for it to end, or cancel it.",
      );
    }
    const graph = await this.#graphOf(thread, "threads.update");
    if (!graph) {
      throw new ServerError(
        "invalid_request",
        `Thread ${thread.thread_id} has no graph ID. Run a graph on it, or create it with metadata.graph_id.`,
      );
    }
    const place = { ...update.checkpoint };
    if (update.checkpoint_id) place.checkpoint_id = update.checkpoint_id;
    let written;
    try {
      written = await graph.updateState(
        toConfig(thread, { checkpoint_ns: "", ...place }),
        update.values ?? null,
        update.as_node,
      );
    } catch (cause) {
      if (cause instanceof Error && cause.name === "InvalidUpdateError") {
        throw new ServerError("invalid_request", cause.message, { cause });
      }
      throw cause;
    }
    await this.#save(thread, graph);
    return { checkpoint: { ...toStateCheckpoint(written) } };
  }

  /**
   * Copies a thread with its history, inside the database, under this id and with this metadata; the copy has
   * no runs.
   */
  async copy(threadId: string, id: string, metadata: Metadata): Promise<Thread | undefined> {
    // The history first, so that the thread is there only when it is whole.
    await this.#options.checkpoints.copyThread(threadId, id);
    const copy = await this.#options.threads.copy(threadId, id, metadata);
    if (!copy) await this.#options.checkpoints.deleteThread(id);
    return copy;
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

  async #save(thread: Thread, graph: CompiledGraph): Promise<void> {
    const snapshot = await graph.getState(toConfig(thread, undefined));
    await this.#options.threads.saveState(thread.thread_id, {
      values: snapshot.values,
      interrupts: pendingInterrupts(snapshot),
      // As after a run: a thread with a node to go on with waits for somebody.
      interrupted: snapshot.next.length > 0,
    });
  }

  async #graphOf(thread: Thread, access: GraphAccess): Promise<CompiledGraph | undefined> {
    const graphId = thread.metadata["graph_id"];
    if (typeof graphId !== "string") return undefined;
    const config = thread.config as { configurable?: Record<string, unknown> };
    return this.#options.graphs().bind(graphId, {
      config: { ...config, configurable: { ...config.configurable, thread_id: thread.thread_id } },
      access,
      checkpointer: this.#options.checkpoints.forRun({
        threadId: thread.thread_id,
        metadata: { graph_id: graphId },
      }),
      store: this.#options.store,
    });
  }
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
