import type { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import type { Callbacks } from "@langchain/core/callbacks/manager";

/** The name of the official Langfuse handler, whatever copy of its package it comes from. */
const LANGFUSE_HANDLER = "LangfuseCallbackHandler";

/**
 * `callbacks` without Langfuse handlers of the application's own, which would send every observation a second time.
 * The input is not changed; `removed` says how many there were.
 */
export function withoutLangfuseHandlers(callbacks: Callbacks | undefined): {
  callbacks: Callbacks | undefined;
  removed: number;
} {
  if (callbacks === undefined) return { callbacks, removed: 0 };
  if (Array.isArray(callbacks)) {
    const kept = callbacks.filter((handler) => nameOf(handler) !== LANGFUSE_HANDLER);
    return { callbacks: kept, removed: callbacks.length - kept.length };
  }
  if (!callbacks.handlers.some(isLangfuse)) return { callbacks, removed: 0 };
  const copy = callbacks.copy();
  const doubles = copy.handlers.filter(isLangfuse);
  for (const handler of doubles) copy.removeHandler(handler);
  return { callbacks: copy, removed: doubles.length };
}

/** As much of a graph registry as is needed here. */
interface Binds {
  bind(id: string, options: never): Promise<{ config?: { callbacks?: Callbacks } }>;
}

/**
 * A registry whose graphs come without Langfuse handlers of their own for as long as `traced` says that this server
 * sends their runs to Langfuse itself. Only the copy that is bound for a run is changed. `onRemoved` hears of each
 * graph once.
 */
export function withoutDoubleTraces<Registry extends Binds>(
  registry: Registry,
  options: { traced: () => boolean; onRemoved: (graphId: string) => void },
): Registry {
  const said = new Set<string>();
  const bind: Registry["bind"] = async (id, bindOptions) => {
    const graph = await registry.bind(id, bindOptions);
    if (graph.config?.callbacks === undefined || !options.traced()) return graph;
    const { callbacks, removed } = withoutLangfuseHandlers(graph.config.callbacks);
    if (removed === 0 || callbacks === undefined) return graph;
    graph.config = { ...graph.config, callbacks };
    if (!said.has(id)) {
      said.add(id);
      options.onRemoved(id);
    }
    return graph;
  };
  return { ...registry, bind };
}

function isLangfuse(handler: BaseCallbackHandler): boolean {
  return handler.name === LANGFUSE_HANDLER;
}

function nameOf(handler: unknown): unknown {
  return typeof handler === "object" && handler !== null && "name" in handler
    ? handler.name
    : undefined;
}
