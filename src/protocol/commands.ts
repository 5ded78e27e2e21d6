import { z } from "zod";
import { Metadata, RunnableConfig } from "./common.ts";
import { Namespace } from "./events.ts";
import { CommandUpdate, Goto, MultitaskStrategy } from "./runs.ts";

/*
 * The commands of the v2 protocol, as `@langchain/protocol` names them. `@langchain/langgraph-sdk` sends them from
 * `client.threads.stream()`.
 */

/** A command as it arrives; what is in `params` is for the method to say. */
export const Command = z.strictObject({
  id: z.int().min(0),
  method: z.string(),
  params: z.record(z.string(), z.unknown()).optional(),
});
export type Command = z.infer<typeof Command>;

/** Every error a command can be answered with. */
export const COMMAND_ERRORS = [
  "invalid_argument",
  "unknown_command",
  "unknown_error",
  "no_such_run",
  "no_such_subscription",
  "no_such_namespace",
  "no_such_interrupt",
  "no_such_checkpoint",
  "permission_denied",
  "not_supported",
] as const;
export type CommandError = (typeof COMMAND_ERRORS)[number];

export const CommandAnswer = z.union([
  z.object({
    type: z.literal("success"),
    id: z.int(),
    result: z.record(z.string(), z.unknown()),
    /** Absent where the answer is not about the thread's state. */
    meta: z.object({ thread_id: z.string(), applied_through_seq: z.int() }).optional(),
  }),
  z.object({
    type: z.literal("error"),
    id: z.int().nullable(),
    error: z.enum(COMMAND_ERRORS),
    message: z.string(),
  }),
]);
export type CommandAnswer = z.infer<typeof CommandAnswer>;

export const RunStart = z.strictObject({
  assistant_id: z.string().min(1),
  input: z.unknown().optional(),
  config: RunnableConfig.optional(),
  metadata: Metadata.optional(),
  multitask_strategy: MultitaskStrategy.optional(),
  /** The name of older clients; newer ones send both. */
  multitaskStrategy: MultitaskStrategy.optional(),
});
export type RunStart = z.infer<typeof RunStart>;

const Answer = z.strictObject({
  namespace: Namespace.optional(),
  interrupt_id: z.string(),
  response: z.unknown(),
});

const Resume = {
  update: CommandUpdate,
  goto: Goto,
  config: RunnableConfig.optional(),
  metadata: Metadata.optional(),
  /** Look once more when the run starts, and fail if a question does not wait any more. */
  strict_resume: z.boolean().optional(),
};

/** An answer to one question, or to several of the same checkpoint at once. */
export const InputRespond = z.union([
  z.strictObject({ responses: z.array(Answer).min(1), ...Resume }),
  Answer.extend(Resume),
]);
export type InputRespond = z.infer<typeof InputRespond>;

export const InputInject = z.strictObject({
  namespace: Namespace.default([]),
  message: z.looseObject({
    role: z.enum(["user", "system"]),
    content: z.string(),
    name: z.string().optional(),
  }),
});

export const StateGet = z.strictObject({
  namespace: Namespace.default([]),
  keys: z.array(z.string()).optional(),
});

export const StateListCheckpoints = z.strictObject({
  namespace: Namespace.default([]),
  limit: z.int().min(1).max(1000).default(10),
  before: z.string().optional(),
});

export const StateFork = z.strictObject({
  checkpoint_id: z.string().min(1),
  input: z.unknown().optional(),
  config: RunnableConfig.optional(),
});

export const AgentGetTree = z.strictObject({ run_id: z.uuid().optional() });

export const Unsubscribe = z.strictObject({ subscription_id: z.string() });

export const Reconnect = z.strictObject({
  run_id: z.string(),
  last_event_id: z.string().optional(),
  subscriptions: z.array(z.string()).max(100).optional(),
});
