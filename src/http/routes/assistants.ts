import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import { z } from "zod";
import type { AssistantGraphs } from "../../engine/assistants.ts";
import { systemAssistantId } from "../../engine/new-run.ts";
import type { RunEngine } from "../../engine/runs.ts";
import type { ThreadStates } from "../../engine/threads.ts";
import { ServerError } from "../../errors.ts";
import type { GraphRegistry } from "../../graphs/registry.ts";
import {
  Assistant,
  AssistantCreate,
  AssistantFilter,
  AssistantLatestRequest,
  AssistantPatch,
  AssistantSearch,
  AssistantVersion,
  AssistantVersionsRequest,
} from "../../protocol/assistants.ts";
import { QueryFlag, QueryInteger } from "../../protocol/common.ts";
import type { AssistantRepository } from "../../storage/assistants.ts";
import type { ThreadRepository } from "../../storage/threads.ts";
import { toPage } from "../pagination.ts";
import { route, type Route } from "../route.ts";

const Params = z.object({ assistant_id: z.string().min(1).max(512) });

export interface AssistantRouteDeps {
  assistants: AssistantRepository;
  threads: ThreadRepository;
  states: ThreadStates;
  drawings: AssistantGraphs;
  runs: RunEngine;
  graphs: () => GraphRegistry;
}

/** `/assistants`. */
export function assistantRoutes(deps: AssistantRouteDeps): Route[] {
  return [...resourceRoutes(deps), ...versionRoutes(deps), ...graphRoutes(deps)];
}

const notFound = (id: string): ServerError =>
  new ServerError("not_found", `Assistant "${id}" not found`);

function searchValue(
  { graph_id, metadata }: Record<string, unknown>,
  page: Record<string, unknown>,
): Record<string, unknown> {
  return { graph_id, metadata, ...page };
}

function resourceRoutes(deps: AssistantRouteDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/assistants",
      summary: "Create an assistant",
      tag: "Assistants",
      permission: "assistants:create",
      body: AssistantCreate,
      value: ({ body }) => ({
        assistant_id: body["assistant_id"] ?? uuid7(),
        graph_id: body["graph_id"],
        config: body["config"],
        context: body["context"],
        metadata: body["metadata"],
        if_exists: body["if_exists"],
        name: body["name"],
        description: body["description"],
      }),
      answer: { status: 200, description: "The assistant", schema: Assistant },
      async handle({ body, filter }) {
        if (!deps.graphs().has(body.graph_id)) {
          throw new ServerError("not_found", `Graph "${body.graph_id}" not found`);
        }
        const id = body.assistant_id ?? uuid7();
        const created = await deps.assistants.create({
          assistant_id: id,
          graph_id: body.graph_id,
          name: body.name ?? "Untitled",
          description: body.description ?? null,
          config: body.config ?? {},
          context: body.context ?? {},
          metadata: body.metadata ?? {},
        });
        if (created) return { json: created };
        const existing =
          body.if_exists === "do_nothing" ? await deps.assistants.get(id, filter) : undefined;
        if (existing) return { json: existing };
        throw new ServerError("already_exists", "Assistant already exists");
      },
    }),
    route({
      method: "post",
      path: "/assistants/search",
      summary: "Search assistants",
      tag: "Assistants",
      permission: "assistants:search",
      body: AssistantSearch,
      value: ({ body }) => searchValue(body, { limit: body["limit"], offset: body["offset"] }),
      answer: { status: 200, description: "A page of assistants", schema: z.array(Assistant) },
      async handle({ body, filter }) {
        const { assistants, total } = await deps.assistants.search(body, filter);
        return toPage(assistants, total, body);
      },
    }),
    route({
      method: "post",
      path: "/assistants/count",
      summary: "Count assistants",
      tag: "Assistants",
      permission: "assistants:search",
      body: AssistantFilter,
      value: ({ body }) => searchValue(body, { limit: 0, offset: 0 }),
      answer: { status: 200, description: "How many there are", schema: z.int() },
      handle: async ({ body, filter }) => ({ json: await deps.assistants.count(body, filter) }),
    }),
    route({
      method: "get",
      path: "/assistants/:assistant_id",
      summary: "Get an assistant, by its id or by the id of its graph",
      tag: "Assistants",
      permission: "assistants:read",
      params: Params,
      answer: { status: 200, description: "The assistant", schema: Assistant },
      handle: async ({ params, filter }) => ({
        json: await deps.runs.assistant(params.assistant_id, filter),
      }),
    }),
    route({
      method: "delete",
      path: "/assistants/:assistant_id",
      summary: "Delete an assistant, and with delete_threads=true its threads",
      tag: "Assistants",
      permission: "assistants:delete",
      params: Params,
      query: z.strictObject({ delete_threads: QueryFlag.default(false) }),
      answer: { status: 204, description: "Deleted" },
      async handle({ params, query, filter, authorize }) {
        const { assistant_id: id, graph_id } = await deps.runs.assistant(
          params.assistant_id,
          filter,
        );
        if (id === systemAssistantId(graph_id)) {
          throw new ServerError(
            "conflict",
            "This assistant is the server's own for its graph; remove the graph from the configuration instead.",
          );
        }
        if (query.delete_threads) {
          // The threads are their owners': only those that the caller may delete go.
          const mine = (await authorize("threads:delete", {})).filter;
          for (;;) {
            const threads = await deps.threads.ofAssistant(id, mine);
            for (const thread of threads) await deps.states.delete(thread, mine);
            if (threads.length === 0) break;
          }
        }
        if (!(await deps.assistants.delete(id, filter))) throw notFound(id);
        return new Response(null, { status: 204 });
      },
    }),
  ];
}

