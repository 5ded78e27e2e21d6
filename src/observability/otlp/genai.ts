import type { ObservationType } from "../trace/classify.ts";
import type { Attributes, Dialect, FieldWriter } from "../trace/dialect.ts";
import { isRecord, simplifyLangChain } from "../trace/messages.ts";
import type { Observation, ObservationFields } from "../trace/run-trace.ts";
import {
  present,
  readDocuments,
  readModelInput,
  readModelOutput,
  textOf,
  toInclusive,
} from "./messages.ts";
import { textParts, toDefinition, toParts } from "./parts.ts";

/**
 * OpenTelemetry's semantic conventions for generative AI: `gen_ai.*` attributes, span names and kinds, errors as
 * status and exception events. What they have no name for is under `aegra.*` and `langgraph.*`. The
 * conventions are in development: https://github.com/open-telemetry/semantic-conventions-genai
 */
export const genAiDialect: Dialect = {
  simplify: simplifyLangChain,
  exceptions: true,
  links: true,
  common: ({ name, sessionId, userId, tags, run }) => ({
    ...(sessionId === undefined
      ? {}
      : { "gen_ai.conversation.id": sessionId, "session.id": sessionId }),
    ...(userId === undefined ? {} : { "user.id": userId }),
    "aegra.assistant.name": name,
    "aegra.run.id": run.run_id,
    "aegra.graph.id": run.graph_id,
    "aegra.tags": tags,
  }),
  observation: ({ observation, phase }, fields, write) =>
    present({
      ...(phase === "open" ? operation(observation, fields) : {}),
      ...CONTENT[observation.type]?.(fields, write, observation),
      ...(CONTENT[observation.type] === undefined ? plainContent(fields, write) : {}),
      ...metadata(fields, write),
      ...(fields.level === undefined || fields.level === "DEFAULT"
        ? {}
        : { "aegra.level": fields.level }),
      ...(fields.level === "WARNING"
        ? { "aegra.status_message": write.statusMessage(fields.statusMessage) }
        : {}),
      ...(fields.level === "ERROR" ? { "error.type": fields.errorType ?? "_OTHER" } : {}),
    }),
  trace: () => ({}),
  spanName(type, name, fields) {
    if (type === "generation") return `${modelOperation(fields)} ${fields.model ?? name}`;
    if (type === "embedding") return `embeddings ${fields.model ?? name}`;
    const prefix = OPERATIONS[type];
    return prefix === undefined ? name : `${prefix} ${name}`;
  },
  spanKind: (type) => (CLIENT_TYPES.has(type) ? CLIENT : INTERNAL),
};

/** OpenTelemetry's `SpanKind`, which is not imported: its package is optional. */
const INTERNAL = 0;
const CLIENT = 2;
const CLIENT_TYPES = new Set<ObservationType>(["generation", "embedding", "retriever"]);

const OPERATIONS: Partial<Record<ObservationType, string>> = {
  agent: "invoke_agent",
  tool: "execute_tool",
  retriever: "retrieval",
  embedding: "embeddings",
};

function operation(observation: Observation, fields: ObservationFields): Attributes {
  const { type, name } = observation;
  if (type === "generation") {
    return {
      "gen_ai.operation.name": modelOperation(fields),
      "gen_ai.provider.name": providerOf(fields),
      "gen_ai.request.model": fields.model,
    };
  }
  return {
    "gen_ai.operation.name": OPERATIONS[type],
    ...(type === "agent" ? { "gen_ai.agent.name": name } : {}),
    ...(type === "tool" ? { "gen_ai.tool.name": name, "gen_ai.tool.type": "function" } : {}),
    ...(type === "embedding"
      ? { "gen_ai.request.model": fields.model, "gen_ai.provider.name": providerOf(fields) }
      : {}),
    ...(OPERATIONS[type] === undefined ? { "aegra.observation.type": type } : {}),
  };
}

