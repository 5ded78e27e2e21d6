import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import { z } from "zod";
import type { Authorize } from "../../auth/authorize.ts";
import { toCronRun, type Crons } from "../../engine/crons.ts";
import { toAssistantId } from "../../engine/new-run.ts";
import { ServerError } from "../../errors.ts";
import { Uuid } from "../../protocol/common.ts";
import {
  Cron,
  CronCreate,
  CronFilter,
  CronPatch,
  CronPayload,
  CronSearch,
} from "../../protocol/crons.ts";
import type { CronRecord, CronRepository } from "../../storage/crons.ts";
import { assertWithin, changesWith } from "../authorization.ts";
import { toPage } from "../pagination.ts";
import { route, type Route, type RouteAnswer } from "../route.ts";
import { authorizeRun, toRunRequest, type Caller } from "../start-run.ts";

const Params = z.object({ cron_id: Uuid });
const ThreadParams = z.object({ thread_id: Uuid });

export interface CronRouteDeps {
  crons: Crons;
  cronRows: CronRepository;
}

/** `/runs/crons` and `/threads/:thread_id/runs/crons`. */
export function cronRoutes(deps: CronRouteDeps): Route[] {
  return [...creationRoutes(deps), ...searchRoutes(deps), ...resourceRoutes(deps)];
}

/** Asks the `on` handlers about a cron, by the SDK's names; gives it as they left it. */
async function authorizeCron<Shape extends z.ZodRawShape>(
  event: "crons:create" | "crons:update",
  schema: z.ZodObject<Shape>,
  asked: {
    params: Record<string, unknown>;
    body: z.output<z.ZodObject<Shape>>;
    authorize: Authorize;
  },
) {
  const { schedule, end_time, metadata, ...payload } = asked.body as Record<string, unknown>;
  const given = { ...asked.params, schedule, end_time, metadata, payload };
  const { filter, value } = await asked.authorize(event, given);
  if (value === given) return { filter, body: asked.body };
  const changes = changesWith(event, schema, { given, left: value, inner: "payload" });
  const body = { ...asked.body, ...changes };
  assertWithin(filter, event, (body as { metadata?: unknown }).metadata);
  return { filter, body };
}

function creationRoutes({ crons }: CronRouteDeps): Route[] {
  const common = {
    method: "post",
    tag: "Crons",
    permission: "crons:create",
    value: "by-route",
    body: CronCreate,
    answer: { status: 200, description: "The cron", schema: Cron },
  } as const;
  const create = async (
    params: { thread_id?: string },
    sent: CronCreate,
    caller: Caller,
  ): Promise<RouteAnswer> => {
    const { authorize } = caller;
    const { body } = await authorizeCron("crons:create", CronCreate, {
      params,
      body: sent,
      authorize,
    });
    const threadId = params.thread_id;
    // Whoever makes a cron makes its runs.
    const asked = toCronRun({
      ...body,
      payload: CronPayload.parse(body),
      metadata: body.metadata ?? {},
    });
    const run = await authorizeRun(caller, { threadId, body: asked, runId: uuid7() });
    const left = run.body === asked ? body : { ...body, ...CronPayload.parse(run.body) };
    const cron = await crons.create(
      threadId,
      { ...left, metadata: run.body.metadata },
      { ...toRunRequest(caller, "cron"), threadFilter: run.filter },
    );
    return { json: show(cron) };
  };
  return [
    route({
      ...common,
      path: "/runs/crons",
      summary: "Make a cron whose runs have no thread, or one each",
      handle: ({ body, ...caller }) => create({}, body, caller),
    }),
    route({
      ...common,
      path: "/threads/:thread_id/runs/crons",
      summary: "Make a cron whose runs are all on one thread",
      params: ThreadParams,
      handle: ({ params, body, ...caller }) => create(params, body, caller),
    }),
  ];
}

/** A graph's id stands for its assistant, as everywhere; one that nobody knows finds nothing. */
function resolve<T extends CronFilter>(search: T): T {
  const { assistant_id: id } = search;
  return id === undefined ? search : { ...search, assistant_id: toAssistantId(id) };
}

function searchRoutes({ cronRows }: CronRouteDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/runs/crons/search",
      summary: "Search crons",
      tag: "Crons",
      permission: "crons:search",
      body: CronSearch,
      value: ({ body }) => ({
        assistant_id: body["assistant_id"],
        thread_id: body["thread_id"],
        metadata: body["metadata"],
        limit: body["limit"],
        offset: body["offset"],
      }),
      answer: { status: 200, description: "A page of crons", schema: z.array(Cron) },
      async handle({ body, filter }) {
        const { crons, total } = await cronRows.search(resolve(body), filter);
        return toPage(
          body.select ? crons : crons.map(({ now: _now, ...cron }) => cron),
          total,
          body,
        );
      },
    }),
    route({
      method: "post",
      path: "/runs/crons/count",
      summary: "Count crons",
      tag: "Crons",
      permission: "crons:search",
      body: CronFilter,
      value: ({ body }) => ({
        assistant_id: body["assistant_id"],
        thread_id: body["thread_id"],
        metadata: body["metadata"],
      }),
      answer: { status: 200, description: "How many there are", schema: z.int() },
      handle: async ({ body, filter }) => ({ json: await cronRows.count(resolve(body), filter) }),
    }),
  ];
}

function notFound(id: string): ServerError {
  return new ServerError("not_found", `Cron ${id} not found`);
}

function resourceRoutes({ crons, cronRows }: CronRouteDeps): Route[] {
  return [
    route({
      method: "get",
      path: "/runs/crons/:cron_id",
      summary: "Get a cron",
      tag: "Crons",
      permission: "crons:read",
      params: Params,
      answer: { status: 200, description: "The cron", schema: Cron },
      async handle({ params, filter }) {
        const cron = await cronRows.get(params.cron_id, filter);
        if (!cron) throw notFound(params.cron_id);
        return { json: show(cron) };
      },
    }),
    route({
      method: "patch",
      path: "/runs/crons/:cron_id",
      summary: "Change a cron; metadata is merged",
      tag: "Crons",
      permission: "crons:update",
      params: Params,
      body: CronPatch,
      value: "by-route",
      answer: { status: 200, description: "The cron", schema: Cron },
      async handle({ params, body: sent, authorize }) {
        const { body, filter } = await authorizeCron("crons:update", CronPatch, {
          params,
          body: sent,
          authorize,
        });
        return { json: show(await crons.update(params.cron_id, body, filter)) };
      },
    }),
    route({
      method: "delete",
      path: "/runs/crons/:cron_id",
      summary: "Delete a cron; its runs stay",
      tag: "Crons",
      permission: "crons:delete",
      params: Params,
      answer: { status: 204, description: "Deleted" },
      async handle({ params, filter }) {
        if (await cronRows.delete(params.cron_id, filter))
          return new Response(null, { status: 204 });
        throw notFound(params.cron_id);
      },
    }),
  ];
}

/** A cron as the API shows it. */
function show({ origin: _origin, ...cron }: CronRecord): Cron {
  return cron;
}