/** Versions: each PATCH makes one, and any of them can be put in force. */
function versionRoutes(deps: AssistantRouteDeps): Route[] {
  return [
    route({
      method: "patch",
      path: "/assistants/:assistant_id",
      summary: "Make a new version of an assistant, which keeps what is not named",
      tag: "Assistants",
      permission: "assistants:update",
      params: Params,
      body: AssistantPatch,
      value: ({ params, body }) => ({
        assistant_id: params["assistant_id"],
        graph_id: body["graph_id"],
        config: body["config"],
        context: body["context"],
        metadata: body["metadata"],
        name: body["name"],
        description: body["description"],
      }),
      answer: { status: 200, description: "The assistant", schema: Assistant },
      async handle({ params, body, filter }) {
        if (body.graph_id !== undefined && !deps.graphs().has(body.graph_id)) {
          throw new ServerError("not_found", `Graph "${body.graph_id}" not found`);
        }
        const { assistant_id: id } = await deps.runs.assistant(params.assistant_id, filter);
        const patched = await deps.assistants.patch(id, body, filter);
        if (!patched) throw notFound(id);
        return { json: patched };
      },
    }),
    route({
      method: "post",
      path: "/assistants/:assistant_id/versions",
      summary: "List an assistant's versions, newest first",
      tag: "Assistants",
      permission: "assistants:read",
      params: Params,
      body: AssistantVersionsRequest,
      answer: { status: 200, description: "The versions", schema: z.array(AssistantVersion) },
      async handle({ params, body, filter }) {
        const { assistant_id: id } = await deps.runs.assistant(params.assistant_id, filter);
        return { json: await deps.assistants.versions(id, body, filter) };
      },
    }),
    route({
      method: "post",
      path: "/assistants/:assistant_id/latest",
      summary: "Put a version in force",
      tag: "Assistants",
      permission: "assistants:update",
      params: Params,
      body: AssistantLatestRequest,
      value: ({ params, body }) => ({
        assistant_id: params["assistant_id"],
        version: body["version"],
      }),
      answer: { status: 200, description: "The assistant", schema: Assistant },
      async handle({ params, body, filter }) {
        const { assistant_id: id } = await deps.runs.assistant(params.assistant_id, filter);
        const assistant = await deps.assistants.setLatest(id, body.version, filter);
        if (assistant) return { json: assistant };
        throw new ServerError("not_found", `Assistant "${id}" has no version ${body.version}`);
      },
    }),
  ];
}

/** The graph behind an assistant, as Studio draws it. */
function graphRoutes(deps: AssistantRouteDeps): Route[] {
  const SubgraphParams = Params.extend({ namespace: z.string().min(1).max(512) });
  const SubgraphQuery = z.strictObject({ recurse: QueryFlag.default(false) });
  const common = { method: "get", tag: "Assistants", permission: "assistants:read" } as const;
  return [
    route({
      ...common,
      path: "/assistants/:assistant_id/graph",
      summary: "Get the graph as nodes and edges",
      params: Params,
      query: z.strictObject({ xray: z.union([QueryInteger, QueryFlag]).default(false) }),
      answer: { status: 200, description: "The graph" },
      async handle({ params, query, filter }) {
        const assistant = await deps.runs.assistant(params.assistant_id, filter);
        return { json: await deps.drawings.draw(assistant, query.xray) };
      },
    }),
    route({
      ...common,
      path: "/assistants/:assistant_id/schemas",
      summary: "Get the JSON schemas of the graph",
      params: Params,
      answer: { status: 200, description: "The schemas" },
      async handle({ params, filter }) {
        const assistant = await deps.runs.assistant(params.assistant_id, filter);
        return { json: await deps.drawings.schemas(assistant) };
      },
    }),
    route({
      ...common,
      path: "/assistants/:assistant_id/subgraphs",
      summary: "Get the schemas of the subgraphs",
      params: Params,
      query: SubgraphQuery,
      answer: { status: 200, description: "The schemas by namespace" },
      async handle({ params, query, filter }) {
        const assistant = await deps.runs.assistant(params.assistant_id, filter);
        return { json: await deps.drawings.subgraphs(assistant, undefined, query.recurse) };
      },
    }),
    route({
      ...common,
      path: "/assistants/:assistant_id/subgraphs/:namespace",
      summary: "Get the schemas of one subgraph",
      params: SubgraphParams,
      query: SubgraphQuery,
      answer: { status: 200, description: "The schemas by namespace" },
      async handle({ params, query, filter }) {
        const assistant = await deps.runs.assistant(params.assistant_id, filter);
        return { json: await deps.drawings.subgraphs(assistant, params.namespace, query.recurse) };
      },
    }),
  ];
}
