import { z } from "zod";
import type { RunEngine } from "../../engine/runs.ts";
import type { ThreadStates } from "../../engine/threads.ts";
import { toIdempotency } from "../../engine/idempotency.ts";
import { ServerError } from "../../errors.ts";
import { Uuid } from "../../protocol/common.ts";
import {
  Run,
  RunCancelQuery,
  RunCreate,
  RunCreateStreamQuery,
  RunJoinQuery,
  RunListQuery,
  RunStreamQuery,
  type StreamMode,
} from "../../protocol/runs.ts";
import type { Filter } from "../../protocol/filters.ts";
import type { RunRecord } from "../../storage/run-record.ts";
import type { RunRepository } from "../../storage/runs.ts";
import type { ThreadRepository } from "../../storage/threads.ts";
import { eventsAfterState, filterEvents } from "../event-filter.ts";
import { toPatientJson } from "../keep-alive.ts";
import { pick } from "../pagination.ts";
import {
  route,
  type AskedRequest,
  type Route,
  type RouteAnswer,
  type RouteRequest,
} from "../route.ts";
import { toEventStream } from "../sse.ts";
import { startRun } from "../start-run.ts";

/** What a client may send to be able to send the request again. */
export const IDEMPOTENCY = {
  "Idempotency-Key": "The same request with the same key gets the run that the first one made.",
};
const LAST_EVENT = {
  "Last-Event-ID": "The last event that was seen; -1, or none, is from the start.",
};
const ThreadParams = z.object({ thread_id: Uuid });
const RunParams = ThreadParams.extend({ run_id: Uuid });
const StatelessParams = z.object({ run_id: Uuid });

export interface RunRouteDeps {
  engine: RunEngine;
  runs: RunRepository;
  threads: ThreadRepository;
  states: ThreadStates;
  serialise: (value: unknown) => string;
  /** What the API adds to a run: its trace, while tracing is on. */
  trace: (run: RunRecord) => { trace_id?: string; trace_url?: string };
}

/** `/runs` and `/threads/:thread_id/runs`. */
export function runRoutes(deps: RunRouteDeps): Route[] {
  const handlers = createHandlers(deps);
  return [
    ...creationRoutes(handlers),
    ...resourceRoutes(deps, handlers),
    ...followRoutes(handlers),
  ];
}

type Handlers = ReturnType<typeof createHandlers>;
type Creation = RouteRequest<{ thread_id?: string } | undefined, unknown, RunCreate>;

function createHandlers(deps: RunRouteDeps) {
  const { engine, runs, threads } = deps;

  const create = (request: Creation, follows = false): Promise<RunRecord> => {
    const asked = { threadId: request.params?.thread_id, body: request.body };
    const idempotency = toIdempotency(request.headers, asked);
    return startRun(engine, request, { ...asked, idempotency, follows });
  };

  const get = async (
    params: { thread_id?: string; run_id: string },
    filter: Filter | undefined,
  ): Promise<RunRecord> => {
    const run = await runs.get(params.run_id, filter);
    const foreign = params.thread_id !== undefined && run?.thread_id !== params.thread_id;
    if (!run || foreign) {
      throw new ServerError("not_found", "Run not found");
    }
    return run;
  };

  const cancel = (run: RunRecord): void => {
    void engine.cancel(run, "interrupt", { wait: false }).catch(() => {});
  };

  /** Follows a run as server-sent events; `gone` decides whether a lost client stops the run. */
  const follow = (
    run: RunRecord,
    options: {
      after: number;
      modes?: StreamMode[] | undefined;
      namespaces: string[] | undefined;
      /** The state the reader shows already, where it names one. */
      shown?: unknown;
      cancelWhenGone: boolean;
    },
  ): Response => {
    const gone = new AbortController();
    const all = engine.events(run, options.after, gone.signal);
    const unseen = options.shown === undefined ? all : eventsAfterState(all, options.shown);
    const batches = filterEvents(unseen, options);
    return toEventStream(batches, {
      headers: locations(run),
      onGone() {
        gone.abort();
        if (options.cancelWhenGone) cancel(run);
      },
    });
  };

  /** The state at a checkpoint, as it is in a stream; `undefined` where there is none. */
  const stateAt = async (run: RunRecord, checkpointId: string): Promise<unknown> => {
    const thread = await threads.get(run.thread_id, undefined);
    if (!thread) return undefined;
    try {
      const place = { checkpoint_id: checkpointId };
      const { values } = await deps.states.read(thread, place, { subgraphs: false });
      return JSON.parse(deps.serialise(values));
    } catch (error) {
      if (error instanceof ServerError && error.code === "not_found") return undefined;
      throw error;
    }
  };

  const answer = (run: RunRecord, cancelWhenGone: boolean): Response => {
    const gone = new AbortController();
    return toPatientJson(engine.wait(run, gone.signal), {
      headers: locations(run),
      serialise: deps.serialise,
      onGone() {
        gone.abort(new Error("The client is gone."));
        if (cancelWhenGone) cancel(run);
      },
    });
  };

  return {
    create,
    get,
    follow,
    stateAt,
    answer,
    show: (run: RunRecord): Run => toRun(run, deps.trace(run)),
    accept: (run: RunRecord): Run => toAcceptedRun(run, deps.trace(run)),
    assertThread: async (threadId: string, filter: Filter | undefined): Promise<void> => {
      if (await threads.get(threadId, filter)) return;
      throw new ServerError("not_found", `Thread with ID ${threadId} not found`);
    },
  };
}

