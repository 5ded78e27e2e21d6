import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import { z } from "zod";
import { selectFields } from "../../engine/thread-state.ts";
import type { ThreadStates } from "../../engine/threads.ts";
import { ServerError } from "../../errors.ts";
import { QueryFlag, QueryInteger, QueryList, Uuid } from "../../protocol/common.ts";
import {
  HistoryRequest,
  StateRead,
  StateSelect,
  StateUpdate,
  Thread,
  ThreadCreate,
  ThreadFilter,
  ThreadPatch,
  ThreadSearch,
} from "../../protocol/threads.ts";
import type { ThreadRepository } from "../../storage/threads.ts";
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
});
const answerState = { status: 200, description: "The state" };

/** `/threads` without their runs. */
export function threadRoutes(deps: { threads: ThreadRepository; states: ThreadStates }): Route[] {
  const get = async (threadId: string): Promise<Thread> => {
    const thread = await deps.threads.get(threadId);
    if (!thread) throw new ServerError("not_found", `Thread with ID ${threadId} not found`);
    return thread;
  };
  return [...resourceRoutes(deps, get), ...stateRoutes(deps, get)];
}

function resourceRoutes(
  deps: { threads: ThreadRepository; states: ThreadStates },
  get: (threadId: string) => Promise<Thread>,
): Route[] {
  return [
    route({
      method: "post",
      path: "/threads",
      summary: "Create a thread",
      tag: "Threads",
      permission: "threads:create",
      body: ThreadCreate,
      answer: { status: 200, description: "The thread", schema: Thread },
      async handle({ body }) {
        const id = body.thread_id ?? uuid7();
        const created = await deps.threads.create(id, body.metadata ?? {});
        if (created) return { json: created };
        if (body.if_exists === "raise") {
          throw new ServerError("already_exists", "Thread already exists");
        }
        return { json: await get(id) };
      },
    }),
    route({
      method: "post",
      path: "/threads/search",
      summary: "Search threads",
      tag: "Threads",
      permission: "threads:search",
      body: ThreadSearch,
      answer: { status: 200, description: "A page of threads", schema: z.array(Thread) },
      async handle({ body }) {
        const { threads, total } = await deps.threads.search(body);
        return toPage(threads, total, body);
      },
    }),
    route({
      method: "post",
      path: "/threads/count",
      summary: "Count threads",
      tag: "Threads",
      permission: "threads:search",
      body: ThreadFilter,
      answer: { status: 200, description: "How many there are", schema: z.int() },
      handle: async ({ body }) => ({ json: await deps.threads.count(body) }),
    }),
    route({
      method: "get",
      path: "/threads/:thread_id",
      summary: "Get a thread",
      tag: "Threads",
      permission: "threads:read",
      params: Params,
      answer: { status: 200, description: "The thread", schema: Thread },
      handle: async ({ params }) => ({ json: await get(params.thread_id) }),
    }),
    route({
      method: "patch",
      path: "/threads/:thread_id",
      summary: "Merge into a thread's metadata",
      tag: "Threads",
      permission: "threads:update",
      params: Params,
      body: ThreadPatch,
      answer: { status: 200, description: "The thread", schema: Thread },
      async handle({ params, body, headers }) {
        const thread = await deps.threads.patch(params.thread_id, body.metadata ?? {});
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
      params: Params,
      answer: { status: 200, description: "The copy", schema: Thread },
      async handle({ params }) {
        const copy = await deps.states.copy((await get(params.thread_id)).thread_id);
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
      async handle({ params }) {
        const deleted = await deps.states.delete(params.thread_id);
        if (deleted) return new Response(null, { status: 204 });
        throw new ServerError("not_found", `Thread with ID ${params.thread_id} not found`);
      },
    }),
  ];
}

function stateRoutes(
  deps: { states: ThreadStates },
  get: (threadId: string) => Promise<Thread>,
): Route[] {
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
      async handle({ params, query }) {
        const state = await deps.states.read(await get(params.thread_id), undefined, query);
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
      async handle({ params, query }) {
        const { thread_id, checkpoint_id } = params;
        const state = await deps.states.read(await get(thread_id), { checkpoint_id }, query);
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
      async handle({ params, body }) {
        const state = await deps.states.read(await get(params.thread_id), body.checkpoint, body);
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
      handle: async ({ params, body }) => ({
        json: await deps.states.update(await get(params.thread_id), body),
      }),
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
      handle: async ({ params, query }) => ({
        json: await deps.states.history(await get(params.thread_id), query),
      }),
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
      async handle({ params, body }) {
        const states = await deps.states.history(await get(params.thread_id), body);
        return { json: states.map((state) => selectFields(state, body.select)) };
      },
    }),
  ];
}