function modelOperation(fields: ObservationFields): "chat" | "text_completion" {
  const { messages, prompts } = readModelInput(fields.input);
  return messages === undefined && prompts.length > 0 ? "text_completion" : "chat";
}

/** The conventions' names of the providers that LangChain names otherwise. */
const PROVIDERS: Readonly<Record<string, string>> = {
  amazon_bedrock: "aws.bedrock",
  bedrock: "aws.bedrock",
  azure: "azure.ai.openai",
  azure_openai: "azure.ai.openai",
  google_genai: "gcp.gemini",
  google_vertexai: "gcp.vertex_ai",
  ibm: "ibm.watsonx.ai",
  mistral: "mistral_ai",
  mistralai: "mistral_ai",
  xai: "x_ai",
};

function providerOf(fields: ObservationFields): string {
  const provider = fields.metadata?.["ls_provider"];
  if (typeof provider !== "string" || provider === "") return "_OTHER";
  return PROVIDERS[provider] ?? provider;
}

type Content = (
  fields: ObservationFields,
  write: FieldWriter,
  observation: Observation,
) => Attributes;

const CONTENT: Partial<Record<ObservationType, Content>> = {
  generation: modelContent,
  agent: agentContent,
  tool: (fields, write) => ({
    "gen_ai.tool.call.arguments": write.content("input", fields.input),
    "gen_ai.tool.call.result": write.content("output", fields.output),
    "gen_ai.tool.call.id": textOf(fields.metadata?.["tool_call_id"]),
  }),
  retriever: (fields, write) => ({
    "gen_ai.retrieval.query.text": write.content("input", fields.input),
    "gen_ai.retrieval.documents": documents(fields.output, write),
  }),
};

function plainContent(fields: ObservationFields, write: FieldWriter): Attributes {
  return {
    "aegra.input": write.content("input", fields.input),
    "aegra.output": write.content("output", fields.output),
  };
}

function modelContent(
  fields: ObservationFields,
  write: FieldWriter,
  observation: Observation,
): Attributes {
  return {
    ...modelInput(fields.input, write),
    ...modelOutput(fields, write),
    ...request(fields.parameters, write),
    ...usage(fields.usage),
    ...(fields.completionStart === undefined
      ? {}
      : {
          // Seconds.
          "gen_ai.response.time_to_first_chunk":
            Math.max(0, fields.completionStart.getTime() - observation.startMs) / 1_000,
        }),
  };
}

function modelInput(input: unknown, write: FieldWriter): Attributes {
  if (input === undefined || !write.captures("input")) return {};
  const { messages, prompts, tools } = readModelInput(input);
  const given =
    messages?.map(toParts) ?? prompts.map((text) => ({ role: "user", ...textParts(text) }));
  const instructions = given.filter(({ role }) => role === "system").flatMap(({ parts }) => parts);
  const history = given.filter(({ role }) => role !== "system");
  return {
    "gen_ai.input.messages": history.length === 0 ? undefined : write.content("input", history),
    "gen_ai.system_instructions":
      instructions.length === 0 ? undefined : write.content("input", instructions),
    "gen_ai.tool.definitions":
      tools.length === 0 ? undefined : write.content("input", tools.map(toDefinition)),
  };
}

function modelOutput(fields: ObservationFields, write: FieldWriter): Attributes {
  const reason = textOf(fields.metadata?.["finish_reason"]);
  const answers = fields.output === undefined ? [] : readModelOutput(fields.output);
  return {
    // A model named at the end is the one that answered; the one that was asked is said at the start.
    ...(fields.usage === undefined ? {} : { "gen_ai.response.model": fields.model }),
    "gen_ai.response.finish_reasons": reason === undefined ? undefined : [reason],
    "gen_ai.output.messages":
      answers.length === 0 || !write.captures("output")
        ? undefined
        : write.content(
            "output",
            answers.map((answer) => ({
              ...toParts(answer),
              ...(reason === undefined ? {} : { finish_reason: reason }),
            })),
          ),
  };
}

