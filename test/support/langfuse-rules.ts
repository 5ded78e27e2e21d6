import type { AttributeValue, ReceivedSpan } from "./langfuse-decode.ts";

/** What a real Langfuse server drops, misreads or stores wrongly, as sentences. Empty is good. */

const TYPES = new Set([
  "span",
  "generation",
  "event",
  "embedding",
  "agent",
  "tool",
  "chain",
  "retriever",
  "guardrail",
  "evaluator",
]);
const LEVELS = new Set(["DEBUG", "DEFAULT", "WARNING", "ERROR"]);
const STRINGS = [
  "langfuse.trace.name",
  "langfuse.release",
  "langfuse.version",
  "langfuse.environment",
  "langfuse.observation.status_message",
  "session.id",
  "user.id",
];
/** Attributes that make up the trace: the same on every span, or the trace changes with each batch. */
const SHARED = [
  "session.id",
  "user.id",
  "langfuse.trace.tags",
  "langfuse.trace.name",
  "langfuse.environment",
  "langfuse.release",
  "langfuse.version",
];

export function spanViolations(span: ReceivedSpan): string[] {
  const found: string[] = [];
  const { attributes } = span;
  const say = (text: string): void => void found.push(`${span.name || "<no name>"}: ${text}`);
  if (!/^(?!0+$)[0-9a-f]{32}$/.test(span.traceId)) say(`trace id "${span.traceId}"`);
  if (!/^(?!0+$)[0-9a-f]{16}$/.test(span.spanId)) say(`span id "${span.spanId}"`);
  if (span.name === "") say("no name");
  if (span.name.length > 1_000) say("name over 1000 characters");
  if (span.startNs === 0n || span.endNs === 0n) say("no start or end time");
  if (span.endNs < span.startNs) say("ends before it starts");
  if (span.scope.name !== "langfuse-sdk") say(`scope ${span.scope.name}`);
  for (const key of STRINGS) {
    if (key in attributes && typeof attributes[key] !== "string") say(`${key} is not a string`);
  }
  if (String(attributes["langfuse.trace.name"] ?? "").length > 1_000)
    say("trace name over 1000 characters");
  const type = attributes["langfuse.observation.type"];
  if (typeof type !== "string" || !TYPES.has(type)) say(`unknown type ${String(type)}`);
  const level = attributes["langfuse.observation.level"];
  if (level !== undefined && !LEVELS.has(String(level))) say(`level ${String(level)}`);
  if (!/^[a-z0-9-_]{1,40}$/.test(String(attributes["langfuse.environment"] ?? "default")))
    say("environment");
  for (const key of ["session.id", "user.id"]) {
    if (String(attributes[key] ?? "").length > 200) say(`${key} over 200 characters`);
  }
  usageViolations(type, attributes).forEach(say);
  if ("langfuse.observation.prompt.name" in attributes) {
    if (!Number.isInteger(attributes["langfuse.observation.prompt.version"]))
      say("prompt without integer version");
  }
  const started = attributes["langfuse.observation.completion_start_time"];
  if (started !== undefined && Number.isNaN(Date.parse(String(started))))
    say("completion start is not an ISO date");
  const text = JSON.stringify(attributes);
  if (/\\u0000|\\ud[89a-f]/i.test(text.replaceAll("\\\\", ""))) say("NUL or lone surrogate");
  return found;
}

function usageViolations(
  type: AttributeValue | undefined,
  attributes: Record<string, AttributeValue>,
): string[] {
  const text = attributes["langfuse.observation.usage_details"];
  if (text === undefined) return [];
  const found: string[] = [];
  if (type !== "generation" && type !== "embedding") found.push(`usage on a ${String(type)}`);
  const usage = JSON.parse(String(text)) as Record<string, unknown>;
  for (const [bucket, count] of Object.entries(usage)) {
    if (!Number.isInteger(count) || Number(count) < 0)
      found.push(`usage ${bucket} is ${String(count)}`);
  }
  const buckets = Object.entries(usage).filter(([bucket]) => bucket !== "total");
  const sum = buckets.reduce((total, [, count]) => total + Number(count), 0);
  if ("total" in usage && usage["total"] !== sum)
    found.push(`usage buckets are not exclusive: ${String(text)}`);
  return found;
}

/** What is wrong with a trace as a whole. `complete: false` allows a missing root (a run still under way). */
export function traceViolations(spans: readonly ReceivedSpan[], complete = true): string[] {
  const found: string[] = [];
  const unique = new Map(spans.map((span) => [span.spanId, span]));
  const joined = (span: ReceivedSpan): boolean =>
    span.attributes["langfuse.internal.as_root"] === true;
  const roots = [...unique.values()].filter(
    (span) => span.parentSpanId === undefined || joined(span),
  );
  const [root] = roots;
  if (roots.filter((span) => !joined(span)).length > 1)
    found.push(`${roots.length} roots: ${roots.map((span) => span.name).join(", ")}`);
  if (complete && root === undefined) found.push("no root");
  for (const span of unique.values()) {
    const detached = span.parentSpanId !== undefined && !unique.has(span.parentSpanId);
    if (complete && detached && !joined(span)) found.push(`${span.name}: orphan`);
    const reference = root ?? spans[0];
    for (const key of SHARED) {
      const own = JSON.stringify(span.attributes[key]);
      const expected = JSON.stringify(reference?.attributes[key]);
      if (own !== expected) found.push(`${span.name}: ${key} is ${own}, the root has ${expected}`);
    }
    if (root !== undefined && span.startNs < root.startNs)
      found.push(`${span.name}: starts before the root`);
  }
  return found;
}
