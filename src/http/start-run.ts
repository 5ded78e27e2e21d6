import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import type { Idempotency } from "../engine/idempotency.ts";
import { toAssistantId, type RunRequest } from "../engine/new-run.ts";
import type { RunEngine } from "../engine/runs.ts";
import { RunCreate } from "../protocol/runs.ts";
import type { RunRecord } from "../storage/run-record.ts";
import { assertWithin, changesWith } from "./authorization.ts";
import type { RouteRequest } from "./route.ts";

/** What of a request a run is started with. */
export type Caller = Pick<
  RouteRequest<unknown, unknown, unknown>,
  "principal" | "headers" | "baseUrl" | "authorize"
>;

/** Starts a run for the one who asks, if the `on` handlers let them: every way to a run goes through here. */
export async function startRun(
  engine: RunEngine,
  caller: Caller,
  run: RunAsked,
): Promise<RunRecord> {
  const { body, request } = await authorized(caller, run);
  return engine.create(run.threadId, body, request);
}

/** Starts several runs without a thread, all or none, if the `on` handlers let each of them. */
export async function startRuns(
  engine: RunEngine,
  caller: Caller,
  runs: readonly RunAsked[],
): Promise<RunRecord[]> {
  return engine.createBatch(await Promise.all(runs.map((run) => authorized(caller, run))));
}

/** What a client asks for. */
interface RunAsked {
  threadId: string | undefined;
  body: RunCreate;
  trigger?: string;
  protocol?: RunRequest["protocol"];
  follows?: boolean;
  /** The client's own, for a request that it may send again. */
  idempotency?: Idempotency | undefined;
}

async function authorized(
  caller: Caller,
  run: RunAsked,
): Promise<{ body: RunCreate; request: RunRequest }> {
  const runId = uuid7();
  const { body, filter } = await authorizeRun(caller, { ...run, runId });
  const request = {
    ...toRunRequest(caller, run.trigger ?? "api"),
    runId,
    threadFilter: filter,
    idempotency: run.idempotency,
    protocol: run.protocol,
    follows: run.follows ?? false,
  };
  return { body, request };
}

/** A run request that no event was asked about, for looking up what a run would need. */
export function toRunRequest(caller: Caller, trigger: string): RunRequest {
  const { principal, headers, baseUrl, authorize } = caller;
  return {
    principal,
    headers,
    baseUrl,
    trigger,
    threadFilter: undefined,
    assistantFilter: async (assistantId) =>
      (await authorize("assistants:read", { assistant_id: assistantId })).filter,
  };
}

/** Asks `threads:create_run`, with the run's other fields as `kwargs`, as the SDK's handlers know it. */
export async function authorizeRun(
  { authorize }: Caller,
  run: { threadId: string | undefined; body: RunCreate; runId: string },
) {
  const event = "threads:create_run";
  const { assistant_id, metadata, multitask_strategy, if_not_exists, after_seconds, ...kwargs } =
    run.body;
  const given = {
    thread_id: run.threadId,
    assistant_id: toAssistantId(assistant_id),
    run_id: run.runId,
    status: "pending",
    metadata: metadata ?? {},
    prevent_insert_if_inflight: multitask_strategy === "reject",
    multitask_strategy,
    if_not_exists,
    after_seconds: after_seconds ?? 0,
    kwargs,
  };
  const { filter, value } = await authorize(event, given);
  if (value === given) return { filter, body: run.body };
  const changes = changesWith(event, RunCreate, { given, left: value, inner: "kwargs" });
  const body: RunCreate = { ...run.body, ...changes };
  assertWithin(filter, event, body.metadata);
  return { filter, body };
}
