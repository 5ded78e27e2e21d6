import { createHash } from "node:crypto";
import type { ObservedRun } from "../observer.ts";
import { wellFormed } from "./serialise.ts";
import { parseTraceparent } from "./traceparent.ts";

/** The longest texts a Langfuse server keeps; longer ones are cut here, because it drops them silently. */
export const TEXT_LIMITS = {
  traceName: 1_000,
  observationName: 1_000,
  id: 200,
  tag: 200,
  statusMessage: 20_000,
  metadataValue: 20_000,
  metadataKeys: 100,
  clientTags: 50,
} as const;

/** The trace id of a run: the run id without dashes. Not every caller has a UUID; others are hashed. */
export function traceIdOf(runId: string): string {
  const bare = runId.replaceAll("-", "").toLowerCase();
  return /^[0-9a-f]{32}$/.test(bare) && !/^0+$/.test(bare) ? bare : sha256(runId).slice(0, 32);
}

/** The id of a run's root observation, which any process can compute. */
export function rootSpanIdOf(runId: string): string {
  return sha256(runId).slice(0, 16);
}

/** The id of an attempt's own observation, which the next attempt can compute: it tells of one that was lost. */
export function attemptSpanIdOf(runId: string, attempt: number): string {
  return sha256(`${runId}:attempt:${attempt}`).slice(0, 16);
}

/** Whether a run is traced: the same answer in every process and for every attempt. */
export function isSampled(runId: string, sampleRate: number): boolean {
  if (sampleRate >= 1) return true;
  if (sampleRate <= 0) return false;
  // Run ids may begin with a timestamp, so their own digits are not evenly spread.
  return Number.parseInt(sha256(traceIdOf(runId)).slice(0, 8), 16) / 0x1_0000_0000 < sampleRate;
}

const RESERVED_TAG = /^(?:run|thread|user|graph|assistant|trigger):/i;

/** The trace's tags: ours, then the client's own. A client's tag that could pass for ours is marked as the client's. */
export function tagsOf(run: ObservedRun, cut: Cut): string[] {
  const ours = [
    "aegra_run",
    `run:${run.run_id}`,
    `thread:${run.thread_id}`,
    ...(run.user_id === undefined ? [] : [`user:${run.user_id}`]),
    `graph:${run.graph_id}`,
    `assistant:${run.assistant_id}`,
    `trigger:${run.trigger}`,
  ];
  const theirs = [...run.tags]
    .filter((tag) => typeof tag === "string" && tag.trim() !== "")
    .map((tag) => (tag === "aegra_run" || RESERVED_TAG.test(tag.trim()) ? `client:${tag}` : tag));
  if (theirs.length > TEXT_LIMITS.clientTags) cut.note(`${theirs.length} tags`);
  const all = [...ours, ...theirs.slice(0, TEXT_LIMITS.clientTags)];
  return [...new Set(all.map((tag) => cut.text(tag, TEXT_LIMITS.tag)))];
}

const RESERVED_METADATA = new Set([
  "run_id",
  "thread_id",
  "session_id",
  "user_id",
  "graph_id",
  "assistant_id",
  "assistant_name",
  "assistant_version",
  "attempt",
  "attempts",
  "checkpoint_id",
  "resumed_from",
  "trigger",
  "status",
  "queue_wait_ms",
  "trace_id",
  "traceparent",
  "caller_trace_id",
]);
const RESERVED_PREFIX = /^(?:langgraph_|langfuse|aegra_)/i;

/** The trace's metadata: the client's keys first, ours after. A client's key that is ours is kept as `client.<key>`. */
export function metadataOf(run: ObservedRun, cut: Cut): Record<string, unknown> {
  const metadata: Record<string, unknown> = {};
  const entries = clientEntries(run.metadata);
  if (entries.length > TEXT_LIMITS.metadataKeys) cut.note(`${entries.length} metadata keys`);
  for (const [key, value] of entries.slice(0, TEXT_LIMITS.metadataKeys)) {
    const name = cut.text(key, TEXT_LIMITS.id);
    metadata[isReserved(name) ? `client.${name}` : name] = value;
  }
  const queueWaitMs = run.started_at.getTime() - run.created_at.getTime();
  return {
    ...metadata,
    run_id: run.run_id,
    thread_id: run.thread_id,
    graph_id: run.graph_id,
    assistant_id: run.assistant_id,
    assistant_version: run.assistant_version,
    attempt: run.attempt,
    trigger: run.trigger,
    ...(Number.isFinite(queueWaitMs) ? { queue_wait_ms: Math.max(0, queueWaitMs) } : {}),
    ...(run.checkpoint_id === undefined ? {} : { checkpoint_id: run.checkpoint_id }),
    ...(run.resumed_from === undefined ? {} : { resumed_from: run.resumed_from }),
    ...callerOf(run.traceparent),
  };
}

function clientEntries(metadata: Readonly<Record<string, unknown>>): Array<[string, unknown]> {
  try {
    return Object.entries(metadata);
  } catch {
    return [];
  }
}

function isReserved(key: string): boolean {
  return RESERVED_METADATA.has(key) || RESERVED_PREFIX.test(key);
}

function callerOf(traceparent: string | undefined): Record<string, string> {
  const caller = parseTraceparent(traceparent);
  return traceparent === undefined || caller === undefined
    ? {}
    : { traceparent, caller_trace_id: caller.traceId };
}

/** Cuts texts to what the server keeps, marks them, and remembers that it did. */
export interface Cut {
  text(text: string, maxChars: number): string;
  note(what: string): void;
}

/** `onCut` hears of every cut; saying it once is up to the listener. */
export function createCut(onCut: (what: string) => void): Cut {
  return {
    text(text, maxChars) {
      const whole = wellFormed(text);
      if (whole.length <= maxChars) return whole;
      onCut(`a text of ${whole.length} characters`);
      // The hash keeps two long texts with the same beginning apart.
      const mark = `…#${sha256(whole).slice(0, 12)}`;
      return `${wellFormed(whole.slice(0, maxChars - mark.length))}${mark}`;
    },
    note: onCut,
  };
}

function sha256(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
