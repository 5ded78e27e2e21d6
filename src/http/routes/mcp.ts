import { randomUUID } from "node:crypto";
import { z } from "zod";
import type { AssistantGraphs } from "../../engine/assistants.ts";
import type { RunEngine } from "../../engine/runs.ts";
import { ServerError } from "../../errors.ts";
import { Uuid } from "../../protocol/common.ts";
import {
  JSON_RPC_ERRORS,
  JsonRpcMessage,
  type JsonRpcAnswer,
  type JsonRpcId,
} from "../../protocol/json-rpc.ts";
import {
  MCP_VERSIONS,
  McpCancelled,
  McpInitialize,
  McpToolsCall,
  McpToolsList,
} from "../../protocol/mcp.ts";
import type { Logger } from "../../observability/log.ts";
import type { AssistantRepository } from "../../storage/assistants.ts";
import type { RunRecord } from "../../storage/run-record.ts";
import type { RunRepository } from "../../storage/runs.ts";
import { JsonRpcRefusal, toJsonRpcError, toRefusedAnswer } from "../json-rpc.ts";
import { toPatientJson } from "../keep-alive.ts";
import { endCall, startCall, toCallMetadata } from "../mcp/call.ts";
import { nameAssistants, toTool } from "../mcp/tools.ts";
import { logCause, toRefusal } from "../problem.ts";
import { route, type Route, type RouteAnswer, type RouteRequest } from "../route.ts";
import { toEventStream, type ServerSentEvent } from "../sse.ts";

const TOOLS_PAGE = 100;

export interface McpRouteDeps {
  assistants: AssistantRepository;
  drawings: AssistantGraphs;
  engine: RunEngine;
  log: Logger;
  runs: RunRepository;
  serialise: (value: unknown) => string;
  version: string;
}

type McpRequest = RouteRequest<undefined, undefined, unknown>;

/** `/mcp`: the assistants as tools of the Model Context Protocol, over streamable HTTP without a session. */
export function mcpRoutes(deps: McpRouteDeps): Route[] {
  return [
    route({
      method: "post",
      path: "/mcp",
      summary: "Model Context Protocol: the assistants as tools",
      tag: "MCP",
      permission: "threads:create_run",
      value: "by-route",
      body: z.unknown(),
      answer: {
        status: 200,
        description: "A JSON-RPC answer; a stream of them if progress is asked for",
      },
      refuse: toRefusedAnswer,
      async handle(request) {
        assertHeaders(request.headers);
        const message = parse(JsonRpcMessage, request.body, JSON_RPC_ERRORS.invalid_request);
        if (message.id === undefined) {
          await noteClient(deps, message, request);
          return new Response(null, { status: 202 });
        }
        try {
          return await answer(deps, { ...message, id: message.id }, request);
        } catch (error) {
          if (error instanceof ServerError) {
            return { json: { jsonrpc: "2.0", id: message.id, error: toJsonRpcError(error) } };
          }
          throw error;
        }
      },
    }),
  ];
}

async function answer(
  deps: McpRouteDeps,
  message: JsonRpcMessage & { id: JsonRpcId },
  request: McpRequest,
): Promise<RouteAnswer> {
  const params = message.params ?? {};
  const result = (value: object, headers: Record<string, string> = {}): RouteAnswer => ({
    headers,
    json: { jsonrpc: "2.0", id: message.id, result: value },
  });
  switch (message.method) {
    case "initialize":
      // Nothing is kept under this id here: the client's calls carry it, and so do their runs.
      return result(toServerInfo(deps, parse(McpInitialize, params)), {
        "Mcp-Session-Id": randomUUID(),
      });
    case "ping":
      return result({});
    case "tools/list":
      return result(await listTools(deps, parse(McpToolsList, params).cursor, request));
    case "tools/call":
      return callTool(deps, { id: message.id, call: parse(McpToolsCall, params) }, request);
    default:
      throw new JsonRpcRefusal(
        JSON_RPC_ERRORS.method_not_found,
        `Method not found: ${message.method}`,
      );
  }
}

function toServerInfo(deps: McpRouteDeps, { protocolVersion }: z.infer<typeof McpInitialize>) {
  const known = MCP_VERSIONS.find((version) => version === protocolVersion);
  return {
    protocolVersion: known ?? MCP_VERSIONS[0],
    capabilities: { tools: { listChanged: false } },
    serverInfo: { name: "aegra", version: deps.version },
  };
}

