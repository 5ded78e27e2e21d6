import { isRecord } from "./messages.ts";

/** Langfuse's observation types. */
export type ObservationType =
  | "span"
  | "generation"
  | "event"
  | "embedding"
  | "agent"
  | "tool"
  | "chain"
  | "retriever"
  | "guardrail"
  | "evaluator";

/**
 * What a chain event is in the trace: an observation, or framework noise whose children move up. A graph nobody
 * named has no name of its own and goes by that of the node or tool it runs in.
 */
export type ChainKind = { type: ObservationType; name: string | undefined } | "hidden";

export interface ChainEvent {
  /** LangChain's description of the runnable. */
  serialized: unknown;
  runName: string | undefined;
  runType: string | undefined;
  tags: readonly string[];
  metadata: Readonly<Record<string, unknown>>;
}

/** Goes by the name of what it tries again, which is drawn by itself. */
const RETRY = "RunnableRetry";
const HIDDEN_TAG = "langsmith:hidden";
const STEP_TAG = /^(?:graph|seq|map):(?:step|key):/;
const NODE_TAG = /^graph:step:/;

/** Names LangChain and LangGraph give to their own plumbing; nobody called a step of theirs so. */
const FRAMEWORK_NAME =
  /^(?:Runnable[A-Z]\w*|ChannelWrite\b.*|ChannelRead\b.*|Branch<.*|LangGraph|CompiledStateGraph|CompiledGraph|Pregel|__\w+__|_write|\w*OutputParser|\w*PromptTemplate|\w*StructuredOutput(?:Runnable)?)$/;

/** Types a user may give to a runnable of theirs: `.withConfig({ metadata: { observation_type: "guardrail" } })`. */
const CHOSEN_TYPES = new Set<ObservationType>([
  "span",
  "event",
  "embedding",
  "agent",
  "tool",
  "chain",
  "retriever",
  "guardrail",
  "evaluator",
]);

/** Where a user writes the type of a runnable. */
export const TYPE_KEY = "observation_type";

/** True for a compiled LangGraph graph, whatever it was named. */
export function isGraph(serialized: unknown): boolean {
  const id = idOf(serialized);
  return id[0] === "langgraph" && id[1] === "pregel";
}

/** Tells an observation from framework noise. Pure; the run's own root is not asked about. */
export function classifyChain(event: ChainEvent, inherited: unknown): ChainKind {
  if (event.tags.includes(HIDDEN_TAG)) return "hidden";
  const className = idOf(event.serialized).at(-1) ?? "";
  const name = event.runName ?? className;
  const node = nodeOf(event.metadata);
  const chosen = event.metadata[TYPE_KEY];
  if (chosen !== inherited && isObservationType(chosen)) return { type: chosen, name };
  if (event.runType === "embedding") return { type: "embedding", name };
  if (event.tags.some((tag) => NODE_TAG.test(tag))) {
    return { type: "chain", name: node ?? name };
  }
  // A config handed on inside a node can carry the node's name along; it is not the name of what it was handed to.
  if (isGraph(event.serialized)) {
    return {
      type: "agent",
      name: FRAMEWORK_NAME.test(name) ? (nodeOf(event.metadata) ?? "subgraph") : name,
    };
  }
  // The prebuilt agent wraps its system prompt in a lambda of this name.
  if (name === "prompt" && className === "RunnableLambda") return "hidden";
  if (event.runName === undefined || event.runName === className || FRAMEWORK_NAME.test(name))
    return "hidden";
  if (className === RETRY) return "hidden";
  return { type: "chain", name };
}

/** True for a prompt template, whatever it was named. */
export function isPromptTemplate(serialized: unknown): boolean {
  return idOf(serialized).at(-1)?.endsWith("PromptTemplate") ?? false;
}

/** Tags a person put there: LangChain's own step marks are left out. */
export function ownTags(tags: readonly string[]): string[] {
  return tags.filter((tag) => !STEP_TAG.test(tag) && tag !== HIDDEN_TAG);
}

/** The readable name of a model, tool or retriever: as it was named, else its class. */
export function componentName(
  serialized: unknown,
  runName: string | undefined,
  otherwise: string,
): string {
  if (runName !== undefined && runName !== "") return runName;
  if (isRecord(serialized) && typeof serialized["name"] === "string") return serialized["name"];
  return idOf(serialized).at(-1) ?? otherwise;
}

function nodeOf(metadata: Readonly<Record<string, unknown>>): string | undefined {
  const node = metadata["langgraph_node"];
  return typeof node === "string" && node !== "" ? node : undefined;
}

function idOf(serialized: unknown): string[] {
  if (!isRecord(serialized) || !Array.isArray(serialized["id"])) return [];
  return serialized["id"].map(String);
}

function isObservationType(value: unknown): value is ObservationType {
  return typeof value === "string" && CHOSEN_TYPES.has(value as ObservationType);
}
