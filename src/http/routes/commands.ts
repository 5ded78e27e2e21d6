import { z } from "zod";
import type { CommandCaller, Commands } from "../../engine/commands.ts";
import type { RunEngine } from "../../engine/runs.ts";
import { Command, CommandAnswer } from "../../protocol/commands.ts";
import { Uuid } from "../../protocol/common.ts";
import { route, type Route } from "../route.ts";
import { startRun, type Caller } from "../start-run.ts";

const Params = z.object({ thread_id: Uuid });

/** `/threads/:thread_id/commands` of the v2 protocol. */
export function commandRoutes(deps: { commands: Commands; engine: RunEngine }): Route[] {
  return [
    route({
      method: "post",
      path: "/threads/:thread_id/commands",
      summary: "Send a command of the v2 protocol, such as run.start or input.respond",
      tag: "Threads",
      // Each command asks about what it does.
      permission: "threads:create_run",
      value: "by-route",
      params: Params,
      body: Command,
      answer: {
        status: 200,
        description: "What came of it; a refusal is an answer with `type: error`",
        schema: CommandAnswer,
      },
      async handle({ params, body, ...caller }) {
        const { thread_id: threadId } = params;
        const asks = toCommandCaller(deps.engine, threadId, caller);
        return { json: await deps.commands.execute(threadId, body, asks) };
      },
    }),
  ];
}

/** What commands may do in the name of whoever made a request. */
export function toCommandCaller(
  engine: RunEngine,
  threadId: string,
  caller: Caller,
): CommandCaller {
  return {
    start: (body) => startRun(engine, caller, { threadId, body, protocol: "v2" }),
    mayRead: async () => (await caller.authorize("threads:read", { thread_id: threadId })).filter,
  };
}
