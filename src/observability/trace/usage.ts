import { isRecord } from "./messages.ts";

/** Token counts in exclusive buckets: no token is in two of them. */
export type UsageDetails = Record<string, number>;

/** Details whose tokens are the ordinary ones of their side; a bucket of their own would price them wrongly. */
const ORDINARY = new Set(["text", "text_tokens", "total"]);

/** LangChain's names of the two lifetimes of Anthropic's prompt cache, and Langfuse's price keys for them. */
const CACHE_LIFETIMES: ReadonlyArray<readonly [source: string, bucket: string]> = [
  ["ephemeral_5m_input_tokens", "cache_creation_5m"],
  ["ephemeral_1h_input_tokens", "cache_creation_1h"],
];

/** What a provider reported, before it is made exclusive. */
interface Reported {
  input: number;
  output: number;
  inputDetails: Record<string, number>;
  outputDetails: Record<string, number>;
  /** True where the provider counts cached tokens outside of `input`. */
  cacheOutside: boolean;
}

/**
 * The usage of a finished model call, wherever the provider put it: `usage_metadata` of the message,
 * `response_metadata.usage` (Bedrock, Anthropic), `tokenUsage`, `llmOutput.usage` or `llmOutput.tokenUsage`.
 * Buckets are exclusive integers; `undefined` if there is no usage at all. A batch of prompts is summed.
 */
export function usageOf(result: unknown): UsageDetails | undefined {
  if (!isRecord(result)) return undefined;
  const generations = Array.isArray(result["generations"])
    ? (result["generations"] as unknown[])
    : [];
  const perPrompt = generations
    .map((candidates) => (Array.isArray(candidates) ? (candidates as unknown[]) : []))
    .map((candidates) => candidates.map(reportOfGeneration).find((report) => report !== undefined))
    .filter((report) => report !== undefined);
  if (perPrompt.length > 0) return perPrompt.map(exclusive).reduce(sum);
  const output = result["llmOutput"];
  const report = isRecord(output) ? reportOfMetadata(output) : undefined;
  return report === undefined ? undefined : exclusive(report);
}

/** For a failed call: nothing was used, said aloud, or the server would price a guess. */
export const NO_USAGE: UsageDetails = { input: 0, output: 0, total: 0 };

function reportOfGeneration(generation: unknown): Reported | undefined {
  if (!isRecord(generation)) return undefined;
  const message = generation["message"];
  if (isRecord(message)) {
    const standard = parseUsage(message["usage_metadata"]);
    const metadata = message["response_metadata"];
    if (standard !== undefined) return withLifetimes(standard, metadata);
    const report = isRecord(metadata) ? reportOfMetadata(metadata) : undefined;
    if (report !== undefined) return report;
  }
  const info = generation["generationInfo"];
  return isRecord(info) ? reportOfMetadata(info) : undefined;
}

/** What LangChain leaves out of its own figures: how long Anthropic keeps what was written to its cache. */
function withLifetimes(report: Reported, metadata: unknown): Reported {
  const usage = isRecord(metadata) ? metadata["usage"] : undefined;
  const lifetimes = numbers(isRecord(usage) ? usage["cache_creation"] : undefined);
  const known = CACHE_LIFETIMES.some(([source]) => source in report.inputDetails);
  const written = CACHE_LIFETIMES.reduce((sum, [source]) => sum + (lifetimes[source] ?? 0), 0);
  return known || written === 0 || written !== report.inputDetails["cache_creation"]
    ? report
    : { ...report, inputDetails: { ...report.inputDetails, ...lifetimes } };
}

function reportOfMetadata(metadata: Record<string, unknown>): Reported | undefined {
  for (const key of [
    "usage_metadata",
    "usage",
    "tokenUsage",
    "token_usage",
    "estimatedTokenUsage",
  ]) {
    const report = parseUsage(metadata[key]);
    if (report !== undefined) return report;
  }
  return undefined;
}

