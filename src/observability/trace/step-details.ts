import { ownTags, TYPE_KEY, type ObservationType } from "./classify.ts";
import { isMessage, isRecord } from "./messages.ts";

/** Metadata as LangChain hands it to callbacks. */
export type Metadata = Readonly<Record<string, unknown>>;

/** LangChain wraps what is not an object as `{input: ...}` or `{output: ...}`. */
export function unwrap(value: unknown, key: "input" | "output"): unknown {
  if (!isRecord(value) || isMessage(value)) return value;
  return Object.keys(value).length === 1 && key in value ? value[key] : value;
}

const TOOL_JSON_CHARS = 200_000;

/** LangChain hands a tool's arguments over as JSON text. */
export function toolInput(input: unknown): unknown {
  if (typeof input !== "string" || input.length > TOOL_JSON_CHARS || !/^\s*[[{]/.test(input))
    return input;
  try {
    const parsed: unknown = JSON.parse(input);
    const isCall = isRecord(parsed) && parsed["type"] === "tool_call" && "args" in parsed;
    return isCall ? parsed["args"] : parsed;
  } catch {
    return input;
  }
}

/** LangGraph's keys that every step inside a node keeps: the graph view is drawn from them. */
const NODE_KEYS = ["langgraph_node", "langgraph_step"] as const;

const NOISE_KEY =
  /^(?:__|checkpoint_ns$|ls_integration$|versions$|langfuse|lc_|ls_(?:temperature|max_tokens|stop|model_name)$)/;

/** What a step's metadata says beyond its parent's; the run's own was said on the root. */
export function newMetadata(
  metadata: Metadata,
  inherited: Metadata | undefined,
  type: ObservationType,
): Metadata {
  const own: Record<string, unknown> = {};
  for (const key of NODE_KEYS) {
    if (metadata[key] !== undefined) own[key] = metadata[key];
  }
  for (const [key, value] of Object.entries(metadata)) {
    if (NOISE_KEY.test(key) || key in own || key === TYPE_KEY) continue;
    if (key.startsWith("ls_") && type !== "generation" && type !== "embedding") continue;
    if (inherited === undefined ? key.startsWith("langgraph_") : !sameValue(inherited[key], value))
      own[key] = value;
  }
  return own;
}

function sameValue(left: unknown, right: unknown): boolean {
  if (left === right) return true;
  return Array.isArray(left) && Array.isArray(right) && left.length === right.length
    ? left.every((entry, index) => entry === right[index])
    : false;
}

/** Tags a step has beyond its parent's. */
export function tagMetadata(tags: readonly string[], inherited: readonly string[]): Metadata {
  const own = ownTags(tags).filter((tag) => !inherited.includes(tag));
  return own.length === 0 ? {} : { tags: own };
}
