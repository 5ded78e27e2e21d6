import { isMessage, isRecord, toChatMessage } from "./messages.ts";
import { isInteropZodSchema } from "@langchain/core/utils/types";
import { toJsonSchema } from "@langchain/core/utils/json_schema";

/** Call options that steer a model, by every name LangChain's providers use for them. */
const PARAMETERS = [
  "temperature",
  "top_p",
  "topP",
  "top_k",
  "topK",
  "max_tokens",
  "maxTokens",
  "max_completion_tokens",
  "max_output_tokens",
  "maxOutputTokens",
  "frequency_penalty",
  "presence_penalty",
  "seed",
  "stop",
  "stop_sequences",
  "stopSequences",
  "response_format",
  "responseMimeType",
  "responseSchema",
  "n",
  "reasoning",
  "reasoning_effort",
  "thinking",
  "thinkingConfig",
  "verbosity",
  "logprobs",
  "top_logprobs",
  "logit_bias",
  "parallel_tool_calls",
  "service_tier",
  "modalities",
  "request_timeout",
  "timeout",
  "stream",
] as const;

/** Tool definitions already worked out, by tool: the same tools are bound for every call. */
export type SchemaCache = WeakMap<object, unknown>;

/** A model call as far as its start tells. */
export interface ModelCall {
  model: string | undefined;
  parameters: Record<string, unknown>;
  tools: unknown[];
  toolChoice: unknown;
}

/** Model, parameters and tool definitions of a call; nothing else of the options, which may hold keys and state. */
export function toModelCall(
  extra: Record<string, unknown> | undefined,
  metadata: Readonly<Record<string, unknown>>,
  about: { serialized: unknown; schemas: SchemaCache },
): ModelCall {
  const invocation = recordOf(extra?.["invocation_params"]);
  const options = recordOf(extra?.["options"]);
  const parameters: Record<string, unknown> = {};
  for (const key of PARAMETERS) {
    const value = invocation[key] ?? options[key];
    if (value === undefined || value === null || (Array.isArray(value) && value.length === 0))
      continue;
    parameters[key] = parameterForm(value);
  }
  addStandard(parameters, metadata);
  const tools = [invocation["tools"], options["tools"], invocation["functions"]].find(
    (candidate): candidate is unknown[] => Array.isArray(candidate) && candidate.length > 0,
  );
  return {
    model: firstText([
      invocation["model"],
      invocation["model_name"],
      invocation["modelName"],
      invocation["model_id"],
      metadata["ls_model_name"],
      ...modelOfKwargs(about.serialized),
    ]),
    parameters,
    tools: (tools ?? []).map((tool) => toolDefinition(tool, about.schemas)),
    toolChoice: invocation["tool_choice"] ?? options["tool_choice"],
  };
}

/** LangChain's standard metadata, for models that do not show their parameters. */
function addStandard(
  parameters: Record<string, unknown>,
  metadata: Readonly<Record<string, unknown>>,
): void {
  const known = Object.keys(parameters).map((key) => key.replaceAll("_", "").toLowerCase());
  const has = (...names: string[]): boolean => names.some((name) => known.includes(name));
  const { ls_temperature: temperature, ls_max_tokens: maxTokens, ls_stop: stop } = metadata;
  if (typeof temperature === "number" && !has("temperature"))
    parameters["temperature"] = temperature;
  if (
    typeof maxTokens === "number" &&
    !has("maxtokens", "maxcompletiontokens", "maxoutputtokens")
  ) {
    parameters["max_tokens"] = maxTokens;
  }
  if (Array.isArray(stop) && stop.length > 0 && !has("stop", "stopsequences"))
    parameters["stop"] = stop;
}

function modelOfKwargs(serialized: unknown): unknown[] {
  const kwargs = isRecord(serialized) ? recordOf(serialized["kwargs"]) : {};
  return [kwargs["model"], kwargs["model_name"], kwargs["modelName"]];
}

function parameterForm(value: unknown): unknown {
  return isInteropZodSchema(value) ? jsonSchema(value) : value;
}

/** The definition of a tool as the model sees it: a provider's JSON as it is, a LangChain tool by its schema. */
function toolDefinition(tool: unknown, schemas: SchemaCache): unknown {
  if (!isRecord(tool) || typeof tool["invoke"] !== "function") return tool;
  const known = schemas.get(tool);
  if (known !== undefined) return known;
  const { name, description, schema } = tool;
  const definition = {
    type: "function",
    function: { name, description, parameters: jsonSchema(schema) },
  };
  schemas.set(tool, definition);
  return definition;
}

function jsonSchema(schema: unknown): unknown {
  try {
    return toJsonSchema(schema as Parameters<typeof toJsonSchema>[0]);
  } catch {
    return undefined;
  }
}

/** The input of a generation: the messages, with the tools and the tool choice where there are any. */
export function toModelInput(messages: unknown, call: ModelCall): unknown {
  if (call.tools.length === 0 && call.toolChoice === undefined) return messages;
  return {
    messages,
    ...(call.tools.length > 0 ? { tools: call.tools } : {}),
    ...(call.toolChoice === undefined ? {} : { tool_choice: call.toolChoice }),
  };
}

/** What a model answered: one message, or text, or a list of them where there were several; `undefined` for none. */
export function toModelOutput(result: unknown): unknown {
  const answers = generationsOf(result).flat().map(answerOf);
  return answers.length > 1 ? answers : answers[0];
}

/** The model that answered, by its own account, and why it stopped. */
export function answeredBy(result: unknown): {
  model: string | undefined;
  finishReason: string | undefined;
} {
  const generation = generationsOf(result).flat().find(isRecord);
  const message = recordOf(generation?.["message"]);
  const metadata = recordOf(message["response_metadata"]);
  const info = recordOf(generation?.["generationInfo"]);
  const output = isRecord(result) ? recordOf(result["llmOutput"]) : {};
  return {
    model: firstText([
      metadata["model_name"],
      metadata["model"],
      output["model_name"],
      output["model"],
    ]),
    finishReason: firstText([
      metadata["finish_reason"],
      metadata["stop_reason"],
      metadata["stopReason"],
      info["finish_reason"],
    ]),
  };
}

function generationsOf(result: unknown): unknown[][] {
  if (!isRecord(result) || !Array.isArray(result["generations"])) return [];
  return (result["generations"] as unknown[]).filter((list): list is unknown[] =>
    Array.isArray(list),
  );
}

function answerOf(generation: unknown): unknown {
  if (!isRecord(generation)) return generation;
  const { message, text } = generation;
  return isMessage(message) ? toChatMessage(message) : (text ?? message);
}

/** Where LangChain's metadata names a prompt that is managed in Langfuse. */
export const PROMPT_KEY = "langfusePrompt";

/** A prompt managed in Langfuse, if the metadata names one that the server would take. */
export function promptOf(
  metadata: Readonly<Record<string, unknown>>,
): { name: string; version: number; isFallback: boolean } | undefined {
  const { name, version, isFallback } = recordOf(metadata[PROMPT_KEY]);
  if (typeof name !== "string" || !Number.isInteger(version) || isFallback === true)
    return undefined;
  return { name, version: version as number, isFallback: false };
}

function firstText(candidates: readonly unknown[]): string | undefined {
  return candidates.find(
    (candidate): candidate is string => typeof candidate === "string" && candidate !== "",
  );
}

function recordOf(value: unknown): Record<string, unknown> {
  return isRecord(value) ? value : {};
}
