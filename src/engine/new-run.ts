import { v5 as uuid5, v7 as uuid7 } from "@langchain/core/utils/uuid";
import type { Principal } from "../auth/principal.ts";
import { ServerError } from "../errors.ts";
import type { Assistant } from "../protocol/assistants.ts";
import type { Filter } from "../protocol/filters.ts";
import type { RunCreate, RunKwargs, StreamMode } from "../protocol/runs.ts";
import type { NewRun } from "../storage/run-creation.ts";
import type { RunOrigin } from "../storage/run-record.ts";
import type { Idempotency } from "./idempotency.ts";

const ASSISTANT_NAMESPACE = "6ba7b821-9dad-11d1-80b4-00c04fd430c8";
/** What of a config says where a run starts, which is for that run alone. */
const PLACE = new Set(["checkpoint_id", "checkpoint_ns", "checkpoint_map"]);
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

/** The id of the assistant that every graph has: derived from the graph id, so that it is the same everywhere. */
export function systemAssistantId(graphId: string): string {
  return uuid5(graphId, ASSISTANT_NAMESPACE);
}

/** The id of the assistant that a client names by its id or by its graph. */
export function toAssistantId(idOrGraph: string): string {
  return UUID.test(idOrGraph) ? idOrGraph : systemAssistantId(idOrGraph);
}

/** Who asks for a run, and with what. */
export interface RunRequest {
  principal: Principal | undefined;
  headers: Headers;
  /** How the client reached this server, for links back to it; no trailing slash. */
  baseUrl: string;
  trigger: string;
  /** The run's id, where somebody was told it before the run is made. */
  runId?: string | undefined;
  /** What the thread must hold, if it exists, for the caller to run on it; `undefined` is no restriction. */
  threadFilter: Filter | undefined;
  /** With what a request that is sent again finds its run; `undefined` makes a run each time. */
  idempotency?: Idempotency | undefined;
  /** What an assistant must hold for the caller to use it. Not asked about the server's own for its graphs. */
  assistantFilter: (assistantId: string) => Promise<Filter | undefined>;
  /** Which events the run tells; without it, those of its stream modes. */
  protocol?: "v2" | undefined;
  /** The client follows the run's events from here, wherever it is executed. */
  follows?: boolean;
}

/** A run that leaves nothing behind has no past to start from, and nobody can answer it. */
export function assertNoThreadNeeded(body: RunCreate): void {
  const fields = ["checkpoint", "checkpoint_id", "interrupt_before", "interrupt_after"] as const;
  const asked: string[] = fields.filter((field) => body[field] !== undefined);
  // "exit" and false ask for nothing to be saved before the end, and nothing is.
  if (body.durability === "sync" || body.durability === "async") asked.push("durability");
  if (body.checkpoint_during) asked.push("checkpoint_during");
  if (body.ttl) asked.push("ttl");
  if (asked.length === 0) return;
  throw new ServerError(
    "invalid_request",
    `${asked.join(", ")}: a run without a thread has no checkpoints. Run it on a thread, or with on_completion: "keep".`,
    { details: asked.map((path) => ({ path, message: "needs a thread" })) },
  );
}

/** Only a run that came without a thread can take its thread away with it. */
export function assertThreadStays(body: RunCreate): void {
  if (body.on_completion !== "delete") return;
  throw new ServerError(
    "invalid_request",
    'on_completion: "delete" is for a run without a thread; a run on a thread leaves the thread. Delete it with DELETE /threads/{thread_id}.',
    { details: [{ path: "on_completion", message: 'must not be "delete" on a thread' }] },
  );
}

