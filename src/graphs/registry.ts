import type { RunnableConfig } from "@langchain/core/runnables";

import { ServerError } from "../errors.ts";
import type { ModuleError } from "../modules/failure.ts";
import { copyGraph, toCompiledGraph } from "./compiled.ts";
import type { CompiledGraph, GraphResources } from "./compiled.ts";

/** Why a graph is being built. A factory sees it as `runtime.accessContext`. */
export type GraphAccess =
  | "threads.create_run"
  | "threads.read"
  | "threads.update"
  | "assistants.read";

/** The second argument of a factory. */
export interface GraphRuntime {
  accessContext: GraphAccess;
  /** Only while a run is executed; its `context` is the run's. */
  executionRuntime: { context: unknown } | null;
}

/** An exported function that makes a graph. */
export type GraphFactory = (config: RunnableConfig, runtime: GraphRuntime) => unknown;

/** One entry of the config after loading. A failure is a value, so that it stops no other graph. */
export type LoadedGraph = {
  id: string;
  description: string | undefined;
  /** Absolute path of the module, and the export. */
  path: string;
  exportName: string;
} & (
  | { kind: "graph"; graph: CompiledGraph }
  | { kind: "factory"; factory: GraphFactory }
  | { kind: "failed"; error: ModuleError }
);

export interface BindOptions extends GraphResources {
  /** The run's config; a factory gets it. */
  config: RunnableConfig;
  /** The run's context; a factory gets it as `runtime.executionRuntime.context`. */
  context?: unknown;
  access: GraphAccess;
}

/** The graphs of one loading. Immutable: a reload makes another registry, and runs keep the one they have. */
export interface GraphRegistry {
  /** Every configured id, in the order of the config, failed ones included. */
  ids(): string[];
  has(id: string): boolean;
  /** What is known of a graph without building it; `undefined` for an unknown id. */
  describe(id: string): LoadedGraph | undefined;
  failures(): { id: string; error: ModuleError }[];
  /**
   * A copy of the graph for one run, with its own checkpointer and store. Rejects with `not_found` for an
   * unknown id and `graph_unavailable` for a graph that failed to load or whose factory threw.
   */
  bind(id: string, options: BindOptions): Promise<CompiledGraph>;
}

/** A registry of `loaded`, which must not be changed afterwards. */
export function createGraphRegistry(loaded: readonly LoadedGraph[]): GraphRegistry {
  const byId = new Map(loaded.map((graph) => [graph.id, graph]));
  return {
    ids: () => [...byId.keys()],
    has: (id) => byId.has(id),
    describe: (id) => byId.get(id),
    failures: () =>
      loaded.flatMap((graph) =>
        graph.kind === "failed" ? [{ id: graph.id, error: graph.error }] : [],
      ),
    async bind(id, options) {
      const entry = byId.get(id);
      if (!entry) throw new ServerError("not_found", `Graph "${id}" not found`);
      if (entry.kind === "failed") {
        throw new ServerError(
          "graph_unavailable",
          `Graph "${id}" failed to load: ${entry.error.message}`,
        );
      }
      const graph = entry.kind === "graph" ? entry.graph : await build(entry, options);
      return copyGraph(graph, options);
    },
  };
}

async function build(
  entry: LoadedGraph & { kind: "factory" },
  options: BindOptions,
): Promise<CompiledGraph> {
  const runtime: GraphRuntime = {
    accessContext: options.access,
    executionRuntime: options.access === "threads.create_run" ? { context: options.context } : null,
  };
  let graph: CompiledGraph | undefined;
  try {
    graph = await toCompiledGraph(entry.factory(options.config, runtime));
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ServerError(
      "graph_unavailable",
      `Graph "${entry.id}" could not be built: ${reason}`,
      { cause },
    );
  }
  if (graph) return graph;
  throw new ServerError(
    "graph_unavailable",
    `Graph "${entry.id}" could not be built: its factory returned no graph`,
  );
}
