import { z } from "zod";
import {
  Checkpoint,
  MAX_NAME_LENGTH,
  Metadata,
  QueryList,
  SortOrder,
  Uuid,
  page,
} from "./common.ts";
import { Command } from "./runs.ts";
import { PruneStrategy, ThreadExpiry, ThreadTtl } from "./thread-ttl.ts";

export const ThreadStatus = z.enum(["idle", "busy", "interrupted", "error"]);
export type ThreadStatus = z.infer<typeof ThreadStatus>;

export const Thread = z.object({
  thread_id: Uuid,
  created_at: z.date(),
  updated_at: z.date(),
  state_updated_at: z.date(),
  metadata: Metadata,
  config: z.record(z.string(), z.unknown()),
  status: ThreadStatus,
  values: z.unknown(),
  /** Pending interrupts by task id. */
  interrupts: z.record(z.string(), z.array(z.unknown())),
  error: z.unknown(),
  /** What a search was asked to extract. */
  extracted: z.record(z.string(), z.unknown()).optional(),
  /** Where it was asked for, and the thread has one. */
  ttl: ThreadExpiry.optional(),
});
export type Thread = z.infer<typeof Thread>;

/** What nodes would have written in one step: values, or a command. */
export const Superstep = z.strictObject({
  updates: z
    .array(
      z.strictObject({
        values: z.unknown().optional(),
        command: Command.nullish(),
        as_node: z.string(),
      }),
    )
    .min(1),
});
export type Superstep = z.infer<typeof Superstep>;

export const ThreadCreate = z.strictObject({
  thread_id: Uuid.optional(),
  metadata: Metadata.optional(),
  if_exists: z.enum(["raise", "do_nothing"]).default("raise"),
  /** The new thread's history, step by step; needs `metadata.graph_id`. */
  supersteps: z.array(Superstep).max(1000).optional(),
  ttl: ThreadTtl.optional(),
});
export type ThreadCreate = z.infer<typeof ThreadCreate>;

export const ThreadPatch = z.strictObject({
  metadata: Metadata.optional(),
  /** Null keeps the thread for ever. */
  ttl: ThreadTtl.nullable().optional(),
});
export type ThreadPatch = z.infer<typeof ThreadPatch>;

/** Threads to delete, or whose history to delete but for the latest state. */
export const ThreadPrune = z.strictObject({
  thread_ids: z.array(Uuid).max(1000),
  strategy: PruneStrategy.default("delete"),
});
export type ThreadPrune = z.infer<typeof ThreadPrune>;

export const THREAD_FIELDS = [
  "thread_id",
  "created_at",
  "updated_at",
  "state_updated_at",
  "metadata",
  "config",
  "status",
  "values",
  "interrupts",
  "error",
] as const;

/** What a thread is shown with. */
export const ThreadGetQuery = z.strictObject({
  include: QueryList.pipe(z.array(z.enum(["ttl"]))).optional(),
});

export const ThreadFilter = z.strictObject({
  metadata: Metadata.optional(),
  values: z.record(z.string(), z.unknown()).optional(),
  status: ThreadStatus.optional(),
});
export type ThreadFilter = z.infer<typeof ThreadFilter>;

/** A column of a thread, or a place in it: `values.messages[-1].content`. */
const EXTRACT_PATH = /^(values|metadata|config|interrupts|error)(\.[^.[\]]+|\[-?\d{1,9}\])*$/;

/** Parts of threads a search gives under names of the client's own, instead of whole values. */
export const ThreadExtract = z
  .record(
    z.string().min(1).max(MAX_NAME_LENGTH),
    z.string().max(1024).regex(EXTRACT_PATH, "must be a path such as values.messages[-1].content"),
  )
  .refine((paths) => Object.keys(paths).length <= 10, "must have at most 10 paths");
export type ThreadExtract = z.infer<typeof ThreadExtract>;

export const ThreadSearch = ThreadFilter.extend({
  ids: z.array(Uuid).max(1000).optional(),
  ...page(),
  sort_by: z
    .enum(["thread_id", "status", "created_at", "updated_at", "state_updated_at"])
    .default("created_at"),
  sort_order: SortOrder.default("desc"),
  select: z.array(z.enum(THREAD_FIELDS)).optional(),
  /** Each thread then has them as `extracted`. */
  extract: ThreadExtract.optional(),
});
export type ThreadSearch = z.infer<typeof ThreadSearch>;

/** What of a state a client wants: whole fields, or single keys of the values (`values.messages`). */
export const StateSelect = z
  .array(
    z
      .string()
      .regex(
        /^(values(\..+)?|next|tasks|checkpoint|metadata|created_at|parent_checkpoint|interrupts)$/,
        "must be a field of a state, or values.<key>",
      ),
  )
  .optional();
export type StateSelect = z.infer<typeof StateSelect>;

export const StateRead = z.strictObject({
  checkpoint: Checkpoint,
  subgraphs: z.boolean().default(false),
  select: StateSelect,
});

export const StateUpdate = z.strictObject({
  values: z
    .union([z.record(z.string(), z.unknown()), z.array(z.record(z.string(), z.unknown()))])
    .optional(),
  as_node: z.string().optional(),
  checkpoint_id: z.string().optional(),
  checkpoint: Checkpoint.optional(),
});
export type StateUpdate = z.infer<typeof StateUpdate>;

export const StatePatch = z.strictObject({ metadata: Metadata });
export type StatePatch = z.infer<typeof StatePatch>;

function namesCheckpoint(before: string | Record<string, unknown>): boolean {
  if (typeof before === "string") return before !== "";
  const place = before["configurable"] ?? before;
  return typeof (place as { checkpoint_id?: unknown }).checkpoint_id === "string";
}

export const HistoryRequest = z.strictObject({
  limit: z.int().min(1).max(1000).default(10),
  /** A checkpoint id, a checkpoint, or a config that holds one: only older states are returned. */
  before: z
    .union([z.string(), z.record(z.string(), z.unknown())])
    .refine(namesCheckpoint, "must be a checkpoint id, or hold one as checkpoint_id")
    .optional(),
  metadata: Metadata.optional(),
  checkpoint: Checkpoint.optional(),
  select: StateSelect,
});
export type HistoryRequest = z.infer<typeof HistoryRequest>;

/** A thread's state at one checkpoint. */
export interface ThreadState {
  values: unknown;
  next: string[];
  tasks: ThreadTask[];
  metadata: unknown;
  created_at: string | null;
  checkpoint: StateCheckpoint | null;
  parent_checkpoint: StateCheckpoint | null;
  interrupts: unknown[];
}

export interface ThreadTask {
  id: string;
  name: string;
  path: unknown;
  error: string | null;
  interrupts: unknown[];
  checkpoint: KnownCheckpoint | null;
  state: ThreadState | null;
  result: unknown;
}

/** A checkpoint of which only what is known is told. */
export type KnownCheckpoint = Pick<StateCheckpoint, "thread_id" | "checkpoint_ns"> & {
  checkpoint_id?: string;
  checkpoint_map?: Record<string, unknown>;
};

export interface StateCheckpoint {
  thread_id: string;
  checkpoint_id: string | null;
  checkpoint_ns: string;
  checkpoint_map: Record<string, unknown> | null;
}

/** What a client that joins a thread wants to hear of. */
export const ThreadStreamMode = z.enum(["run_modes", "lifecycle", "state_update"]);
export type ThreadStreamMode = z.infer<typeof ThreadStreamMode>;

export const ThreadStreamQuery = z.strictObject({
  stream_mode: QueryList.pipe(z.array(ThreadStreamMode)).default(["run_modes"]),
});