/** Background, stream and wait, each with and without a thread. */
function creationRoutes(handlers: Handlers): Route[] {
  const { create, follow, answer, accept } = handlers;
  const variants = [
    { prefix: "/threads/:thread_id", params: ThreadParams, where: "on a thread" },
    { prefix: "", params: undefined, where: "without a thread" },
  ] as const;
  return variants.flatMap(({ prefix, params, where }) => {
    const common = {
      method: "post",
      tag: "Runs",
      permission: "threads:create_run",
      value: "by-route",
      ...(params && { params }),
      body: RunCreate,
      headers: IDEMPOTENCY,
    } as const;
    return [
      route({
        ...common,
        path: `${prefix}/runs`,
        summary: `Start a run ${where}, in the background`,
        answer: { status: 200, description: "The run", schema: Run },
        async handle(request) {
          assertInBackground(request.body);
          const run = await create(request as Creation);
          return { json: accept(run), headers: locations(run) };
        },
      }),
      route({
        ...common,
        path: `${prefix}/runs/stream`,
        summary: `Start a run ${where} and stream it`,
        query: RunCreateStreamQuery,
        answer: { status: 200, description: "The run's events", stream: true },
        async handle(request) {
          const run = await create(request as Creation, true);
          return follow(run, {
            after: -1,
            namespaces: request.query.namespace,
            cancelWhenGone: request.body.on_disconnect === "cancel",
          });
        },
      }),
      route({
        ...common,
        path: `${prefix}/runs/wait`,
        summary: `Start a run ${where} and wait for its final values`,
        answer: { status: 200, description: "The final values, or `__error__`" },
        async handle(request) {
          const run = await create(request as Creation);
          return answer(run, request.body.on_disconnect === "cancel");
        },
      }),
    ];
  });
}

/** What the handlers of the SDK expect of a question about a run: its thread. */
const onThread = ({ params }: AskedRequest): Record<string, unknown> => ({
  thread_id: params["thread_id"],
});

function resourceRoutes(deps: RunRouteDeps, handlers: Handlers): Route[] {
  const { get, show, assertThread } = handlers;
  return [
    route({
      method: "get",
      path: "/threads/:thread_id/runs",
      summary: "List a thread's runs, newest first",
      tag: "Runs",
      permission: "threads:search",
      params: ThreadParams,
      query: RunListQuery,
      value: ({ params, query }) => ({
        thread_id: params["thread_id"],
        metadata: query["metadata"],
        status: query["status"],
      }),
      answer: { status: 200, description: "The runs", schema: z.array(Run) },
      async handle({ params, query, filter }) {
        const [runs] = await Promise.all([
          deps.runs.list(params.thread_id, query),
          assertThread(params.thread_id, filter),
        ]);
        return { json: pick(runs.map(show), query.select) };
      },
    }),
    route({
      method: "get",
      path: "/threads/:thread_id/runs/:run_id",
      summary: "Get a run",
      tag: "Runs",
      permission: "threads:read",
      params: RunParams,
      answer: { status: 200, description: "The run", schema: Run },
      value: onThread,
      handle: async ({ params, filter }) => ({ json: show(await get(params, filter)) }),
    }),
    route({
      method: "delete",
      path: "/threads/:thread_id/runs/:run_id",
      summary: "Stop a run if it is active, and delete it",
      tag: "Runs",
      permission: "threads:delete",
      params: RunParams,
      answer: { status: 204, description: "Deleted" },
      async handle({ params, filter }) {
        await deps.engine.delete(await get(params, filter));
        return new Response(null, { status: 204 });
      },
    }),
    route({
      method: "post",
      path: "/threads/:thread_id/runs/:run_id/cancel",
      summary: "Stop a run",
      tag: "Runs",
      permission: "threads:update",
      params: RunParams,
      query: RunCancelQuery,
      answer: { status: 202, description: "Asked to stop; with wait=1: 204, it has stopped" },
      value: ({ params, query }) => ({
        thread_id: params["thread_id"],
        action: query["action"],
        metadata: { run_ids: [params["run_id"]], status: "pending" },
      }),
      async handle({ params, query, filter }) {
        await deps.engine.cancel(await get(params, filter), query.action, {
          wait: query.wait,
          reason: query.reason === undefined ? "user" : `${query.reason}: user`,
        });
        return new Response(null, { status: query.wait ? 204 : 202 });
      },
    }),
  ];
}