/** A question or an answer in words is a message; a state is not. */
function agentContent(fields: ObservationFields, write: FieldWriter): Attributes {
  const { input, output } = fields;
  const plain: ObservationFields = {
    ...(typeof input === "string" ? {} : { input }),
    ...(typeof output === "string" ? {} : { output }),
  };
  return {
    ...plainContent(plain, write),
    ...(typeof input === "string"
      ? { "gen_ai.input.messages": write.content("input", [{ role: "user", ...textParts(input) }]) }
      : {}),
    ...(typeof output === "string"
      ? {
          "gen_ai.output.messages": write.content("output", [
            { role: "assistant", ...textParts(output) },
          ]),
        }
      : {}),
  };
}

function documents(output: unknown, write: FieldWriter): string | undefined {
  if (output === undefined) return undefined;
  const found = readDocuments(output);
  return write.content("output", found.length === 0 ? output : found);
}

/** Call options by their names in LangChain's providers, and the conventions' types. */
const REQUEST: readonly (readonly [attribute: string, names: readonly string[]])[] = [
  ["gen_ai.request.temperature", ["temperature"]],
  ["gen_ai.request.top_p", ["top_p", "topP"]],
  ["gen_ai.request.top_k", ["top_k", "topK"]],
  [
    "gen_ai.request.max_tokens",
    ["max_tokens", "maxTokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens"],
  ],
  ["gen_ai.request.frequency_penalty", ["frequency_penalty"]],
  ["gen_ai.request.presence_penalty", ["presence_penalty"]],
  ["gen_ai.request.seed", ["seed"]],
  ["gen_ai.request.choice.count", ["n"]],
];

function request(parameters: ObservationFields["parameters"], write: FieldWriter): Attributes {
  if (parameters === undefined) return {};
  const attributes: Attributes = {};
  for (const [attribute, names] of REQUEST) {
    const value = names.map((name) => parameters[name]).find((found) => found !== undefined);
    if (typeof value === "number" && Number.isFinite(value)) attributes[attribute] = value;
  }
  const stop = parameters["stop"] ?? parameters["stop_sequences"] ?? parameters["stopSequences"];
  const stops = [stop].flat().filter((entry): entry is string => typeof entry === "string");
  if (stops.length > 0) {
    attributes["gen_ai.request.stop_sequences"] = stops.map((text) =>
      write.text("model_parameters.stop", text),
    );
  }
  const format = parameters["response_format"];
  if (isRecord(format) && typeof format["type"] === "string")
    attributes["gen_ai.output.type"] = format["type"].startsWith("json") ? "json" : "text";
  return attributes;
}

function usage(buckets: ObservationFields["usage"]): Attributes {
  if (buckets === undefined) return {};
  const { input, output, cacheRead, cacheWrite, reasoning } = toInclusive(buckets);
  return {
    "gen_ai.usage.input_tokens": input,
    "gen_ai.usage.output_tokens": output,
    "gen_ai.usage.cache_read.input_tokens": cacheRead,
    "gen_ai.usage.cache_creation.input_tokens": cacheWrite,
    "gen_ai.usage.reasoning.output_tokens": reasoning,
  };
}

const SAID_ELSEWHERE = new Set(["tool_call_id", "finish_reason", "ls_provider", "ls_model_type"]);

/** `langgraph_node` is `langgraph.node`; everything else is under `aegra.metadata`. */
function metadata(fields: ObservationFields, write: FieldWriter): Attributes {
  if (fields.metadata === undefined) return {};
  const attributes: Attributes = {};
  for (const [key, text] of Object.entries(write.metadata(fields.metadata))) {
    if (SAID_ELSEWHERE.has(key)) continue;
    const name = key.startsWith("langgraph_")
      ? `langgraph.${key.slice("langgraph_".length)}`
      : `aegra.metadata.${key}`;
    attributes[name] = text;
  }
  return attributes;
}