/** The run that was asked for, as it is written. */
export function toNewRun(options: {
  threadId: string;
  temporary: boolean;
  body: RunCreate;
  assistant: Assistant;
  request: RunRequest;
  alone: boolean;
  headers: Record<string, string>;
}): NewRun {
  const { threadId, temporary, body, assistant, request } = options;
  const own = assistant.config as RunKwargs["config"];
  const given = { ...body.config?.configurable, ...toPlace(body) };
  const config: RunKwargs["config"] = {
    ...own,
    ...body.config,
    configurable: { ...own.configurable, ...given },
  };
  const kwargs: RunKwargs = {
    input: body.input,
    command: body.command,
    config,
    context: toContext(assistant.context, body.context),
    stream_mode: toModes(body.stream_mode),
    interrupt_before: body.interrupt_before,
    interrupt_after: body.interrupt_after,
    subgraphs: body.stream_subgraphs,
    resumable: body.stream_resumable,
    durability: body.durability ?? toDurability(body.checkpoint_during),
    on_disconnect: body.on_disconnect,
    webhook: body.webhook,
    feedback_keys: body.feedback_keys?.length ? body.feedback_keys : undefined,
    protocol: request.protocol,
    strict_resume: body.strict_resume,
  };
  return {
    run_id: request.runId ?? uuid7(),
    thread_id: threadId,
    assistant_id: assistant.assistant_id,
    graph_id: assistant.graph_id,
    metadata: { ...assistant.metadata, ...body.metadata },
    kwargs,
    thread_config: { ...config, configurable: withoutPlace({ ...config.configurable }) },
    settings: withoutPlace(given),
    multitask_strategy: body.multitask_strategy,
    user_id: request.principal?.identity,
    temporary,
    origin: {
      ...toOrigin(temporary, body, assistant, request),
      ...(own.configurable && { given: Object.keys(given) }),
      headers: options.headers,
    },
    afterSeconds: body.after_seconds ?? 0,
    idempotency: request.idempotency,
    ttl: body.ttl,
    filter: request.threadFilter,
    claim: undefined,
    logged: body.stream_resumable
      ? "always"
      : request.follows && !options.alone
        ? "unless_claimed"
        : "on_demand",
  };
}

function withoutPlace(configurable: Record<string, unknown>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(configurable).filter(([key]) => !PLACE.has(key)));
}

function toOrigin(
  temporary: boolean,
  body: RunCreate,
  assistant: Assistant,
  request: RunRequest,
): RunOrigin {
  const { principal, headers } = request;
  const isSystem = assistant.assistant_id === systemAssistantId(assistant.graph_id);
  const session = body.metadata?.["session_id"];
  return {
    trigger: request.trigger,
    assistant_name: isSystem ? assistant.graph_id : assistant.name,
    assistant_version: assistant.version,
    ...(temporary && typeof session === "string" && { session_id: session }),
    base_url: request.baseUrl,
    traceparent: headers.get("traceparent") ?? undefined,
    ...(principal && { user: principal.user, permissions: principal.permissions }),
    ...(temporary && principal && { scope: body.metadata ?? {} }),
  };
}

/** The checkpoint a client wants to go on from, as LangGraph's config names it. */
function toPlace(body: RunCreate): Record<string, unknown> {
  const { thread_id: _thread, ...checkpoint } = body.checkpoint ?? {};
  const place = { ...checkpoint, ...(body.checkpoint_id && { checkpoint_id: body.checkpoint_id }) };
  return Object.fromEntries(
    Object.entries(place).filter(([, value]) => value !== undefined && value !== null),
  );
}

function toModes(modes: RunCreate["stream_mode"]): StreamMode[] {
  const list = modes === undefined ? [] : [modes].flat();
  return list.length === 0 ? ["values"] : [...new Set(list)];
}

function toDurability(checkpointDuring: boolean | undefined): RunKwargs["durability"] {
  return checkpointDuring === false ? "exit" : undefined;
}

/** The assistant's context with the run's on top. Never undefined, so that a graph can take it apart. */
function toContext(own: unknown, asked: unknown): unknown {
  const isRecord = (value: unknown): value is Record<string, unknown> =>
    typeof value === "object" && value !== null && !Array.isArray(value);
  if (asked === undefined) return own ?? {};
  return isRecord(own) && isRecord(asked) ? { ...own, ...asked } : asked;
}