function parseUsage(usage: unknown): Reported | undefined {
  if (!isRecord(usage)) return undefined;
  const input = first(usage, [
    "input_tokens",
    "prompt_tokens",
    "promptTokens",
    "inputTokens",
    "promptTokenCount",
  ]);
  const output = first(usage, [
    "output_tokens",
    "completion_tokens",
    "completionTokens",
    "outputTokens",
    "candidatesTokenCount",
  ]);
  if (input === undefined && output === undefined) return undefined;
  const native = nativeCache(usage);
  const inputDetails = {
    ...numbers(usage["input_token_details"]),
    ...renamed(usage["prompt_tokens_details"], {
      cached_tokens: "cache_read",
      audio_tokens: "audio",
    }),
    ...native,
  };
  const outputDetails = {
    ...numbers(usage["output_token_details"]),
    ...renamed(usage["completion_tokens_details"], {
      reasoning_tokens: "reasoning",
      audio_tokens: "audio",
    }),
  };
  const cached = (inputDetails["cache_read"] ?? 0) + (inputDetails["cache_creation"] ?? 0);
  const total = first(usage, ["total_tokens", "totalTokens", "totalTokenCount"]) ?? 0;
  const beyond = Math.max(0, total - (input ?? 0) - (output ?? 0));
  // Gemini's thoughts are in the total alone.
  const thoughts = beyond === cached || outputDetails["reasoning"] !== undefined ? 0 : beyond;
  if (thoughts > 0) outputDetails["reasoning"] = thoughts;
  return {
    input: input ?? 0,
    output: (output ?? 0) + thoughts,
    inputDetails,
    outputDetails,
    // Anthropic's and Bedrock's own figures leave the cache out of the input; so does whoever reports more
    // cached tokens than input, or a total that has them on top.
    cacheOutside:
      Object.keys(native).length > 0 || cached > (input ?? 0) || (cached > 0 && beyond === cached),
  };
}

/** The cache figures of Anthropic's and Bedrock's own usage objects. */
function nativeCache(usage: Record<string, unknown>): Record<string, number> {
  const read = first(usage, [
    "cache_read_input_tokens",
    "cacheReadInputTokens",
    "cacheReadInputTokenCount",
  ]);
  const written = first(usage, [
    "cache_creation_input_tokens",
    "cacheWriteInputTokens",
    "cacheWriteInputTokenCount",
  ]);
  return {
    ...(read === undefined ? {} : { cache_read: read }),
    ...(written === undefined ? {} : { cache_creation: written }),
    ...numbers(usage["cache_creation"]),
  };
}

function exclusive(report: Reported): UsageDetails {
  const details = splitCacheLifetimes(report.inputDetails);
  const usage: UsageDetails = {};
  const inputLeft = takeOut(usage, {
    prefix: "input",
    left: report.input,
    details,
    outside: report.cacheOutside,
  });
  const outputLeft = takeOut(usage, {
    prefix: "output",
    left: report.output,
    details: report.outputDetails,
    outside: false,
  });
  const buckets: UsageDetails = { input: inputLeft, output: outputLeft, ...usage };
  return { ...buckets, total: Object.values(buckets).reduce((total, count) => total + count, 0) };
}

/** The lifetimes are parts of `cache_creation`; what they do not explain of it stays under its own name. */
function splitCacheLifetimes(details: Record<string, number>): Record<string, number> {
  const split: Record<string, number> = { ...details };
  let explained = 0;
  for (const [source, bucket] of CACHE_LIFETIMES) {
    const count = split[source];
    if (count === undefined) continue;
    delete split[source];
    if (count > 0) split[bucket] = count;
    explained += count;
  }
  if (explained > 0 && split["cache_creation"] !== undefined) {
    const rest = split["cache_creation"] - explained;
    if (rest > 0) split["cache_creation"] = rest;
    else delete split["cache_creation"];
  }
  return split;
}

function takeOut(
  usage: UsageDetails,
  side: { prefix: string; left: number; details: Record<string, number>; outside: boolean },
): number {
  let left = side.left;
  for (const [key, count] of Object.entries(side.details)) {
    if (ORDINARY.has(key)) continue;
    const inside = !(side.outside && key.startsWith("cache_"));
    // Details may overlap (cached audio), but their sum may not exceed what was counted.
    const taken = inside ? Math.min(count, left) : count;
    if (inside) left -= taken;
    if (taken > 0) usage[`${side.prefix}_${key}`] = taken;
  }
  return left;
}

function sum(left: UsageDetails, right: UsageDetails): UsageDetails {
  const total = { ...left };
  for (const [key, count] of Object.entries(right)) total[key] = (total[key] ?? 0) + count;
  return total;
}

function first(source: Record<string, unknown>, keys: readonly string[]): number | undefined {
  for (const key of keys) {
    const count = toCount(source[key]);
    if (count !== undefined) return count;
  }
  return undefined;
}

function numbers(source: unknown): Record<string, number> {
  if (!isRecord(source)) return {};
  return Object.fromEntries(
    Object.entries(source)
      .map(([key, value]) => [key, toCount(value)] as const)
      .filter((entry): entry is [string, number] => entry[1] !== undefined),
  );
}

function renamed(source: unknown, names: Record<string, string>): Record<string, number> {
  const counts = numbers(source);
  return Object.fromEntries(
    Object.entries(names)
      .filter(([key]) => counts[key] !== undefined)
      .map(([key, name]) => [name, counts[key] as number]),
  );
}

function toCount(value: unknown): number | undefined {
  return typeof value === "number" && Number.isFinite(value) && value >= 0
    ? Math.round(value)
    : undefined;
}
