import { z } from "zod";

/** An id of the form of a UUID, of any version: clients make up their own. Always in lower case. */
export const Uuid = z.guid("must be a UUID").toLowerCase();

/** Free-form JSON kept with a resource and searchable by containment. */
export const Metadata = z.record(z.string(), z.unknown());
export type Metadata = z.infer<typeof Metadata>;

/** The longest name, key or tag a client may choose; what is longer is a mistake, not a name. */
export const MAX_NAME_LENGTH = 512;

/** The part of LangChain's RunnableConfig that travels over the API. */
export const RunnableConfig = z
  .strictObject({
    tags: z.array(z.string().max(MAX_NAME_LENGTH)).max(100),
    recursion_limit: z.int().min(1).max(100_000),
    max_concurrency: z.int().min(1),
    configurable: z.record(z.string(), z.unknown()),
    metadata: Metadata,
    run_name: z.string().max(MAX_NAME_LENGTH),
  })
  .partial();
export type RunnableConfig = z.infer<typeof RunnableConfig>;

/** A place in a thread's history. */
export const Checkpoint = z.strictObject({
  thread_id: z.string().nullish(),
  checkpoint_id: z.string().nullish(),
  checkpoint_ns: z.string().nullish(),
  checkpoint_map: z.record(z.string(), z.unknown()).nullish(),
});
export type Checkpoint = z.infer<typeof Checkpoint>;

export const SortOrder = z.enum(["asc", "desc"]);

const Page = {
  limit: z.int().min(1).max(1000).default(10),
  offset: z.int().min(0).default(0),
};

/** `limit` and `offset` of every search. */
export const page = (): typeof Page => Page;

/** `?flag=true`, `?flag=1`; anything but a boolean word is refused. */
export const QueryFlag = z
  .enum(["true", "false", "1", "0", "yes", "no", ""])
  .transform((word) => word === "true" || word === "1" || word === "yes");

/** A whole number in a query string. */
export const QueryInteger = z
  .string()
  .regex(/^\d{1,9}$/, "must be a whole number")
  .transform(Number);

/** One value, several values (`?k=a&k=b`), or several in one (`?k=a,b`, `?k=["a","b"]` of older clients). */
export const QueryList = z
  .union([z.string(), z.array(z.string())])
  .transform((value) => (Array.isArray(value) ? value : [value]).flatMap(toItems));

function toItems(text: string): string[] {
  if (!text.startsWith("[")) return text.split(",");
  try {
    const items: unknown = JSON.parse(text);
    if (Array.isArray(items)) return items.map(String);
  } catch {
    // Not a list of an older client: the value itself is refused where it is looked at.
  }
  return [text];
}

/** A value in a query string, as JSON. */
export const QueryJson = z.string().transform((text, context): unknown => {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    context.addIssue("must be JSON");
    return z.NEVER;
  }
});