async function listTools(
  deps: McpRouteDeps,
  cursor: string | undefined,
  { authorize, requestId }: McpRequest,
): Promise<object> {
  const offset = Number(cursor ?? 0);
  if (!Number.isInteger(offset) || offset < 0) {
    throw new JsonRpcRefusal(JSON_RPC_ERRORS.invalid_params, "cursor: not one of this server");
  }
  const named = await nameAssistants(deps.assistants, authorize);
  const page = named.slice(offset, offset + TOOLS_PAGE);
  const tools = await Promise.all(
    page.map((assistant) =>
      toTool(assistant, deps.drawings).catch((error: unknown) => {
        // No call of it could work; the others are there all the same.
        const about = { request_id: requestId, assistant_id: assistant.assistant.assistant_id };
        const refusal = toRefusal(error);
        if (refusal.code === "internal") deps.log.error({ err: error, ...about }, "no MCP tool");
        logCause(refusal, deps.log, about);
        return undefined;
      }),
    ),
  );
  const next = offset + TOOLS_PAGE;
  return {
    tools: tools.filter((tool) => tool !== undefined),
    ...(next < named.length && { nextCursor: String(next) }),
  };
}

async function callTool(
  deps: McpRouteDeps,
  { id, call }: { id: JsonRpcId; call: McpToolsCall },
  request: McpRequest,
): Promise<RouteAnswer> {
  const named = await nameAssistants(deps.assistants, request.authorize);
  const tool = named.find(({ name }) => name === call.name);
  if (!tool) {
    throw new JsonRpcRefusal(JSON_RPC_ERRORS.invalid_params, `Unknown tool: ${call.name}`);
  }
  const place = { session: toSession(request.headers), request: id };
  const run = await startCall(deps.engine, tool.assistant, { call, place, caller: request });
  const gone = new AbortController();
  // Nobody else can ask for the result of a call, so nobody is left to work for.
  const onGone = (): void => {
    gone.abort(new Error("The client is gone."));
    void deps.engine.cancel(run, "interrupt", { wait: false }).catch(() => {});
  };
  const ended = (): Promise<JsonRpcAnswer> =>
    endCall(run, deps, gone.signal).then((result) => ({ jsonrpc: "2.0", id, result }));
  const token = call._meta?.progressToken;
  if (token === undefined) {
    return toPatientJson(ended(), { headers: {}, serialise: deps.serialise, onGone });
  }
  const messages = withProgress(run, { deps, token, ended, signal: gone.signal });
  return toEventStream(messages, { headers: {}, onGone });
}

/** The steps of a run as progress, then the answer. */
async function* withProgress(
  run: RunRecord,
  given: {
    deps: McpRouteDeps;
    token: JsonRpcId;
    ended: () => Promise<JsonRpcAnswer>;
    signal: AbortSignal;
  },
): AsyncGenerator<ServerSentEvent[], void, void> {
  const toEvent = (message: unknown): ServerSentEvent => ({
    event: "message",
    data: given.deps.serialise(message),
  });
  let progress = 0;
  for await (const batch of given.deps.engine.events(run, -1, given.signal)) {
    const steps = batch
      .filter(({ event }) => event === "updates")
      .flatMap(({ data }) => Object.keys((JSON.parse(data) ?? {}) as object));
    if (steps.length === 0) continue;
    yield steps.map((step) => {
      progress += 1;
      const params = { progressToken: given.token, progress, message: step };
      return toEvent({ jsonrpc: "2.0", method: "notifications/progress", params });
    });
  }
  if (!given.signal.aborted) yield [toEvent(await given.ended())];
}

/** What a client tells without waiting for an answer; of interest is only that it gave up on a call. */
async function noteClient(
  deps: McpRouteDeps,
  message: JsonRpcMessage,
  request: McpRequest,
): Promise<void> {
  const session = toSession(request.headers);
  if (message.method !== "notifications/cancelled" || session === undefined) return;
  const { requestId } = parse(McpCancelled, message.params ?? {});
  const metadata = toCallMetadata({ session, request: requestId });
  const user = request.principal?.identity ?? null;
  const { filter } = await request.authorize("threads:update", { action: "interrupt", metadata });
  for (const run of await deps.runs.findActive({ metadata, filter })) {
    if (run.user_id !== user) continue;
    await deps.engine.cancel(run, "interrupt", { wait: false, reason: "user" });
  }
}

function parse<T extends z.ZodType>(
  schema: T,
  value: unknown,
  code: number = JSON_RPC_ERRORS.invalid_params,
): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new JsonRpcRefusal(code, z.prettifyError(parsed.error));
}

function toSession(headers: Headers): string | undefined {
  return Uuid.safeParse(headers.get("mcp-session-id")).data;
}

function assertHeaders(headers: Headers): void {
  // A page of another origin can send any other type without asking first.
  if (!/^application\/json\b/i.test(headers.get("content-type") ?? "")) {
    throw new ServerError("invalid_request", "Send the Content-Type application/json.", {
      status: 415,
    });
  }
  const version = headers.get("mcp-protocol-version");
  if (version !== null && !MCP_VERSIONS.some((known) => known === version)) {
    throw new ServerError(
      "invalid_request",
      `MCP-Protocol-Version: ${version.slice(0, 64)} is not supported; use one of ${MCP_VERSIONS.join(", ")}.`,
    );
  }
}
