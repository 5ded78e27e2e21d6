import type { BaseCheckpointSaver, BaseStore } from "@langchain/langgraph-checkpoint";
import type { BaseChannel, Pregel, PregelNode } from "@langchain/langgraph/web";

/** A graph that can run, whatever its state looks like. */
export type CompiledGraph = Pregel<Record<string, PregelNode>, Record<string, BaseChannel>>;

/** What a run brings along; both replace what the graph was compiled with. */
export interface GraphResources {
  /** `undefined` runs without checkpoints. */
  checkpointer: BaseCheckpointSaver | undefined;
  store: BaseStore | undefined;
}

/** Whether `value` is a compiled graph. Asks for the shape, because a project may carry a second LangGraph. */
export function isCompiledGraph(value: unknown): value is CompiledGraph {
  return (
    isObject(value) &&
    value["lg_is_pregel"] === true &&
    isObject(value["nodes"]) &&
    isObject(value["channels"]) &&
    typeof value["stream"] === "function"
  );
}

/**
 * The compiled graph in `value`: itself, a builder (compiled here), or the one inside the wrapper that
 * LangChain's `createAgent` returns. `undefined` if there is none. Rejects with what `compile` throws.
 */
export async function toCompiledGraph(value: unknown): Promise<CompiledGraph | undefined> {
  const settled: unknown = await value;
  if (isCompiledGraph(settled)) return settled;
  if (!isObject(settled)) return undefined;
  // The agent wrapper looks like a builder too, so its graph is looked for first.
  if (isCompiledGraph(settled["graph"])) return settled["graph"];
  if (typeof settled["compile"] !== "function") return undefined;
  const compiled: unknown = await (settled["compile"] as () => unknown).call(settled);
  return isCompiledGraph(compiled) ? compiled : undefined;
}

/**
 * A copy of `graph` with its own checkpointer and store; nodes and channel definitions are shared, they hold
 * no state of a run.
 *
 * The copy is made by the graph's own constructor, as LangGraph's `withConfig` does: `streamEvents` uses a
 * `#private` method, which an object made by `Object.create` does not have. Unlike `withConfig` it does not
 * validate again, because validating appends to `triggerToNodes`, which the copy shares, on every call; and
 * it takes a new `channels` object, because the constructor writes to it.
 */
export function copyGraph(graph: CompiledGraph, resources: GraphResources): CompiledGraph {
  const fields: Record<string, unknown> = Object.fromEntries(Object.entries(graph));
  // What the base class keeps of its constructor arguments: the original graph's fields a second time.
  delete fields["lc_kwargs"];
  const construct = graph.constructor as new (fields: Record<string, unknown>) => CompiledGraph;
  const copy = new construct({
    ...fields,
    channels: { ...graph.channels },
    checkpointer: resources.checkpointer,
    store: resources.store,
    autoValidate: false,
  });
  // Own properties that no constructor takes, such as a method an instrumentation has replaced.
  for (const [key, value] of Object.entries(fields)) {
    if (!Object.hasOwn(copy, key)) Reflect.set(copy, key, value);
  }
  return copy;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null;
}
