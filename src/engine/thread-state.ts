import type { StateSnapshot } from "@langchain/langgraph";
import type {
  StateCheckpoint,
  StateSelect,
  KnownCheckpoint,
  ThreadState,
  ThreadTask,
} from "../protocol/threads.ts";

/** The place in a thread's history that a LangGraph config names; `null` if it names none. */
export function toStateCheckpoint(config: unknown): StateCheckpoint | null {
  const checkpoint = toKnownCheckpoint(config);
  return checkpoint && { checkpoint_id: null, checkpoint_map: null, ...checkpoint };
}

/** The same, without what the config does not say: a task need not name the checkpoint its state is at. */
export function toKnownCheckpoint(config: unknown): KnownCheckpoint | null {
  if (typeof config !== "object" || config === null) return null;
  const { configurable } = config as { configurable?: Record<string, unknown> };
  if (typeof configurable?.["thread_id"] !== "string") return null;
  const { thread_id, checkpoint_id: id, checkpoint_ns: ns, checkpoint_map: map } = configurable;
  return {
    thread_id,
    ...(typeof id === "string" && { checkpoint_id: id }),
    checkpoint_ns: typeof ns === "string" ? ns : "",
    ...(typeof map === "object" &&
      map !== null && { checkpoint_map: map as Record<string, unknown> }),
  };
}

/** A LangGraph snapshot as the API shows it. */
export function toThreadState(snapshot: StateSnapshot): ThreadState {
  const tasks = snapshot.tasks.map(toThreadTask);
  return {
    values: snapshot.values ?? {},
    next: [...snapshot.next],
    tasks,
    metadata: toPublicMetadata(snapshot.metadata),
    created_at: snapshot.createdAt ?? null,
    // LangGraph names the thread even where it has no checkpoint yet.
    checkpoint: snapshot.createdAt === undefined ? null : toStateCheckpoint(snapshot.config),
    parent_checkpoint: toStateCheckpoint(snapshot.parentConfig),
    interrupts: Object.values(pendingInterrupts(snapshot)).flat(),
  };
}

function toThreadTask(task: StateSnapshot["tasks"][number]): ThreadTask {
  const state = task.state;
  const nested = state !== undefined && "values" in state && "next" in state;
  return {
    id: task.id,
    name: task.name,
    path: task.path,
    error: task.error === undefined || task.error === null ? null : toMessage(task.error),
    interrupts: task.interrupts,
    checkpoint: toKnownCheckpoint(nested ? state.config : state),
    state: nested ? toThreadState(state) : null,
    result: resultOf(task),
  };
}

/** What a task wrote before the step it belongs to was over. */
function resultOf(task: StateSnapshot["tasks"][number]): unknown {
  return (task as { result?: unknown }).result ?? null;
}

/** What went wrong in a task; LangGraph keeps an error as it was thrown, or as `{name, message}`. */
function toMessage(error: unknown): string {
  if (typeof error === "object" && error !== null && "message" in error)
    return String(error.message);
  return typeof error === "string" ? error : JSON.stringify(error);
}

function toPublicMetadata(metadata: StateSnapshot["metadata"]): unknown {
  if (!metadata) return null;
  const { checkpoint_ns: namespace, ...rest } = metadata as Record<string, unknown>;
  return namespace === undefined || namespace === "" ? rest : metadata;
}

/** The state of a thread that has no checkpoint yet. */
export function emptyThreadState(): ThreadState {
  return {
    values: {},
    next: [],
    tasks: [],
    metadata: null,
    created_at: null,
    checkpoint: null,
    parent_checkpoint: null,
    interrupts: [],
  };
}

/** Only the fields a client asked for; `values.<key>` asks for single keys of the values. */
export function selectFields(state: ThreadState, select: StateSelect): Partial<ThreadState> {
  if (!select || select.length === 0) return state;
  const chosen: Record<string, unknown> = {};
  const keys = select.filter((field) => field.startsWith("values.")).map((field) => field.slice(7));
  for (const field of select) {
    if (!field.startsWith("values.")) chosen[field] = state[field as keyof ThreadState];
  }
  if (keys.length > 0 && !select.includes("values")) {
    const values = (state.values ?? {}) as Record<string, unknown>;
    chosen["values"] = Object.fromEntries(
      keys.filter((key) => key in values).map((key) => [key, values[key]]),
    );
  }
  return chosen;
}

/**
 * The pending interrupts of a state by task, as a thread keeps them. A task that was answered while another
 * one still waits has a result already, and LangGraph goes on showing its question.
 */
export function pendingInterrupts(snapshot: StateSnapshot): Record<string, unknown[]> {
  return Object.fromEntries(
    snapshot.tasks
      .filter((task) => task.interrupts.length > 0 && resultOf(task) === null)
      .map((task) => [task.id, task.interrupts]),
  );
}
