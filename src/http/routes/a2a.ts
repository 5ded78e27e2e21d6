import { z } from "zod";
import { ServerError } from "../../errors.ts";
import type { GraphRegistry } from "../../graphs/registry.ts";
import type { Assistant } from "../../protocol/assistants.ts";
import type { AnswerDeps } from "../a2a/answer.ts";
import { toRefusedAnswer } from "../json-rpc.ts";
import { route, type Route } from "../route.ts";
import { toRunRequest, type Caller } from "../start-run.ts";

const Params = z.object({ assistant_id: z.string().min(1).max(512) });
const CardQuery = z.strictObject({ assistant_id: z.string().min(1).max(512).optional() });

export interface A2aRouteDeps extends AnswerDeps {
  graphs: () => GraphRegistry;
}

/** `/a2a`: the assistants as agents of the Agent2Agent protocol, versions 1.0 and 0.3, over JSON-RPC. */
export function a2aRoutes(deps: A2aRouteDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/a2a/:assistant_id",
      summary: "Agent2Agent: talk to an assistant",
      tag: "A2A",
      permission: "threads:create_run",
      value: "by-route",
      params: Params,
      body: z.unknown(),
      answer: { status: 200, description: "A JSON-RPC answer, or a stream of them" },
      refuse: toRefusedAnswer,
      async handle(request) {
        const assistant = await usable(deps, request.params.assistant_id, request);
        const { answerA2a } = await load();
        return answerA2a(deps, { assistant, body: request.body, caller: request });
      },
    }),
    ...cardRoutes(deps),
  ];
}

/** The card, where clients of today, of yesterday and those that only know the agent's address look for it. */
function cardRoutes(deps: A2aRouteDeps): Route[] {
  const common = {
    method: "get",
    summary: "Get the agent card of an assistant",
    tag: "A2A",
    permission: "assistants:read",
    value: "by-route",
    answer: { status: 200, description: "The agent card" },
  } as const;
  const card = async (id: string, caller: Caller): Promise<{ json: object }> => {
    const assistant = await usable(deps, id, caller);
    const { toAgentCard, toWireCard } = await load();
    const { baseUrl } = caller;
    return { json: toWireCard(toAgentCard(assistant, { baseUrl, version: deps.version })) };
  };
  return [
    ...["/.well-known/agent-card.json", "/.well-known/agent.json"].map((path) =>
      route({
        ...common,
        path,
        query: CardQuery,
        handle: (request) => card(request.query.assistant_id ?? onlyGraph(deps), request),
      }),
    ),
    route({
      ...common,
      path: "/a2a/:assistant_id/.well-known/agent-card.json",
      params: Params,
      handle: (request) => card(request.params.assistant_id, request),
    }),
  ];
}

/** The protocol's library is loaded by the first who needs it: 60 ms that no start waits for. */
const load = async () => import("../a2a/answer.ts");

/** Who may run an assistant may talk to it, and so read its card. */
function usable(deps: A2aRouteDeps, id: string, caller: Caller): Promise<Assistant> {
  return deps.engine.assistantForRun(id, toRunRequest(caller, "a2a"));
}

/** A server with one graph has one agent to speak of. */
function onlyGraph({ graphs }: A2aRouteDeps): string {
  const [first, ...others] = graphs().ids();
  if (first !== undefined && others.length === 0) return first;
  throw new ServerError(
    "invalid_request",
    `assistant_id: name the assistant, as in ?assistant_id=${first ?? "agent"}; this server has several.`,
  );
}
