import type { RunnableConfig } from "@langchain/core/runnables";
import type { BaseStore } from "@langchain/langgraph-checkpoint";
import { ServerError } from "../errors.ts";
import type { CompiledGraph } from "../graphs/compiled.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import { toGraphSchemas, type GraphSchemas } from "../graphs/schemas.ts";
import type { TypeSchemas } from "../graphs/type-schemas.ts";
import type { Assistant } from "../protocol/assistants.ts";

/** The graphs behind assistants, looked at without running them. */
export class AssistantGraphs {
  readonly #graphs: () => GraphRegistry;
  readonly #store: BaseStore;
  readonly #types: TypeSchemas;

  constructor(options: { graphs: () => GraphRegistry; store: BaseStore; types: TypeSchemas }) {
    this.#graphs = options.graphs;
    this.#store = options.store;
    this.#types = options.types;
  }

  /** The graph as nodes and edges; `xray` opens subgraphs, down to that depth. */
  async draw(assistant: Assistant, xray: boolean | number): Promise<object> {
    const graph = await this.#bind(assistant);
    const config: RunnableConfig & { xray: boolean | number } = { ...assistant.config, xray };
    const drawable = await graph.getGraphAsync(config);
    return drawable.toJSON();
  }

  /** What the graph takes and gives. */
  async schemas(assistant: Assistant): Promise<GraphSchemas & { graph_id: string }> {
    const { graph_id } = assistant;
    const graph = await this.#bind(assistant);
    return { graph_id, ...toGraphSchemas(graph, this.#types.of(graph_id)) };
  }

  /** The schemas of the subgraphs by namespace; `recurse` goes into subgraphs of subgraphs. */
  async subgraphs(
    assistant: Assistant,
    namespace: string | undefined,
    recurse: boolean,
  ): Promise<Record<string, GraphSchemas>> {
    const graph = await this.#bind(assistant);
    const found: Record<string, GraphSchemas> = {};
    for await (const [name, subgraph] of graph.getSubgraphsAsync(namespace, recurse)) {
      const typed = this.#types.of(assistant.graph_id, name);
      found[name] = toGraphSchemas(subgraph as CompiledGraph, typed);
    }
    if (namespace !== undefined && Object.keys(found).length === 0) {
      throw new ServerError(
        "not_found",
        `Graph "${assistant.graph_id}" has no subgraph "${namespace}"`,
      );
    }
    return found;
  }

  #bind(assistant: Assistant): Promise<CompiledGraph> {
    return this.#graphs().bind(assistant.graph_id, {
      config: assistant.config,
      access: "assistants.read",
      checkpointer: undefined,
      store: this.#store,
    });
  }
}
