import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import { z } from "zod";
import { selectFields } from "../../engine/thread-state.ts";
import type { ThreadStates } from "../../engine/threads.ts";
import { ServerError } from "../../errors.ts";
import {
  Metadata,
  QueryFlag,
  QueryInteger,
  QueryJson,
  QueryList,
  Uuid,
} from "../../protocol/common.ts";
import {
  HistoryRequest,
  StatePatch,
  StateRead,
  StateSelect,
  StateUpdate,
  type Superstep,
  Thread,
  ThreadCreate,
  ThreadFilter,
  ThreadGetQuery,
  ThreadPatch,
  ThreadPrune,
  ThreadSearch,
} from "../../protocol/threads.ts";
import type { Filter } from "../../protocol/filters.ts";
import type { ThreadTtlRepository } from "../../storage/thread-ttl.ts";
import type { ThreadRepository } from "../../storage/threads.ts";
import { assertWithin, changesOf } from "../authorization.ts";
import { toPage } from "../pagination.ts";
import { route, type Route } from "../route.ts";

const Params = z.object({ thread_id: Uuid });
const StateParams = Params.extend({ checkpoint_id: z.string().min(1).max(512) });
const StateQuery = z.strictObject({
  subgraphs: QueryFlag.default(false),
  select: QueryList.pipe(StateSelect.unwrap()).optional(),
});
const HistoryQuery = z.strictObject({
  limit: QueryInteger.pipe(z.int().min(1).max(1000)).default(10),
  before: z.string().optional(),
  /** As JSON. */
  metadata: QueryJson.pipe(Metadata).optional(),
  checkpoint_id: z.string().optional(),
  checkpoint_ns: z.string().optional(),
  select: QueryList.pipe(StateSelect.unwrap()).optional(),
});
const answerState = { status: 200, description: "The state" };

export interface ThreadRouteDeps {
  threads: ThreadRepository;
  states: ThreadStates;
  ttls: ThreadTtlRepository;
}

/** `/threads` without their runs. */
export function threadRoutes(deps: ThreadRouteDeps): Route[] {
  const get = async (threadId: string, filter: Filter | undefined): Promise<Thread> => {
    const thread = await deps.threads.get(threadId, filter);
    if (!thread) throw new ServerError("not_found", `Thread with ID ${threadId} not found`);
    return thread;
  };
  return [...resourceRoutes(deps, get), ...stateRoutes(deps, get)];
}

type Get = (threadId: string, filter: Filter | undefined) => Promise<Thread>;

