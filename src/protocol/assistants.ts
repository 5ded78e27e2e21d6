import { z } from "zod";
import { MAX_NAME_LENGTH, Metadata, RunnableConfig, SortOrder, Uuid, page } from "./common.ts";

export const Assistant = z.object({
  assistant_id: Uuid,
  graph_id: z.string(),
  name: z.string(),
  description: z.string().nullable(),
  config: z.record(z.string(), z.unknown()),
  context: z.unknown(),
  metadata: Metadata,
  version: z.int(),
  created_at: z.date(),
  updated_at: z.date(),
});
export type Assistant = z.infer<typeof Assistant>;

export const AssistantCreate = z.strictObject({
  assistant_id: Uuid.optional(),
  graph_id: z.string().min(1).max(MAX_NAME_LENGTH),
  config: RunnableConfig.optional(),
  context: z.unknown().optional(),
  metadata: Metadata.optional(),
  if_exists: z.enum(["raise", "do_nothing"]).default("raise"),
  name: z.string().min(1).max(MAX_NAME_LENGTH).optional(),
  description: z.string().max(10_000).optional(),
});
export type AssistantCreate = z.infer<typeof AssistantCreate>;

export const AssistantPatch = z.strictObject({
  graph_id: z.string().min(1).max(MAX_NAME_LENGTH).optional(),
  config: RunnableConfig.optional(),
  context: z.unknown().optional(),
  metadata: Metadata.optional(),
  name: z.string().min(1).max(MAX_NAME_LENGTH).optional(),
  description: z.string().max(10_000).optional(),
});
export type AssistantPatch = z.infer<typeof AssistantPatch>;

/** An assistant as it was at one version. */
export const AssistantVersion = Assistant.omit({ updated_at: true });
export type AssistantVersion = z.infer<typeof AssistantVersion>;

export const AssistantVersionsRequest = z.strictObject({
  ...page(),
  metadata: Metadata.optional(),
});
export type AssistantVersionsRequest = z.infer<typeof AssistantVersionsRequest>;

export const AssistantLatestRequest = z.strictObject({ version: z.int().min(1) });

export const ASSISTANT_FIELDS = [
  "assistant_id",
  "graph_id",
  "name",
  "description",
  "config",
  "context",
  "created_at",
  "updated_at",
  "metadata",
  "version",
] as const;

export const AssistantFilter = z.strictObject({
  metadata: Metadata.optional(),
  graph_id: z.string().optional(),
  /** A case-insensitive part of the name. */
  name: z.string().optional(),
});
export type AssistantFilter = z.infer<typeof AssistantFilter>;

export const AssistantSearch = AssistantFilter.extend({
  ...page(),
  sort_by: z
    .enum(["assistant_id", "graph_id", "name", "created_at", "updated_at"])
    .default("created_at"),
  sort_order: SortOrder.default("desc"),
  select: z.array(z.enum(ASSISTANT_FIELDS)).optional(),
});
export type AssistantSearch = z.infer<typeof AssistantSearch>;
