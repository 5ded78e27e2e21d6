import { StateSchema } from "@langchain/langgraph";
import {
  getConfigTypeSchema,
  getInputTypeSchema,
  getOutputTypeSchema,
  getStateTypeSchema,
  getUpdateTypeSchema,
} from "@langchain/langgraph/zod/schema";

import type { CompiledGraph } from "./compiled.ts";

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
 * type checker alone, so at run time only the names of its channels are known.
 */
export function toGraphSchemas(graph: CompiledGraph): GraphSchemas {
  const config = attempt(() => getConfigTypeSchema(graph));
  return {
    input_schema:
      attempt(() => getInputTypeSchema(graph)) ?? fromChannels(graph, graph.inputChannels),
    output_schema:
      attempt(() => getOutputTypeSchema(graph)) ?? fromChannels(graph, graph.outputChannels),
    state_schema: toStateSchema(graph),
    config_schema: config,
    // LangGraph.js has one schema for both.
    context_schema: config,
  };
}

/**
 * What the state may be set to, which is how clients use it: Studio makes a form of it to edit a thread's state.
 * With zod that is the type of an update, where nothing is required; a `StateSchema` has one type for both.
 */
function toStateSchema(graph: CompiledGraph): object | null {
  const { _schemaRuntimeDefinition: definition } =
    (graph as { builder?: { _schemaRuntimeDefinition?: unknown } }).builder ?? {};
  const extract = StateSchema.isInstance(definition) ? getStateTypeSchema : getUpdateTypeSchema;
  return attempt(() => extract(graph)) ?? fromChannels(graph, graph.streamChannelsAsIs);
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
