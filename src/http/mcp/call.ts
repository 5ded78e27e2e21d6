import type { RunAnswer } from "../../engine/run-reader.ts";
import type { RunEngine } from "../../engine/runs.ts";
import type { Assistant } from "../../protocol/assistants.ts";
import type { McpToolResult, McpToolsCall } from "../../protocol/mcp.ts";
import { RunCreate } from "../../protocol/runs.ts";
import type { RunRecord } from "../../storage/run-record.ts";
import type { RunRepository } from "../../storage/runs.ts";
import { startRun, type Caller } from "../start-run.ts";

/** Which request of which client a call is, so that the client can cancel it. */
export interface CallPlace {
  session: string | undefined;
  request: string | number;
}

/** How a call finds its run again: the run's metadata, which its trace shows too. */
export function toCallMetadata({ session, request }: CallPlace): Record<string, unknown> {
  if (session === undefined) return {};
  return { session_id: session, mcp_request_id: request };
}

/** Starts the run of a call: without a thread, since a tool call is one question and one answer. */
export function startCall(
  engine: RunEngine,
  assistant: Assistant,
  given: { call: McpToolsCall; place: CallPlace; caller: Caller },
): Promise<RunRecord> {
  const { call, place, caller } = given;
  const body = RunCreate.parse({
    assistant_id: assistant.assistant_id,
    input: call.arguments ?? {},
    metadata: toCallMetadata(place),
    on_disconnect: "cancel",
    // Each update is a step that the client can be told of.
    stream_mode: call._meta?.progressToken === undefined ? "values" : "updates",
  });
  return startRun(engine, caller, { threadId: undefined, body, trigger: "mcp" });
}

/** Waits for the end of a call's run. Whatever became of the run is a result that a model can read. */
export async function endCall(
  run: RunRecord,
  deps: { engine: RunEngine; runs: RunRepository; serialise: (value: unknown) => string },
  signal: AbortSignal,
): Promise<McpToolResult> {
  const answer = await deps.engine.wait(run, signal);
  const ended = await deps.runs.get(run.run_id, undefined);
  if (ended?.status === "interrupted") return failure("The run was cancelled.");
  return toToolResult(answer, deps.serialise);
}

function toToolResult(answer: RunAnswer, serialise: (value: unknown) => string): McpToolResult {
  if (isFailure(answer)) {
    return failure(`${answer.__error__.error}: ${answer.__error__.message}`);
  }
  const isObject = typeof answer === "object" && answer !== null && !Array.isArray(answer);
  return {
    content: [{ type: "text", text: serialise(answer) }],
    ...(isObject && { structuredContent: answer }),
    isError: false,
  };
}

function isFailure(answer: RunAnswer): answer is { __error__: { error: string; message: string } } {
  return typeof answer === "object" && answer !== null && "__error__" in answer;
}

function failure(text: string): McpToolResult {
  return { content: [{ type: "text", text }], isError: true };
}
