import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import { z } from "zod";
import type { RunEngine } from "../../engine/runs.ts";
import { ServerError } from "../../errors.ts";
import type { GraphRegistry } from "../../graphs/registry.ts";
import {
  Assistant,
  AssistantCreate,
  AssistantFilter,
  AssistantSearch,
} from "../../protocol/assistants.ts";
import type { AssistantRepository } from "../../storage/assistants.ts";
import { toPage } from "../pagination.ts";
import { route, type Route } from "../route.ts";

const Params = z.object({ assistant_id: z.string().min(1).max(512) });

/** `/assistants`. */
export function assistantRoutes(deps: {
  assistants: AssistantRepository;
  runs: RunEngine;
  graphs: () => GraphRegistry;
}): Route[] {
  return [
    route({
      method: "post",
      path: "/assistants",
      summary: "Create an assistant",
      tag: "Assistants",
      permission: "assistants:create",
      body: AssistantCreate,
      answer: { status: 200, description: "The assistant", schema: Assistant },
      async handle({ body }) {
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
        if (body.if_exists === "raise") {
          throw new ServerError("already_exists", "Assistant already exists");
        }
        return { json: await deps.assistants.get(id) };
      },
    }),
    route({
      method: "post",
      path: "/assistants/search",
      summary: "Search assistants",
      tag: "Assistants",
      permission: "assistants:search",
      body: AssistantSearch,
      answer: { status: 200, description: "A page of assistants", schema: z.array(Assistant) },
      async handle({ body }) {
        const { assistants, total } = await deps.assistants.search(body);
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
      answer: { status: 200, description: "How many there are", schema: z.int() },
      handle: async ({ body }) => ({ json: await deps.assistants.count(body) }),
    }),
    route({
      method: "get",
      path: "/assistants/:assistant_id",
      summary: "Get an assistant, by its id or by the id of its graph",
      tag: "Assistants",
      permission: "assistants:read",
      params: Params,
      answer: { status: 200, description: "The assistant", schema: Assistant },
      handle: async ({ params }) => ({ json: await deps.runs.assistant(params.assistant_id) }),
    }),
  ];
}
