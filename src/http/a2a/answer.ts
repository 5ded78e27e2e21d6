import { isLegacyJsonRpcMethod } from "@a2a-js/sdk/compat/v0_3";
import { LegacyJsonRpcTransportHandler } from "@a2a-js/sdk/compat/v0_3/server";
import { JsonRpcTransportHandler, ServerCallContext } from "@a2a-js/sdk/server";
import type { Logger } from "../../observability/log.ts";
import type { Assistant } from "../../protocol/assistants.ts";
import { toPatientJson } from "../keep-alive.ts";
import type { RouteAnswer } from "../route.ts";
import { toEventStream, type ServerSentEvent } from "../sse.ts";
import type { Caller } from "../start-run.ts";
import { toAgentCard } from "./card.ts";
import { A2aHandler, type A2aHandlerOptions } from "./handler.ts";
import { withRefusals } from "./refusals.ts";

export { toAgentCard, toWireCard } from "./card.ts";

/** Methods that are answered when the task is done, which may take long. */
const PATIENT = new Set(["SendMessage", "message/send", "CancelTask", "tasks/cancel"]);

export interface AnswerDeps extends Pick<
  A2aHandlerOptions,
  "engine" | "runs" | "threads" | "drawings"
> {
  serialise: (value: unknown) => string;
  version: string;
  log: Logger;
}

/** Answers one JSON-RPC request to an assistant. */
export async function answerA2a(
  deps: AnswerDeps,
  { assistant, body, caller }: { assistant: Assistant; body: unknown; caller: Caller },
): Promise<RouteAnswer> {
  const gone = new AbortController();
  const onGone = (): void => gone.abort(new Error("The client is gone."));
  const handler = new A2aHandler({
    ...deps,
    assistant,
    card: toAgentCard(assistant, { baseUrl: caller.baseUrl, version: deps.version }),
    caller,
    signal: gone.signal,
  });
  const { id = null, method } = (body ?? {}) as { id?: unknown; method?: unknown };
  const legacy = isLegacyJsonRpcMethod(method);
  const transport = legacy
    ? new LegacyJsonRpcTransportHandler(withRefusals(handler, deps.log))
    : new JsonRpcTransportHandler(withRefusals(handler, deps.log));
  const context = new ServerCallContext({ requestedVersion: legacy ? "0.3" : "1.0" });
  const answered = transport.handle(body as Record<string, unknown>, context);
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
