import type { CompiledGraph } from "../graphs/compiled.ts";
import type { RunKwargs } from "../protocol/runs.ts";
import { fromProtocolEvent, isRecord, type GraphProtocolEvent } from "./protocol-events.ts";
import {
  MessageAccumulator,
  fromGraphChunk,
  needsEvents,
  toGraphModes,
  type GraphChunk,
  type GraphEvent,
  type StreamPart,
} from "./stream-modes.ts";

/** What one piece of a graph's own stream means: events for the readers, and how far the graph came. */
export interface GraphStep {
  parts: StreamPart[];
  /** The root graph's values, if this piece tells them. */
  values?: Record<string, unknown>;
  /** Whether the root graph stopped before its end. */
  stopped?: boolean;
  /** The ids of the questions in this piece; empty where a graph stops without asking. */
  asked?: string[];
}

/** A graph with what it is run on. */
export interface GraphCall {
  graph: CompiledGraph;
  input: unknown;
  /** LangGraph's config, without what says which stream is wanted. */
  config: Record<string, unknown>;
  run: { run_id: string; kwargs: RunKwargs };
}

/**
 * Runs a graph and reads its stream, in the way that gives the events the run's readers want: LangGraph's own
 * modes, LangChain's events beside them, or the events of the v2 protocol. Throws what the graph throws.
 */
export function streamGraph(call: GraphCall): AsyncGenerator<GraphStep, void, void> {
  const { kwargs } = call.run;
  if (kwargs.protocol === "v2") return protocolSteps(call);
  return needsEvents(kwargs.stream_mode) ? eventSteps(call) : modeSteps(call);
}

/** Whether LangGraph listens to LangChain's callbacks itself to make this stream. */
export function needsHandlers({ protocol, stream_mode: modes }: RunKwargs): boolean {
  const heard = modes.includes("messages-tuple") || modes.includes("tools");
  return protocol === "v2" || heard || needsEvents(modes);
}

async function* modeSteps(call: GraphCall): AsyncGenerator<GraphStep, void, void> {
  const { subgraphs } = call.run.kwargs;
  const stream = await call.graph.stream(call.input, withModes(call));
  for await (const chunk of stream) {
    yield toStep(toGraphChunk(chunk as unknown[], subgraphs), call);
  }
}

async function* eventSteps(call: GraphCall): AsyncGenerator<GraphStep, void, void> {
  const { stream_mode: modes, subgraphs } = call.run.kwargs;
  const messages = modes.includes("messages") ? new MessageAccumulator() : undefined;
  const events = call.graph.streamEvents(call.input, { ...withModes(call), version: "v2" });
  for await (const event of events as AsyncIterable<GraphEvent>) {
    if (event.tags?.includes("langsmith:hidden")) continue;
    if (event.event === "on_chain_stream" && event.run_id === call.run.run_id) {
      const chunk = toGraphChunk(event.data.chunk as unknown[], subgraphs);
      const step = toStep(chunk, call);
      if (messages && chunk.mode === "values")
        step.parts.push(...messages.fromChunk(chunk.payload));
      yield step;
      continue;
    }
    const parts: StreamPart[] = [];
    if (modes.includes("events")) parts.push({ event: "events", data: event });
    if (messages && event.event === "on_chat_model_stream")
      parts.push(...messages.fromToken(event));
    yield { parts };
  }
}

async function* protocolSteps(call: GraphCall): AsyncGenerator<GraphStep, void, void> {
  const events = await (call.graph.streamEvents(call.input, {
    ...call.config,
    version: "v3",
  }) as unknown as Promise<AsyncIterable<GraphProtocolEvent>>);
  const asked = new Set<string>();
  for await (const event of events) {
    const before = asked.size;
    const step: GraphStep = {
      parts: fromProtocolEvent(event, asked),
      ...toAsked(event.params.data),
    };
    if (asked.size > before) step.asked = [...asked].slice(before);
    const { namespace, data } = event.params;
    if (event.method === "values" && namespace.length === 0) Object.assign(step, toProgress(data));
    yield step;
  }
}

function withModes({ config, run }: GraphCall): Record<string, unknown> {
  return {
    ...config,
    streamMode: toGraphModes(run.kwargs.stream_mode),
    subgraphs: run.kwargs.subgraphs,
  };
}

function toStep(chunk: GraphChunk, { run }: GraphCall): GraphStep {
  const parts = fromGraphChunk(chunk, run.kwargs.stream_mode);
  const step = { parts, ...toAsked(chunk.payload) };
  const atRoot = chunk.mode === "values" && chunk.namespace.length === 0;
  return atRoot ? { ...step, ...toProgress(chunk.payload) } : step;
}

/** Values and updates tell of a stop in the same way. */
function toAsked(payload: unknown): Pick<GraphStep, "asked"> {
  if (!isRecord(payload) || !Array.isArray(payload["__interrupt__"])) return {};
  const interrupts = payload["__interrupt__"] as { id?: unknown }[];
  return { asked: interrupts.flatMap(({ id }) => (typeof id === "string" ? [id] : [])) };
}

/** A stop is told by values of its own that hold nothing else. */
function toProgress(values: unknown): Pick<GraphStep, "values" | "stopped"> {
  const stopped = typeof values === "object" && values !== null && "__interrupt__" in values;
  return stopped ? { stopped } : { values: values as Record<string, unknown> };
}

function toGraphChunk(chunk: unknown[], subgraphs: boolean): GraphChunk {
  const [namespace, mode, payload] = subgraphs ? chunk : [[], ...chunk];
  return { namespace: (namespace ?? []) as string[], mode: mode as string, payload };
}
