import { z } from "zod";
import {
  Checkpoint,
  MAX_NAME_LENGTH,
  Metadata,
  QueryFlag,
  QueryInteger,
  QueryList,
  RunnableConfig,
  Uuid,
} from "./common.ts";
import { FeedbackKey } from "./feedback.ts";
import { ThreadTtl } from "./thread-ttl.ts";

export const RunStatus = z.enum([
  "pending",
  "running",
  "success",
  "error",
  "timeout",
  "interrupted",
]);
export type RunStatus = z.infer<typeof RunStatus>;

export const StreamMode = z.enum([
  "values",
  "updates",
  "messages",
  "messages-tuple",
  "custom",
  "debug",
  "events",
  "tasks",
  "checkpoints",
  "tools",
]);
export type StreamMode = z.infer<typeof StreamMode>;

export const MultitaskStrategy = z.enum(["reject", "enqueue", "interrupt", "rollback"]);
export type MultitaskStrategy = z.infer<typeof MultitaskStrategy>;

export const Run = z.object({
  run_id: Uuid,
  thread_id: Uuid,
  assistant_id: Uuid,
  created_at: z.date(),
  updated_at: z.date(),
  status: RunStatus,
  metadata: Metadata,
  kwargs: z.record(z.string(), z.unknown()),
  multitask_strategy: MultitaskStrategy,
  cancel_reason: z.string().nullable(),
  /** The run that stopped at a question and that this one goes on from. */
  resumed_from: Uuid.nullable(),
  /** The questions this run went past without an answer: nobody can answer them any more. */
  dropped_interrupts: z.array(z.unknown()).nullable(),
  /** The trace of this run: its id without dashes. Absent while tracing is off. */
  trace_id: z.string().optional(),
  trace_url: z.string().optional(),
});
export type Run = z.infer<typeof Run>;

/** A node to go to with an input of its own; `args` is what LangGraph's own `Send` calls the input. */
const SendTarget = z
  .strictObject({
    node: z.string(),
    input: z.unknown().optional(),
    args: z.unknown().optional(),
    lg_name: z.literal("Send").optional(),
  })
  .transform(({ node, input, args }) => ({ node, input: input ?? args }));
const GotoTarget = z.union([z.string(), SendTarget]);

/** Where a command sends a graph, and what it writes into the state. */
export const Goto = z.union([GotoTarget, z.array(GotoTarget)]).nullish();
export const CommandUpdate = z
  .union([z.record(z.string(), z.unknown()), z.array(z.tuple([z.string(), z.unknown()]))])
  .nullish();

export const Command = z
  .strictObject({
    goto: Goto,
    update: CommandUpdate,
    // LangGraph takes a null answer for no answer.
    resume: z.unknown(),
    // How LangGraph's own `Command` introduces itself: `RemoteGraph` sends one as it is.
    lg_name: z.literal("Command"),
  })
  .partial()
  .refine(
    ({ goto, update, resume }) => [goto, update, resume].some((part) => (part ?? null) !== null),
    "needs goto, update, or a resume that is not null",
  )
  .transform(({ lg_name: _name, ...command }) => command);
export type Command = z.infer<typeof Command>;

const NodeNames = z.union([z.literal("*"), z.array(z.string())]);

export const RunCreate = z.strictObject({
  assistant_id: z.string().min(1).max(MAX_NAME_LENGTH),
  input: z.unknown().optional(),
  command: Command.optional(),
  checkpoint_id: z.string().optional(),
  checkpoint: Checkpoint.optional(),
  metadata: Metadata.optional(),
  config: RunnableConfig.optional(),
  context: z.unknown().optional(),
  interrupt_before: NodeNames.optional(),
  interrupt_after: NodeNames.optional(),
  on_disconnect: z.enum(["continue", "cancel"]).default("continue"),
  multitask_strategy: MultitaskStrategy.default("reject"),
  stream_mode: z.union([StreamMode, z.array(StreamMode)]).optional(),
  stream_subgraphs: z.boolean().default(false),
  stream_resumable: z.boolean().default(false),
  after_seconds: z
    .number()
    .min(0)
    .max(366 * 24 * 3600)
    .optional(),
  if_not_exists: z.enum(["reject", "create"]).default("reject"),
  /** What becomes of the thread of a run without one: by default it is gone with the run. */
  on_completion: z.enum(["delete", "keep"]).optional(),
  /** The stream ends with a signed link for each, through which a person can judge the run. */
  feedback_keys: z.array(FeedbackKey).max(20).optional(),
  durability: z.enum(["sync", "async", "exit"]).optional(),
  checkpoint_during: z.boolean().optional(),
  /** Where the run is posted when it has ended: a URL, or a path on this server. */
  webhook: z.string().min(1).optional(),
  /** How long the run's thread is kept after its last use. */
  ttl: ThreadTtl.optional(),
  /** Fail, and leave the thread as it is, if the resume answers a question that does not wait. */
  strict_resume: z.boolean().optional(),
});
export type RunCreate = z.infer<typeof RunCreate>;

