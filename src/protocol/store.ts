import { z } from "zod";
import { QueryFlag } from "./common.ts";

const Label = z
  .string()
  .min(1, "a namespace label cannot be empty")
  .max(512)
  .refine((label) => !label.includes("."), "a namespace label cannot contain a period")
  .refine((label) => !label.includes(":"), "a namespace label cannot contain a colon");
export const Namespace = z
  .array(Label)
  .min(1, "the namespace needs at least one label")
  .max(50)
  .refine(([first]) => first !== "langgraph", 'the first label cannot be "langgraph"');

/** A hundred years, beyond which no time is meant. */
const MAX_TTL_MINUTES = 100 * 366 * 24 * 60;

export const StorePut = z.strictObject({
  namespace: Namespace,
  key: z.string().min(1).max(512),
  value: z.record(z.string(), z.unknown()),
  /** Which fields are found by meaning instead of the configured ones; false is none. */
  index: z
    .union([z.literal(false), z.array(z.string().min(1).max(512)).min(1).max(100)])
    .optional(),
  /** Minutes until the item expires; null is never, where the configuration has a default. */
  ttl: z.number().positive().max(MAX_TTL_MINUTES).nullable().optional(),
});

const DottedNamespace = z.string().transform((text) => (text === "" ? [] : text.split(".")));

export const StoreGetQuery = z.strictObject({
  namespace: DottedNamespace.pipe(Namespace),
  key: z.string().min(1).max(512),
  /** Whether the item's time to live begins anew; without it the configuration says. */
  refresh_ttl: QueryFlag.optional(),
});

export const StoreDelete = z.strictObject({
  namespace: Namespace,
  key: z.string().min(1).max(512),
});

export const StoreSearch = z.strictObject({
  namespace_prefix: z.array(Label).max(50),
  filter: z.record(z.string(), z.unknown()).optional(),
  limit: z.int().min(1).max(1000).default(10),
  offset: z.int().min(0).default(0),
  query: z.string().max(100_000).optional(),
  refresh_ttl: z.boolean().optional(),
});

export const StoreNamespaces = z.strictObject({
  prefix: z.array(Label).max(50).optional(),
  suffix: z.array(Label).max(50).optional(),
  max_depth: z.int().min(1).optional(),
  limit: z.int().min(1).max(1000).default(100),
  offset: z.int().min(0).default(0),
});

export const Item = z.object({
  namespace: z.array(z.string()),
  key: z.string(),
  value: z.record(z.string(), z.unknown()),
  created_at: z.date(),
  updated_at: z.date(),
});
export type Item = z.infer<typeof Item>;
