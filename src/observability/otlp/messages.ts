import type { Attributes } from "../trace/dialect.ts";
import { isMessage, isRecord, parseMessage, type ChatMessage } from "../trace/messages.ts";

/** What a model was given: its messages or its prompts, and the tools it could call. */
export interface ModelInput {
  messages: ChatMessage[] | undefined;
  /** For a completion model. */
  prompts: string[];
  tools: unknown[];
}

/** Reads the input of a generation as the run's handler puts it. */
export function readModelInput(input: unknown): ModelInput {
  const wrapped = isRecord(input) && !isMessage(input) && "messages" in input;
  const content = wrapped ? input["messages"] : input;
  const tools: unknown = wrapped ? input["tools"] : undefined;
  const list = Array.isArray(content) ? (content as unknown[]) : [content];
  const prompts = list.filter((entry): entry is string => typeof entry === "string");
  // A batch of conversations is a list of lists; they are told one after another.
  const messages = list
    .flat()
    .map((entry) => (typeof entry === "string" ? undefined : parseMessage(entry)))
    .filter((message) => message !== undefined);
  return {
    messages: messages.length > 0 ? messages : undefined,
    prompts,
    tools: Array.isArray(tools) ? (tools as unknown[]) : [],
  };
}

/** Reads the output of a generation: one message or text, or a list of them. */
export function readModelOutput(output: unknown): ChatMessage[] {
  const list = Array.isArray(output) ? (output as unknown[]) : [output];
  return list
    .map((entry) =>
      typeof entry === "string" ? { role: "assistant", content: entry } : parseMessage(entry),
    )
    .filter((message) => message !== undefined);
}

/** The id, name and arguments of a tool call, in LangChain's form or a provider's. */
export function readToolCall(call: unknown): {
  id: string | undefined;
  name: string;
  arguments: unknown;
} {
  if (!isRecord(call)) return { id: undefined, name: "unknown", arguments: call };
  const inner = isRecord(call["function"]) ? call["function"] : call;
  return {
    id: typeof call["id"] === "string" ? call["id"] : undefined,
    name: typeof inner["name"] === "string" ? inner["name"] : "unknown",
    arguments: call["args"] ?? inner["arguments"],
  };
}

/** Documents of a retriever: id, content and metadata. */
export function readDocuments(
  output: unknown,
): { id: string | undefined; content: string; metadata: unknown }[] {
  if (!Array.isArray(output)) return [];
  return (output as unknown[])
    .filter(isRecord)
    .filter((document) => typeof document["pageContent"] === "string")
    .map((document) => ({
      id: typeof document["id"] === "string" ? document["id"] : undefined,
      content: document["pageContent"] as string,
      metadata: document["metadata"],
    }));
}

/** Token counts as OpenTelemetry and OpenInference want them: totals that include their parts. */
export interface InclusiveUsage {
  input: number;
  output: number;
  cacheRead: number | undefined;
  cacheWrite: number | undefined;
  reasoning: number | undefined;
}

/** Exclusive buckets added up again. A bucket belongs to the output if its name says so, else to the input. */
export function toInclusive(usage: Readonly<Record<string, number>>): InclusiveUsage {
  const total = (matches: (bucket: string) => boolean): number =>
    Object.entries(usage).reduce(
      (sum, [bucket, tokens]) => (bucket !== "total" && matches(bucket) ? sum + tokens : sum),
      0,
    );
  const part = (matches: (bucket: string) => boolean): number | undefined =>
    Object.keys(usage).some(matches) ? total(matches) : undefined;
  return {
    input: total((bucket) => !isOutput(bucket)),
    output: total(isOutput),
    cacheRead: part((bucket) => bucket.includes("cache_read")),
    cacheWrite: part((bucket) => bucket.includes("cache_creation")),
    reasoning: part((bucket) => isOutput(bucket) && bucket.includes("reasoning")),
  };
}

function isOutput(bucket: string): boolean {
  return bucket.startsWith("output");
}

/** Attributes without those that have no value. */
export function present(attributes: Attributes): Attributes {
  return Object.fromEntries(Object.entries(attributes).filter(([, value]) => value !== undefined));
}

/** The text, if it is one and not empty. */
export function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