/** Join and join stream. */
function followRoutes(handlers: Handlers): Route[] {
  const { get, follow, stateAt, answer } = handlers;
  const stream = async (
    request: Pick<
      RouteRequest<
        { thread_id?: string; run_id: string },
        z.output<typeof RunStreamQuery>,
        undefined
      >,
      "params" | "query" | "headers" | "filter"
    >,
  ): Promise<RouteAnswer> => {
    const { query } = request;
    const run = await get(request.params, request.filter);
    const after = toCursor(request.headers.get("last-event-id"));
    // Whoever has seen events knows better where to go on.
    const place = after < 0 ? query.checkpoint_id : undefined;
    return follow(run, {
      after,
      modes: query.stream_mode,
      namespaces: query.namespace,
      shown: place === undefined ? undefined : await stateAt(run, place),
      cancelWhenGone: query.cancel_on_disconnect,
    });
  };
  return [
    route({
      method: "get",
      path: "/threads/:thread_id/runs/:run_id/join",
      summary: "Wait for a run and get its final values",
      tag: "Runs",
      permission: "threads:read",
      params: RunParams,
      query: RunJoinQuery,
      answer: { status: 200, description: "The final values, or `__error__`" },
      value: onThread,
      handle: async ({ params, query, filter }) =>
        answer(await get(params, filter), query.cancel_on_disconnect),
    }),
    route({
      method: "get",
      path: "/threads/:thread_id/runs/:run_id/stream",
      summary: "Follow a run; Last-Event-ID continues after an event",
      tag: "Runs",
      permission: "threads:read",
      params: RunParams,
      query: RunStreamQuery,
      headers: LAST_EVENT,
      answer: { status: 200, description: "The run's events", stream: true },
      value: onThread,
      handle: stream,
    }),
    route({
      method: "get",
      path: "/runs/:run_id/stream",
      summary: "Follow a run without a thread; Last-Event-ID continues after an event",
      tag: "Runs",
      permission: "threads:read",
      params: StatelessParams,
      query: RunStreamQuery,
      headers: LAST_EVENT,
      answer: { status: 200, description: "The run's events", stream: true },
      value: onThread,
      handle: stream,
    }),
  ];
}

/** A run as the API shows it. */
export function toRun(run: RunRecord, trace: { trace_id?: string; trace_url?: string }): Run {
  return {
    run_id: run.run_id,
    thread_id: run.thread_id,
    assistant_id: run.assistant_id,
    created_at: run.created_at,
    updated_at: run.updated_at,
    status: run.status,
    metadata: run.metadata,
    kwargs: { ...run.kwargs },
    multitask_strategy: run.multitask_strategy,
    cancel_reason: run.cancel_reason,
    resumed_from: run.resumed_from,
    dropped_interrupts: run.dropped_interrupts,
    ...trace,
  };
}

/** A run that was just asked for: as it was accepted, though a worker may have begun with it by now. */
export function toAcceptedRun(
  run: RunRecord,
  trace: { trace_id?: string; trace_url?: string },
): Run {
  return { ...toRun(run, trace), status: run.ended_at ? run.status : "pending" };
}

/** A run in the background has no connection whose end could stop it. */
export function assertInBackground(body: RunCreate): void {
  if (body.on_disconnect !== "cancel") return;
  throw new ServerError(
    "invalid_request",
    'on_disconnect: "cancel" is for a run that is streamed or waited for; use cancel_on_disconnect where this run is joined.',
    { details: [{ path: "on_disconnect", message: "needs a connection" }] },
  );
}

/** Where the run is, and where a client that lost its stream finds it again. */
function locations(run: RunRecord): Record<string, string> {
  const path = run.temporary
    ? `/runs/${run.run_id}`
    : `/threads/${run.thread_id}/runs/${run.run_id}`;
  return { "Content-Location": path, Location: `${path}/stream` };
}

/** The event a client has seen last; -1 where it wants all. */
function toCursor(lastEventId: string | null): number {
  if (lastEventId === null || lastEventId === "" || lastEventId === "-1") return -1;
  if (/^\d{1,15}$/.test(lastEventId)) return Number(lastEventId);
  throw new ServerError(
    "invalid_request",
    `Last-Event-ID: "${lastEventId.slice(0, 64)}" is not the id of an event of a run; use -1 for all.`,
  );
}
