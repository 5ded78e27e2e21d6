import type { z } from "zod";
import { ServerError } from "../errors.ts";
import {
  AgentGetTree,
  InputInject,
  InputRespond,
  RunStart,
  StateFork,
  StateGet,
  StateListCheckpoints,
  type Command,
  type CommandAnswer,
} from "../protocol/commands.ts";
import type { Filter } from "../protocol/filters.ts";
import type { RunCreate } from "../protocol/runs.ts";
import type { Thread } from "../protocol/threads.ts";
import type { RunRecord } from "../storage/run-record.ts";
import type { RunRepository } from "../storage/runs.ts";
import type { ThreadRepository } from "../storage/threads.ts";
import { readTree } from "./agent-tree.ts";
import { CommandRefusal } from "./command-refusal.ts";
import { fork, inject, respond, start } from "./run-commands.ts";
import type { RunEngine } from "./runs.ts";
import { getState, listCheckpoints } from "./state-commands.ts";
import { placeBefore } from "./thread-stream.ts";
import type { ThreadStates } from "./threads.ts";

/** What a command may do in the name of the one who sent it. */
export interface CommandCaller {
  /** Starts a run on the thread, if the caller may. Throws the refusal. */
  start: (body: RunCreate) => Promise<RunRecord>;
  /** What the thread must hold for the caller to read it; `undefined` is no restriction. Throws the refusal. */
  mayRead: () => Promise<Filter | undefined>;
}

export interface CommandsOptions {
  engine: RunEngine;
  runs: RunRepository;
  threads: ThreadRepository;
  states: ThreadStates;
}

/** What a command does, and for whom. */
export interface CommandContext extends CommandsOptions {
  threadId: string;
  caller: CommandCaller;
  /** The thread, for one who may read it. Throws the refusal. */
  thread: () => Promise<Thread>;
}

/** What came of a command that was carried out. */
export interface Outcome {
  result: Record<string, unknown>;
  /** The run it started. */
  run?: RunRecord;
}

const METHODS: Readonly<
  Record<string, (context: CommandContext, params: unknown) => Promise<Outcome>>
> = {
  "run.start": (context, params) => start(context, parse(RunStart, params)),
  "input.respond": (context, params) => respond(context, parse(InputRespond, params)),
  "input.inject": (context, params) => inject(context, parse(InputInject, params)),
  "state.get": (context, params) => getState(context, parse(StateGet, params)),
  "state.listCheckpoints": (context, params) =>
    listCheckpoints(context, parse(StateListCheckpoints, params)),
  "state.fork": (context, params) => fork(context, parse(StateFork, params)),
  "agent.getTree": (context, params) => getTree(context, parse(AgentGetTree, params)),
};

/** The commands of the v2 protocol that are about a thread, and not about a connection. */
export class Commands {
  readonly #options: CommandsOptions;

  constructor(options: CommandsOptions) {
    this.#options = options;
  }

  /**
   * Carries out a command; a refusal is an answer too. Throws a `ServerError` only for what may succeed when the
   * same command is sent again, and what is no `ServerError` is a bug.
   */
  async execute(threadId: string, command: Command, caller: CommandCaller): Promise<CommandAnswer> {
    const { threads } = this.#options;
    try {
      const method = METHODS[command.method];
      if (!method) throw unknownMethod(command.method);
      const context: CommandContext = {
        ...this.#options,
        threadId,
        caller,
        async thread() {
          const thread = await threads.get(threadId, await caller.mayRead());
          if (thread) return thread;
          throw new CommandRefusal(
            "no_such_run",
            `Thread with ID ${threadId} not found. Begin with run.start.`,
          );
        },
      };
      const { result, run } = await method(context, command.params ?? {});
      return {
        type: "success",
        id: command.id,
        result,
        meta: { thread_id: threadId, applied_through_seq: await this.#toldBefore(threadId, run) },
      };
    } catch (error) {
      return toErrorAnswer(command.id, error);
    }
  }

  /** The place in the thread's stream up to which everything was told before the run; 0 if nothing was. */
  async #toldBefore(threadId: string, run: RunRecord | undefined): Promise<number> {
    const position =
      run?.stream_position ?? (await this.#options.threads.lastStreamPosition(threadId));
    return Math.max(0, placeBefore(position));
  }
}

/** The answer to a command that failed. Throws what may succeed later, and bugs. */
export function toErrorAnswer(id: number | null, error: unknown): CommandAnswer {
  if (error instanceof CommandRefusal) {
    return { type: "error", id, error: error.code, message: error.message };
  }
  if (!(error instanceof ServerError) || error.status >= 500 || error.status === 429) throw error;
  const code = error.status === 403 ? "permission_denied" : "invalid_argument";
  return { type: "error", id, error: code, message: error.message };
}

/** The params of a command. Throws what is wrong with them. */
export function parse<Schema extends z.ZodType>(schema: Schema, params: unknown): z.output<Schema> {
  const parsed = schema.safeParse(params);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) =>
    [issue.path.join("."), issue.message].filter((part) => part !== "").join(": "),
  );
  throw new CommandRefusal("invalid_argument", problems.join("; "));
}

function unknownMethod(method: string): CommandRefusal {
  if (method.startsWith("subscription.")) {
    return new CommandRefusal(
      "not_supported",
      "Over HTTP a subscription is a request: POST /threads/:thread_id/stream/events.",
    );
  }
  return new CommandRefusal("unknown_command", `Unknown command: ${method.slice(0, 100)}`);
}

async function getTree(
  context: CommandContext,
  params: z.output<typeof AgentGetTree>,
): Promise<Outcome> {
  const { runs, engine, threadId } = context;
  await context.thread();
  const run = params.run_id
    ? await runs.get(params.run_id, undefined)
    : await runs.lastInStream(threadId);
  if (!run || run.thread_id !== threadId) {
    throw new CommandRefusal("no_such_run", "No run has started on this thread.");
  }
  return { result: { tree: await readTree(run, engine) } };
}