function resourceRoutes(deps: ThreadRouteDeps, get: Get): Route[] {
  /** A new thread is there with the whole history it was to have, or not at all. */
  const withHistory = async (thread: Thread, supersteps: readonly Superstep[]): Promise<Thread> => {
    try {
      await deps.states.apply(thread, supersteps);
      return await get(thread.thread_id, undefined);
    } catch (error) {
      await deps.states.delete(thread.thread_id, undefined);
      throw error;
    }
  };
  return [
    route({
      method: "post",
      path: "/threads",
      summary: "Create a thread",
      tag: "Threads",
      permission: "threads:create",
      body: ThreadCreate,
      value: ({ body }) => ({
        thread_id: body["thread_id"] ?? uuid7(),
        metadata: body["metadata"],
        if_exists: body["if_exists"],
        ttl: body["ttl"],
      }),
      answer: { status: 200, description: "The thread", schema: Thread },
      async handle({ body, filter }) {
        const id = body.thread_id ?? uuid7();
        const created = await deps.threads.create(id, body.metadata ?? {}, body.ttl);
        if (created && body.supersteps?.length) {
          return { json: await withHistory(created, body.supersteps) };
        }
        if (created) return { json: created };
        const existing =
          body.if_exists === "do_nothing" ? await deps.threads.get(id, filter) : undefined;
        if (existing) return { json: existing };
        throw new ServerError("already_exists", "Thread already exists");
      },
    }),
    route({
      method: "post",
      path: "/threads/search",
      summary: "Search threads",
      tag: "Threads",
      permission: "threads:search",
      body: ThreadSearch,
      value: ({ body }) => ({
        metadata: body["metadata"],
        ids: body["ids"],
        status: body["status"],
        values: body["values"],
        limit: body["limit"],
        offset: body["offset"],
      }),
      answer: { status: 200, description: "A page of threads", schema: z.array(Thread) },
      async handle({ body, filter }) {
        const { threads, total } = await deps.threads.search(body, filter);
        return toPage(threads, total, {
          ...body,
          select: body.select && [...body.select, "extracted"],
        });
      },
    }),
    route({
      method: "post",
      path: "/threads/count",
      summary: "Count threads",
      tag: "Threads",
      permission: "threads:search",
      body: ThreadFilter,
      value: ({ body }) => ({
        metadata: body["metadata"],
        values: body["values"],
        status: body["status"],
        limit: 0,
        offset: 0,
      }),
      answer: { status: 200, description: "How many there are", schema: z.int() },
      handle: async ({ body, filter }) => ({ json: await deps.threads.count(body, filter) }),
    }),
    route({
      method: "post",
      path: "/threads/prune",
      summary: "Delete threads, or their history but for the latest state",
      tag: "Threads",
      permission: "threads:delete",
      body: ThreadPrune,
      answer: {
        status: 200,
        description: "How many there were; with keep_latest, those with an active run are left out",
        schema: z.object({ pruned_count: z.int() }),
      },
      value: "by-route",
      async handle({ body, authorize }) {
        const ids = [...new Set(body.thread_ids)];
        const threads = await Promise.all(
          ids.map(async (thread_id) => {
            const { filter } = await authorize("threads:delete", { thread_id });
            return { thread_id, filter };
          }),
        );
        return { json: { pruned_count: await deps.states.prune(threads, body.strategy) } };
      },
    }),
    route({
      method: "get",
      path: "/threads/:thread_id",
      summary: "Get a thread",
      tag: "Threads",
      permission: "threads:read",
      params: Params,
      query: ThreadGetQuery,
      answer: { status: 200, description: "The thread", schema: Thread },
      async handle({ params, query, filter }) {
        const thread = await get(params.thread_id, filter);
        const ttl = query.include?.includes("ttl") && (await deps.ttls.get(thread.thread_id));
        return { json: ttl ? { ...thread, ttl } : thread };
      },
    }),
    route({
      method: "patch",
      path: "/threads/:thread_id",
      summary: "Merge into a thread's metadata, and set how long it is kept",
      tag: "Threads",
      permission: "threads:update",
      params: Params,
      body: ThreadPatch,
      headers: { Prefer: "return=minimal is answered with 204 and no body." },
      value: ({ params, body }) => ({
        thread_id: params["thread_id"],
        metadata: body["metadata"],
        ttl: body["ttl"],
      }),
      answer: { status: 200, description: "The thread", schema: Thread },
      async handle({ params, body, headers, filter }) {
        const thread = await deps.threads.patch(params.thread_id, body, filter);
        if (!thread) {
          throw new ServerError("not_found", `Thread with ID ${params.thread_id} not found`);
        }
        if (headers.get("prefer")?.includes("return=minimal")) {
          return new Response(null, { status: 204 });
        }
        return { json: thread };
      },
    }),
    route({
      method: "post",
      path: "/threads/:thread_id/copy",
      summary: "Copy a thread with its history",
      tag: "Threads",
      permission: "threads:create",
      value: "by-route",
      params: Params,
      answer: { status: 200, description: "The copy", schema: Thread },
      async handle({ params, authorize }) {
        const read = await authorize("threads:read", { thread_id: params.thread_id });
        const { thread_id, metadata } = await get(params.thread_id, read.filter);
        const event = "threads:create";
        const given = { thread_id: uuid7(), metadata };
        const { filter, value } = await authorize(event, given);
        const changes = changesOf(event, ThreadPatch, { given, left: value });
        assertWithin(filter, event, changes.metadata);
        const copy = await deps.states.copy(
          thread_id,
          given.thread_id,
          changes.metadata ?? metadata,
        );
        if (copy) return { json: copy };
        throw new ServerError("not_found", `Thread with ID ${params.thread_id} not found`);
      },
    }),
    route({
      method: "delete",
      path: "/threads/:thread_id",
      summary: "Stop a thread's runs and delete it with its history",
      tag: "Threads",
      permission: "threads:delete",
      params: Params,
      answer: { status: 204, description: "Deleted" },
      async handle({ params, filter }) {
        const deleted = await deps.states.delete(params.thread_id, filter);
        if (deleted) return new Response(null, { status: 204 });
        throw new ServerError("not_found", `Thread with ID ${params.thread_id} not found`);
      },
    }),
  ];
}

