import type { ObservationType } from "../trace/classify.ts";
import type { Attributes, Dialect, FieldWriter } from "../trace/dialect.ts";
import { isRecord, simplifyLangChain, type ChatMessage } from "../trace/messages.ts";
import type { Observation, ObservationFields } from "../trace/run-trace.ts";
import {
  present,
  readDocuments,
  readModelInput,
  readModelOutput,
  readToolCall,
  textOf,
  toInclusive,
} from "./messages.ts";

/**
 * OpenInference's attributes, as Arize Phoenix draws them: span kinds, input and output values, flattened messages,
 * token counts. https://github.com/Arize-ai/openinference/blob/main/spec/semantic_conventions.md
 */
export function createOpenInferenceDialect(): Dialect {
  // One attribute holds all of an observation's metadata, which comes in two parts.
  const begun = new WeakMap<Observation, Record<string, string>>();
  return {
    simplify: simplifyLangChain,
    exceptions: true,
    links: true,
    common: ({ sessionId, userId, tags }) => ({
      ...(sessionId === undefined ? {} : { "session.id": sessionId }),
      ...(userId === undefined ? {} : { "user.id": userId }),
      "tag.tags": tags,
    }),
    observation: ({ observation, phase }, fields, write) => {
      const { type, name } = observation;
      const texts = { ...begun.get(observation), ...metadata(fields, write) };
      begun.set(observation, texts);
      return present({
        ...(phase === "open" ? { "openinference.span.kind": KINDS[type] ?? "CHAIN" } : {}),
        ...(phase === "open" && type === "agent" ? { "agent.name": name } : {}),
        ...(phase === "open" && type === "tool" ? { "tool.name": name } : {}),
        ...values(fields, write),
        ...(type === "generation" ? model(fields, write) : {}),
        ...(type === "embedding" ? { "embedding.model_name": fields.model } : {}),
        ...(type === "tool" ? { "tool.parameters": write.content("input", fields.input) } : {}),
        ...(type === "retriever" ? retrieved(fields.output, write) : {}),
        ...(Object.keys(texts).length === 0 ? {} : { metadata: JSON.stringify(texts) }),
        "graph.node.id": textOf(texts["langgraph_node"]),
      });
    },
    trace: () => ({}),
  };
}

const KINDS: Partial<Record<ObservationType, string>> = {
  agent: "AGENT",
  chain: "CHAIN",
  embedding: "EMBEDDING",
  evaluator: "EVALUATOR",
  generation: "LLM",
  guardrail: "GUARDRAIL",
  retriever: "RETRIEVER",
  tool: "TOOL",
};

function values(fields: ObservationFields, write: FieldWriter): Attributes {
  const attributes: Attributes = {};
  for (const field of ["input", "output"] as const) {
    const text = write.content(field, fields[field]);
    if (text === undefined) continue;
    attributes[`${field}.value`] = text;
    attributes[`${field}.mime_type`] =
      typeof fields[field] === "string" ? "text/plain" : "application/json";
  }
  return attributes;
}

function model(fields: ObservationFields, write: FieldWriter): Attributes {
  const parameters = write.parameters(fields.parameters);
  const provider = fields.metadata?.["ls_provider"];
  return {
    "llm.model_name": fields.model,
    "llm.provider": typeof provider === "string" ? provider : undefined,
    "llm.invocation_parameters": parameters === undefined ? undefined : JSON.stringify(parameters),
    "llm.finish_reason": textOf(fields.metadata?.["finish_reason"]),
    ...given(fields.input, write),
    ...(fields.output === undefined || !write.captures("output")
      ? {}
      : messages("llm.output_messages", "output", readModelOutput(fields.output), write)),
    ...tokens(fields.usage),
  };
}

function given(input: unknown, write: FieldWriter): Attributes {
  if (input === undefined || !write.captures("input")) return {};
  const { messages: history, prompts, tools } = readModelInput(input);
  const attributes: Attributes = {
    ...messages("llm.input_messages", "input", history ?? [], write),
  };
  prompts.forEach((text, index) => {
    attributes[`llm.prompts.${index}.prompt.text`] = write.content("input", text);
  });
  tools.forEach((tool, index) => {
    attributes[`llm.tools.${index}.tool.json_schema`] = write.content("input", tool);
  });
  return attributes;
}

function messages(
  prefix: string,
  field: "input" | "output",
  list: readonly ChatMessage[],
  write: FieldWriter,
): Attributes {
  const attributes: Attributes = {};
  list.forEach((message, index) => {
    const at = `${prefix}.${index}.message`;
    attributes[`${at}.role`] = message.role;
    attributes[`${at}.name`] = message.name;
    attributes[`${at}.tool_call_id`] = message.tool_call_id;
    Object.assign(attributes, contents(at, field, message.content, write));
    (message.tool_calls ?? []).forEach((entry, position) => {
      const call = readToolCall(entry);
      const callAt = `${at}.tool_calls.${position}.tool_call`;
      attributes[`${callAt}.id`] = call.id;
      attributes[`${callAt}.function.name`] = call.name;
      attributes[`${callAt}.function.arguments`] = write.content(field, call.arguments);
    });
  });
  return attributes;
}

function contents(
  at: string,
  field: "input" | "output",
  content: unknown,
  write: FieldWriter,
): Attributes {
  if (!Array.isArray(content)) {
    return { [`${at}.content`]: content === "" ? undefined : write.content(field, content) };
  }
  const attributes: Attributes = {};
  (content as unknown[]).forEach((entry, index) => {
    const partAt = `${at}.contents.${index}.message_content`;
    const isText = typeof entry === "string" || (isRecord(entry) && entry["type"] === "text");
    const text = isRecord(entry) && isText ? entry["text"] : entry;
    attributes[`${partAt}.type`] = isRecord(entry) ? (textOf(entry["type"]) ?? "text") : "text";
    attributes[`${partAt}.text`] = write.content(field, text);
  });
  return attributes;
}

function retrieved(output: unknown, write: FieldWriter): Attributes {
  const attributes: Attributes = {};
  readDocuments(output).forEach((document, index) => {
    const at = `retrieval.documents.${index}.document`;
    attributes[`${at}.id`] = document.id;
    attributes[`${at}.content`] = write.content("output", document.content);
    attributes[`${at}.metadata`] = write.content("output", document.metadata);
  });
  return attributes;
}

function tokens(usage: ObservationFields["usage"]): Attributes {
  if (usage === undefined) return {};
  const { input, output, cacheRead, cacheWrite, reasoning } = toInclusive(usage);
  return {
    "llm.token_count.prompt": input,
    "llm.token_count.completion": output,
    "llm.token_count.total": input + output,
    "llm.token_count.prompt_details.cache_read": cacheRead,
    "llm.token_count.prompt_details.cache_write": cacheWrite,
    "llm.token_count.completion_details.reasoning": reasoning,
  };
}

/** A warning has no status of its own in OpenTelemetry. */
function metadata(fields: ObservationFields, write: FieldWriter): Record<string, string> {
  const texts = fields.metadata === undefined ? {} : write.metadata(fields.metadata);
  if (fields.level !== "WARNING") return texts;
  return {
    ...texts,
    level: fields.level,
    status_message: write.statusMessage(fields.statusMessage) ?? "",
  };
}
