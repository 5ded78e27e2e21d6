import type { z } from "zod";
import { ServerError } from "../errors.ts";
import type { InputInject, InputRespond, RunStart, StateFork } from "../protocol/commands.ts";
import { RunCreate } from "../protocol/runs.ts";
import type { Thread } from "../protocol/threads.ts";
import type { RunRecord } from "../storage/run-record.ts";
import { CommandRefusal } from "./command-refusal.ts";
import type { CommandCaller, CommandContext, Outcome } from "./commands.ts";
import { answeredBy } from "./thread-events.ts";

/*
 * The commands that start a run. Its events are those of the v2 protocol, and are kept, so that every page that
 * opens the thread finds them, from whichever process.
 */

/** `run.start`: a run with new input. A thread that waits for an answer takes the input as the answer. */
export async function start(context: CommandContext, params: RunStart): Promise<Outcome> {
  const { input, multitaskStrategy, multitask_strategy: strategy = multitaskStrategy } = params;
  if (multitaskStrategy !== undefined && multitaskStrategy !== strategy) {
    throw new CommandRefusal(
      "invalid_argument",
      "multitask_strategy and multitaskStrategy say different things; send one of them.",
    );
  }
  // Not so for another place in the thread's history, where nobody waits.
  const isElsewhere = params.config?.configurable?.["checkpoint_id"] !== undefined;
  const isAnswer =
    (input ?? null) !== null && !isElsewhere && (await isWaiting(context, context.threadId));
  const run = await create(context.caller, {
    assistant_id: params.assistant_id,
    ...(isAnswer ? { command: { resume: input } } : { input }),
    config: params.config,
    metadata: params.metadata,
    multitask_strategy: strategy ?? "enqueue",
  });
  return { result: { run_id: run.run_id }, run };
}

/** `input.respond`: answers to questions of the same checkpoint, in one run. */
export async function respond(context: CommandContext, params: InputRespond): Promise<Outcome> {
  // Before the thread: a run that ends in between has left its questions there.
  const active = await context.runs.active(context.threadId);
  const thread = await context.thread();
  const waiting = questionsOf(thread);
  for (const run of active) {
    for (const id of answeredBy(run)) waiting.delete(id);
    for (const id of run.asked ?? []) waiting.add(id);
  }
  const answers = "responses" in params ? params.responses : [params];
  const unknown = answers.map((answer) => answer.interrupt_id).filter((id) => !waiting.has(id));
  if (unknown.length > 0) {
    throw new CommandRefusal(
      "no_such_interrupt",
      `Nobody waits for an answer to ${unknown.join(", ")}: it was given, or the thread went another way.`,
    );
  }
  const run = await create(context.caller, {
    assistant_id: assistantOf(thread),
    command: {
      resume: Object.fromEntries(answers.map((answer) => [answer.interrupt_id, answer.response])),
      update: params.update,
      goto: params.goto,
    },
    config: params.config,
    metadata: params.metadata,
    multitask_strategy: "enqueue",
    strict_resume: params.strict_resume,
  });
  return { result: { run_id: run.run_id }, run };
}

/** `input.inject`: a message for the agent that is at work. It is the input of a run that follows. */
export async function inject(
  context: CommandContext,
  params: z.output<typeof InputInject>,
): Promise<Outcome> {
  if (params.namespace.length > 0) {
    throw new CommandRefusal(
      "not_supported",
      "A message can only be given to the root graph: send an empty namespace.",
    );
  }
  const thread = await context.thread();
  if (thread.status !== "busy") {
    throw new CommandRefusal(
      "no_such_run",
      "No run is active on this thread. Send the message with run.start.",
    );
  }
  const run = await create(context.caller, {
    assistant_id: assistantOf(thread),
    input: { messages: [params.message] },
    multitask_strategy: "enqueue",
  });
  return { result: { run_id: run.run_id }, run };
}

/** `state.fork`: a run from an earlier checkpoint of the thread. */
export async function fork(
  context: CommandContext,
  params: z.output<typeof StateFork>,
): Promise<Outcome> {
  const thread = await context.thread();
  const { checkpoint_id: checkpointId } = params;
  try {
    await context.states.read(thread, { checkpoint_id: checkpointId }, { subgraphs: false });
  } catch (error) {
    if (!(error instanceof ServerError) || error.code !== "not_found") throw error;
    throw new CommandRefusal("no_such_checkpoint", error.message);
  }
  const run = await create(context.caller, {
    assistant_id: assistantOf(thread),
    input: params.input,
    checkpoint_id: checkpointId,
    config: params.config,
    multitask_strategy: "enqueue",
  });
  return { result: { run_id: run.run_id, thread_id: context.threadId }, run };
}

function create(
  caller: CommandCaller,
  fields: Partial<z.input<typeof RunCreate>>,
): Promise<RunRecord> {
  const asked = RunCreate.safeParse({
    ...fields,
    if_not_exists: "create",
    // For `GET /threads/:thread_id/runs` to show; the run's events are the protocol's.
    stream_mode: ["values", "updates", "messages-tuple", "tools", "custom", "tasks"],
    stream_subgraphs: true,
    stream_resumable: true,
  });
  if (asked.success) return caller.start(asked.data);
  const [issue] = asked.error.issues;
  throw new CommandRefusal("invalid_argument", `${issue?.path.join(".")}: ${issue?.message}`);
}

async function isWaiting({ threads, runs }: CommandContext, threadId: string): Promise<boolean> {
  const [active, ...later] = await runs.active(threadId);
  // It has told its question, and is about to stop.
  if (active) return later.length === 0 && (active.asked ?? []).length > 0;
  // Whether the caller may use the thread is asked when the run is written.
  const thread = await threads.get(threadId, undefined);
  return thread?.status === "interrupted" && questionsOf(thread).size > 0;
}

/** The ids of the questions a thread waits for. */
function questionsOf(thread: Thread): Set<string> {
  const interrupts = Object.values(thread.interrupts).flat() as { id?: unknown }[];
  return new Set(interrupts.flatMap(({ id }) => (typeof id === "string" ? [id] : [])));
}

function assistantOf(thread: Thread): string {
  const assistant = thread.metadata["assistant_id"];
  if (typeof assistant === "string") return assistant;
  throw new CommandRefusal("no_such_run", "No run was ever started on this thread.");
}