/** The SDK for JavaScript sends a batch's runs with the names its own options have. */
const BATCH_ALIASES: ReadonlyMap<string, string> = new Map(
  Object.keys(RunCreate.shape).map((name) => [
    name.replaceAll(/_([a-z])/g, (_all, letter: string) => letter.toUpperCase()),
    name,
  ]),
);

function toWireNames(run: unknown): unknown {
  if (typeof run !== "object" || run === null || Array.isArray(run)) return run;
  return Object.fromEntries(
    Object.entries(run)
      .filter(([, value]) => value !== null)
      .map(([name, value]) => [BATCH_ALIASES.get(name) ?? name, value]),
  );
}

/** Several runs without a thread. */
export const RunBatchCreate = z.array(z.preprocess(toWireNames, RunCreate)).min(1).max(1000);

/** Which runs to stop: these of a thread, or all with a status. */
export const RunsCancel = z
  .strictObject({
    thread_id: Uuid.optional(),
    run_ids: z.array(Uuid).min(1).max(1000).optional(),
    status: z.enum(["pending", "running", "all"]).optional(),
  })
  .refine((which) => (which.run_ids === undefined) !== (which.status === undefined), {
    error: "send either run_ids or status",
    path: ["run_ids"],
  });
export type RunsCancel = z.infer<typeof RunsCancel>;

/** What a run was asked to do, as it is stored with the run and shown in the API. */
export interface RunKwargs {
  input?: unknown;
  command?: Command | undefined;
  config: RunnableConfig;
  context?: unknown;
  stream_mode: StreamMode[];
  interrupt_before?: "*" | string[] | undefined;
  interrupt_after?: "*" | string[] | undefined;
  subgraphs: boolean;
  resumable: boolean;
  durability?: "sync" | "async" | "exit" | undefined;
  feedback_keys?: string[] | undefined;
  strict_resume?: boolean | undefined;
  on_disconnect: "continue" | "cancel";
  /** Set for a run whose events are those of the v2 protocol; `stream_mode` says nothing then. */
  protocol?: "v2" | undefined;
  webhook?: string | undefined;
}

export const RUN_FIELDS = [
  "run_id",
  "thread_id",
  "assistant_id",
  "created_at",
  "updated_at",
  "status",
  "metadata",
  "kwargs",
  "multitask_strategy",
  "cancel_reason",
  "resumed_from",
  "dropped_interrupts",
] as const;

export const RunListQuery = z.strictObject({
  limit: QueryInteger.pipe(z.int().min(1).max(1000)).default(10),
  offset: QueryInteger.default(0),
  status: RunStatus.optional(),
  select: QueryList.pipe(z.array(z.enum(RUN_FIELDS))).optional(),
});
export type RunListQuery = z.infer<typeof RunListQuery>;

/** `?namespace=a&namespace=b`, one at a time: a namespace may hold any character. "" is the root graph. */
const Namespaces = z
  .union([z.string(), z.array(z.string())])
  .transform((value) => [value].flat())
  .optional();

export const RunCreateStreamQuery = z.strictObject({ namespace: Namespaces });

export const RunStreamQuery = z.strictObject({
  stream_mode: QueryList.pipe(z.array(StreamMode)).optional(),
  namespace: Namespaces,
  /** What the reader shows already: only later events, or all if none of the run's `values` is of this state. */
  checkpoint_id: z.string().max(MAX_NAME_LENGTH).optional(),
  cancel_on_disconnect: QueryFlag.default(false),
});

export const RunJoinQuery = z.strictObject({
  cancel_on_disconnect: QueryFlag.default(false),
});

export const CancelAction = z.enum(["interrupt", "rollback"]);
export type CancelAction = z.infer<typeof CancelAction>;

export const RunCancelQuery = z
  .strictObject({
    wait: QueryFlag.default(false),
    action: CancelAction.default("interrupt"),
    /** That the run's input was taken up by another run; its `cancel_reason` says so. */
    reason: z.literal("taken").optional(),
  })
  .refine(({ reason, action }) => reason === undefined || action === "interrupt", {
    error: "goes with action=interrupt only",
    path: ["reason"],
  });

export const RunsCancelQuery = z.strictObject({ action: CancelAction.default("interrupt") });

/** One event of a run's stream. `id` counts from 0 per run. */
export interface RunEvent {
  id: number;
  event: string;
  /** Serialised JSON, written once and sent to every reader as it stands. */
  data: string;
}
