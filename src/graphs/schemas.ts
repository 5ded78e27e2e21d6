import { StateSchema } from "@langchain/langgraph";
import {
  getConfigTypeSchema,
  getInputTypeSchema,
  getOutputTypeSchema,
  getStateTypeSchema,
  getUpdateTypeSchema,
} from "@langchain/langgraph/zod/schema";

import type { CompiledGraph } from "./compiled.ts";
import type { TypedSchemas } from "./type-extractor.ts";

/** JSON schemas of a graph; `null` where the graph does not tell. */
export interface GraphSchemas {
  input_schema: object | null;
  output_schema: object | null;
  state_schema: object | null;
  config_schema: object | null;
  context_schema: object | null;
}

/**
 * What a graph takes and gives. Zod states and `StateSchema` tell their types; an `Annotation` exists for the
 * type checker alone, so at run time only the names of its channels are known, and `typed` counts: what was
 * read from its types.
 */
export function toGraphSchemas(graph: CompiledGraph, typed: TypedSchemas = {}): GraphSchemas {
  const told = toToldSchemas(graph);
  const config = attempt(() => getConfigTypeSchema(graph)) ?? typed.config ?? null;
  return {
    input_schema: told.input ?? typed.input ?? fromChannels(graph, graph.inputChannels),
    output_schema: told.output ?? typed.output ?? fromChannels(graph, graph.outputChannels),
    state_schema: told.state ?? typed.state ?? fromChannels(graph, graph.streamChannelsAsIs),
    config_schema: config,
    // LangGraph.js has one schema for both.
    context_schema: config,
  };
}

/** Whether the graph and all graphs in it tell their types at run time, so that reading them adds nothing. */
export async function isKnownAtRunTime(graph: CompiledGraph): Promise<boolean> {
  const graphs = [graph];
  for await (const [, subgraph] of graph.getSubgraphsAsync(undefined, true)) {
    graphs.push(subgraph as CompiledGraph);
  }
  return graphs.every((each) =>
    Object.values(toToldSchemas(each)).every((schema) => schema !== null),
  );
}

/**
 * What the graph tells at run time. Its state is what that may be set to, which is how clients use it: Studio makes
 * a form of it to edit a thread's state. With zod that is the type of an update, where nothing is required; a
 * `StateSchema` has one type for both.
 */
function toToldSchemas(graph: CompiledGraph): Record<"input" | "output" | "state", object | null> {
  const { _schemaRuntimeDefinition: definition } =
    (graph as { builder?: { _schemaRuntimeDefinition?: unknown } }).builder ?? {};
  const extract = StateSchema.isInstance(definition) ? getStateTypeSchema : getUpdateTypeSchema;
  return {
    input: attempt(() => getInputTypeSchema(graph)),
    output: attempt(() => getOutputTypeSchema(graph)),
    state: attempt(() => extract(graph)),
  };
}

/** The schema, or null: some zod types have no JSON form, and their library throws. */
function attempt(extract: () => unknown): object | null {
  try {
    const schema = extract();
    return typeof schema === "object" && schema !== null && Object.keys(schema).length > 0
      ? schema
      : null;
  } catch {
    return null;
  }
}

/** An object with the graph's channels, of which any value is allowed. */
function fromChannels(graph: CompiledGraph, channels: unknown): object | null {
  // A graph that starts at `__start__` takes its whole state.
  const isStart =
    channels === "__start__" || (Array.isArray(channels) && channels[0] === "__start__");
  const named = isStart ? graph.streamChannelsAsIs : channels;
  if (!Array.isArray(named)) return null;
  const properties = Object.fromEntries(
    named
      .map(String)
      .filter((name) => !name.startsWith("__") && !name.startsWith("branch:"))
      .map((name) => [name, name === "messages" ? MESSAGES : {}]),
  );
  return { type: "object", properties };
}

const MESSAGES = { type: "array", items: { type: "object" } };