function stateRoutes(deps: { states: ThreadStates }, get: Get): Route[] {
  return [
    route({
      method: "get",
      path: "/threads/:thread_id/state",
      summary: "Get a thread's latest state",
      tag: "Threads",
      permission: "threads:read",
      params: Params,
      query: StateQuery,
      answer: answerState,
      async handle({ params, query, filter }) {
        const thread = await get(params.thread_id, filter);
        const state = await deps.states.read(thread, undefined, query);
        return { json: selectFields(state, query.select) };
      },
    }),
    route({
      method: "get",
      path: "/threads/:thread_id/state/:checkpoint_id",
      summary: "Get a thread's state at a checkpoint",
      tag: "Threads",
      permission: "threads:read",
      params: StateParams,
      query: StateQuery,
      answer: answerState,
      value: ({ params }) => ({ thread_id: params["thread_id"] }),
      async handle({ params, query, filter }) {
        const { thread_id, checkpoint_id } = params;
        const thread = await get(thread_id, filter);
        const state = await deps.states.read(thread, { checkpoint_id }, query);
        return { json: selectFields(state, query.select) };
      },
    }),
    route({
      method: "post",
      path: "/threads/:thread_id/state/checkpoint",
      summary: "Get a thread's state at a checkpoint, which may be a subgraph's",
      tag: "Threads",
      permission: "threads:read",
      params: Params,
      body: StateRead,
      answer: answerState,
      async handle({ params, body, filter }) {
        const thread = await get(params.thread_id, filter);
        const state = await deps.states.read(thread, body.checkpoint, body);
        return { json: selectFields(state, body.select) };
      },
    }),
    route({
      method: "post",
      path: "/threads/:thread_id/state",
      summary: "Write into a thread's state, as a node would",
      tag: "Threads",
      permission: "threads:update",
      params: Params,
      body: StateUpdate,
      answer: { status: 200, description: "The new checkpoint" },
      handle: async ({ params, body, filter }) => ({
        json: await deps.states.update(await get(params.thread_id, filter), body),
      }),
    }),
    route({
      method: "patch",
      path: "/threads/:thread_id/state",
      summary: "Merge into the metadata of a thread's latest state",
      tag: "Threads",
      permission: "threads:update",
      params: Params,
      body: StatePatch,
      answer: { status: 204, description: "Merged" },
      async handle({ params, body, filter }) {
        await deps.states.patch(await get(params.thread_id, filter), body.metadata);
        return new Response(null, { status: 204 });
      },
    }),
    route({
      method: "get",
      path: "/threads/:thread_id/history",
      summary: "List a thread's past states, newest first",
      tag: "Threads",
      permission: "threads:read",
      params: Params,
      query: HistoryQuery,
      answer: { status: 200, description: "The states" },
      async handle({ params, query: { checkpoint_id, checkpoint_ns, ...query }, filter }) {
        const thread = await get(params.thread_id, filter);
        const states = await deps.states.history(thread, {
          ...query,
          checkpoint: { checkpoint_id, checkpoint_ns },
        });
        return { json: states.map((state) => selectFields(state, query.select)) };
      },
    }),
    route({
      method: "post",
      path: "/threads/:thread_id/history",
      summary: "List a thread's past states, newest first",
      tag: "Threads",
      permission: "threads:read",
      params: Params,
      body: HistoryRequest,
      answer: { status: 200, description: "The states" },
      async handle({ params, body, filter }) {
        const thread = await get(params.thread_id, filter);
        const states = await deps.states.history(thread, body);
        return { json: states.map((state) => selectFields(state, body.select)) };
      },
    }),
  ];
}
