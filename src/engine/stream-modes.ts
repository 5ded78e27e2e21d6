import type { StreamMode as LangGraphStreamMode } from "@langchain/langgraph";
import { isBaseMessage, type BaseMessage, type BaseMessageChunk } from "@langchain/core/messages";
import type { StreamMode } from "../protocol/runs.ts";
import { toStateCheckpoint } from "./thread-state.ts";

/** One event of a run's stream before it is numbered and serialised. */
export interface StreamPart {
  event: string;
  data: unknown;
}

/** What LangGraph's own stream yields, brought to one form. */
export interface GraphChunk {
  /** Empty at the root; one entry per nested subgraph. */
  namespace: readonly string[];
  mode: string;
  payload: unknown;
}

/** What a LangChain `streamEvents` event looks like to this module. */
export interface GraphEvent {
  event: string;
  run_id: string;
  tags?: string[];
  metadata?: Record<string, unknown>;
  data: { chunk?: unknown };
}

/**
 * The modes to ask LangGraph for. `values` is always among them: the last one is the run's output. `messages`
 * and `events` are not LangGraph modes here; they are made from LangChain's events.
 */
export function toGraphModes(modes: readonly StreamMode[]): LangGraphStreamMode[] {
  const wanted = new Set<string>(["values"]);
  for (const mode of modes) {
    if (mode === "messages-tuple") wanted.add("messages");
    else if (mode !== "messages" && mode !== "events") wanted.add(mode);
  }
  return [...wanted] as LangGraphStreamMode[];
}

/** Whether the run has to go through LangChain's event stream, which costs more than LangGraph's own. */
export function needsEvents(modes: readonly StreamMode[]): boolean {
  return modes.includes("messages") || modes.includes("events");
}

/** The stream parts of one LangGraph chunk: none if the client did not ask for its mode. */
export function fromGraphChunk(chunk: GraphChunk, modes: readonly StreamMode[]): StreamPart[] {
  const asked = chunk.mode === "messages" ? "messages-tuple" : (chunk.mode as StreamMode);
  if (!modes.includes(asked)) return [];
  const event = [chunk.mode, ...chunk.namespace].join("|");
  return [{ event, data: toPublicPayload(chunk) }];
}

function toPublicPayload({ mode, payload }: GraphChunk): unknown {
  if (mode === "debug") {
    const debug = payload as { type: string; payload: Record<string, unknown> };
    if (debug.type === "checkpoint")
      return { ...debug, payload: toPublicCheckpoint(debug.payload) };
    if (debug.type === "task_result") return { ...debug, payload: toPublicTask(debug.payload) };
    return debug;
  }
  if (mode === "checkpoints") {
    const { values, metadata, next } = payload as Record<string, unknown>;
    return { values, metadata, next };
  }
  if (mode === "tasks") return toPublicTask(payload as Record<string, unknown>);
  return payload;
}

function toPublicCheckpoint(payload: Record<string, unknown>): Record<string, unknown> {
  const { config, parentConfig, tasks, ...rest } = payload;
  return {
    ...rest,
    config: toPublicConfig(config),
    parent_config: toPublicConfig(parentConfig),
    checkpoint: toStateCheckpoint(config),
    parent_checkpoint: toStateCheckpoint(parentConfig),
    tasks: (tasks as Record<string, unknown>[]).map(toPublicTask),
  };
}

/** A task without the config LangGraph keeps its state under. */
export function toPublicTask(task: Record<string, unknown>): Record<string, unknown> {
  const checkpoint = toStateCheckpoint(task["state"]);
  if (!checkpoint) return task;
  const { state, ...rest } = task;
  return { ...rest, checkpoint };
}

/** A config without LangGraph's internals, which hold functions and connections. */
function toPublicConfig(config: unknown): unknown {
  if (typeof config !== "object" || config === null) return config;
  const { callbacks, configurable, ...rest } = config as Record<string, unknown>;
  if (typeof configurable !== "object" || configurable === null) return rest;
  const entries = Object.entries(configurable).filter(
    ([key]) => !key.startsWith("__") && !key.startsWith("langgraph_auth"),
  );
  return { ...rest, configurable: Object.fromEntries(entries) };
}

/**
 * The `messages` mode: token by token, each part the whole message so far, and every finished message once.
 * Stateful, one per run: it remembers the messages that are being written.
 */
export class MessageAccumulator {
  readonly #partial = new Map<string, BaseMessageChunk>();
  readonly #complete = new Set<string>();

  /** A token of a chat model. */
  fromToken(event: GraphEvent): StreamPart[] {
    const chunk = event.data.chunk as BaseMessageChunk | undefined;
    const id = chunk?.id;
    if (!chunk || !id || event.tags?.includes("nostream")) return [];
    const before = this.#partial.get(id);
    const message = before ? before.concat(chunk) : chunk;
    this.#partial.set(id, message);
    const partial = { event: "messages/partial", data: [message] };
    if (before) return [partial];
    return [{ event: "messages/metadata", data: { [id]: { metadata: event.metadata } } }, partial];
  }

  /** A step's values or updates: the messages in them that were not reported yet. */
  fromChunk(payload: unknown): StreamPart[] {
    if (typeof payload !== "object" || payload === null || isBaseMessage(payload)) return [];
    const held = (payload as { messages?: unknown }).messages;
    const messages = (Array.isArray(held) ? held : [held]).filter(
      (message): message is BaseMessage => isBaseMessage(message),
    );
    const fresh = messages.filter((message) => message.id && !this.#complete.has(message.id));
    for (const message of fresh) {
      this.#complete.add(message.id!);
      this.#partial.delete(message.id!);
    }
    return fresh.length === 0 ? [] : [{ event: "messages/complete", data: fresh }];
  }
}
