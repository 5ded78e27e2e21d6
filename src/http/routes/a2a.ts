import { isLegacyJsonRpcMethod } from "@a2a-js/sdk/compat/v0_3";
import { LegacyJsonRpcTransportHandler } from "@a2a-js/sdk/compat/v0_3/server";
import { JsonRpcTransportHandler, ServerCallContext } from "@a2a-js/sdk/server";
import { z } from "zod";
import type { AssistantGraphs } from "../../engine/assistants.ts";
import type { RunEngine } from "../../engine/runs.ts";
import { ServerError } from "../../errors.ts";
import type { GraphRegistry } from "../../graphs/registry.ts";
import type { Logger } from "../../observability/log.ts";
import type { RunRepository } from "../../storage/runs.ts";
import { toAgentCard, toWireCard } from "../a2a/card.ts";
import { A2aHandler } from "../a2a/handler.ts";
import { withRefusals } from "../a2a/refusals.ts";
import { toRefusedAnswer } from "../json-rpc.ts";
import { toPatientJson } from "../keep-alive.ts";
import { route, type Route, type RouteAnswer, type RouteRequest } from "../route.ts";
import { toEventStream, type ServerSentEvent } from "../sse.ts";

const Params = z.object({ assistant_id: z.string().min(1).max(512) });
const CardQuery = z.strictObject({ assistant_id: z.string().min(1).max(512).optional() });
/** Methods that are answered when the task is done, which may take long. */
const PATIENT = new Set(["SendMessage", "message/send", "CancelTask", "tasks/cancel"]);

export interface A2aRouteDeps {
  engine: RunEngine;
  runs: RunRepository;
  drawings: AssistantGraphs;
  graphs: () => GraphRegistry;
  serialise: (value: unknown) => string;
  version: string;
  log: Logger;
}

type A2aRequest = RouteRequest<{ assistant_id: string }, undefined, unknown>;

/** `/a2a`: the assistants as agents of the Agent2Agent protocol, versions 1.0 and 0.3, over JSON-RPC. */
export function a2aRoutes(deps: A2aRouteDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/a2a/:assistant_id",
      summary: "Agent2Agent: talk to an assistant",
      tag: "A2A",
      permission: "threads:create_run",
      params: Params,
      body: z.unknown(),
      answer: { status: 200, description: "A JSON-RPC answer, or a stream of them" },
      refuse: toRefusedAnswer,
      handle: (request) => answer(deps, request),
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
    answer: { status: 200, description: "The agent card" },
  } as const;
  const card = async (id: string, baseUrl: string): Promise<RouteAnswer> => {
    const assistant = await deps.engine.assistant(id);
    return { json: toWireCard(toAgentCard(assistant, { baseUrl, version: deps.version })) };
  };
  return [
    ...["/.well-known/agent-card.json", "/.well-known/agent.json"].map((path) =>
      route({
        ...common,
        path,
        query: CardQuery,
        handle: ({ query, baseUrl }) => card(query.assistant_id ?? onlyGraph(deps), baseUrl),
      }),
    ),
    route({
      ...common,
      path: "/a2a/:assistant_id/.well-known/agent-card.json",
      params: Params,
      handle: ({ params, baseUrl }) => card(params.assistant_id, baseUrl),
    }),
  ];
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

async function answer(deps: A2aRouteDeps, request: A2aRequest): Promise<RouteAnswer> {
  const assistant = await deps.engine.assistant(request.params.assistant_id);
  const gone = new AbortController();
  const onGone = (): void => gone.abort(new Error("The client is gone."));
  const handler = new A2aHandler({
    ...deps,
    assistant,
    card: toAgentCard(assistant, { baseUrl: request.baseUrl, version: deps.version }),
    request,
    signal: gone.signal,
  });
  const { id = null, method } = (request.body ?? {}) as { id?: unknown; method?: unknown };
  const legacy = isLegacyJsonRpcMethod(method);
  const transport = legacy
    ? new LegacyJsonRpcTransportHandler(withRefusals(handler, deps.log))
    : new JsonRpcTransportHandler(withRefusals(handler, deps.log));
  const context = new ServerCallContext({ requestedVersion: legacy ? "0.3" : "1.0" });
  const answered = transport.handle(request.body as Record<string, unknown>, context);
  if (PATIENT.has(String(method))) {
    return toPatientJson(answered, { headers: {}, serialise: deps.serialise, onGone });
  }
  const result = await answered;
  if (!(Symbol.asyncIterator in result)) return { json: result };
  const toError = (error: unknown): object => ({
    jsonrpc: "2.0",
    id,
    error: legacy
      ? LegacyJsonRpcTransportHandler.mapToLegacyJSONRPCError(error)
      : JsonRpcTransportHandler.mapToJSONRPCError(error),
  });
  return toStream(result, { toError, serialise: deps.serialise, onGone });
}

/** The stream of a task; what is refused before it begins is an answer like any other. */
async function toStream(
  messages: AsyncGenerator<unknown, void, undefined>,
  options: {
    toError: (error: unknown) => object;
    serialise: (value: unknown) => string;
    onGone: () => void;
  },
): Promise<RouteAnswer> {
  const toEvent = (message: unknown): ServerSentEvent[] => [
    { event: "message", data: options.serialise(message) },
  ];
  let first: IteratorResult<unknown, void>;
  try {
    first = await messages.next();
  } catch (error) {
    return { json: options.toError(error) };
  }
  async function* events(): AsyncGenerator<ServerSentEvent[], void, void> {
    try {
      if (!first.done) yield toEvent(first.value);
      for await (const message of messages) yield toEvent(message);
    } catch (error) {
      yield toEvent(options.toError(error));
    }
  }
  return toEventStream(events(), { headers: {}, onGone: options.onGone });
}
