import { z } from "zod";
import { Metadata, SortOrder, Uuid, page } from "./common.ts";
import { MultitaskStrategy, RunCreate } from "./runs.ts";

/** What a cron's runs are asked to do: those fields of a run that make sense without a client waiting for it. */
const RunFields = RunCreate.pick({
  input: true,
  config: true,
  context: true,
  interrupt_before: true,
  interrupt_after: true,
  stream_mode: true,
  durability: true,
  checkpoint_during: true,
  webhook: true,
}).extend({
  metadata: Metadata.optional(),
  multitask_strategy: MultitaskStrategy.optional(),
  stream_subgraphs: z.boolean().optional(),
  stream_resumable: z.boolean().optional(),
});

const Timezone = z.string().max(64);
const Schedule = z.string().max(256);
const OnRunCompleted = z.enum(["delete", "keep"]);

const IsoTime = z.iso.datetime({ offset: true, local: true });
const IsoDate = z.iso.date();

/** A date, or a date and time; without an offset in UTC. */
const EndTime = z
  .string()
  .refine(
    (text) => IsoTime.safeParse(text).success || IsoDate.safeParse(text).success,
    "must be an ISO 8601 date and time, such as 2027-01-31T18:00:00Z",
  )
  .transform((text) => new Date(/^[^T]*$|Z$|[+-]\d\d:?\d\d$/.test(text) ? text : `${text}Z`));

export const CronCreate = RunFields.extend({
  assistant_id: RunCreate.shape.assistant_id,
  schedule: Schedule,
  timezone: Timezone.optional(),
  enabled: z.boolean().default(true),
  end_time: EndTime.optional(),
  /** Whether the thread of each run is kept. Only for crons without a thread; `delete` where nothing is said. */
  on_run_completed: OnRunCompleted.optional(),
});
export type CronCreate = z.infer<typeof CronCreate>;

export const CronPatch = RunFields.extend({
  schedule: Schedule,
  timezone: Timezone,
  enabled: z.boolean(),
  /** Null takes the end away. */
  end_time: EndTime.nullable(),
  on_run_completed: OnRunCompleted,
}).partial();
export type CronPatch = z.infer<typeof CronPatch>;

/** The run fields among those of a cron: what is kept as its payload. */
export const CronPayload = z.object(RunFields.omit({ metadata: true }).shape);
export type CronPayload = z.infer<typeof CronPayload>;

export const Cron = z.object({
  cron_id: Uuid,
  assistant_id: Uuid,
  /** Null where each run has a thread of its own, or none. */
  thread_id: Uuid.nullable(),
  schedule: z.string(),
  /** Null is UTC. */
  timezone: z.string().nullable(),
  enabled: z.boolean(),
  end_time: z.date().nullable(),
  on_run_completed: OnRunCompleted.nullable(),
  payload: z.record(z.string(), z.unknown()),
  metadata: Metadata,
  user_id: z.string().nullable(),
  /** Null while it is disabled, and after its end. */
  next_run_date: z.date().nullable(),
  created_at: z.date(),
  updated_at: z.date(),
});
export type Cron = z.infer<typeof Cron>;

export const CronFilter = z.strictObject({
  /** An assistant's id, or a graph's. */
  assistant_id: z.string().min(1).optional(),
  thread_id: Uuid.optional(),
  enabled: z.boolean().optional(),
  metadata: Metadata.optional(),
});
export type CronFilter = z.infer<typeof CronFilter>;

const CRON_FIELDS = [
  "cron_id",
  "assistant_id",
  "thread_id",
  "end_time",
  "schedule",
  "created_at",
  "updated_at",
  "user_id",
  "payload",
  "next_run_date",
  "metadata",
  "now",
  "timezone",
  "enabled",
  "on_run_completed",
] as const;

export const CronSearch = CronFilter.extend({
  ...page(),
  sort_by: z
    .enum(["cron_id", "assistant_id", "thread_id", "created_at", "updated_at", "next_run_date"])
    .default("created_at"),
  sort_order: SortOrder.default("desc"),
  /** `now` is the time by which crons are judged: the database's. It is shown only where it is asked for. */
  select: z.array(z.enum(CRON_FIELDS)).optional(),
});
export type CronSearch = z.infer<typeof CronSearch>;
