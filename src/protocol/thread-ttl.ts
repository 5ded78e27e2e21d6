import { z } from "zod";

/** What goes when a thread is pruned or has expired: all of it, or its history but for the latest state. */
export const PruneStrategy = z.enum(["delete", "keep_latest"]);
export type PruneStrategy = z.infer<typeof PruneStrategy>;

/** Minutes. A hundred years are for ever. */
const TtlMinutes = z
  .number()
  .positive("must be more than 0 minutes")
  .max(100 * 366 * 24 * 60);

/** How long a thread is kept after its last use: minutes, alone or with what then goes. */
export const ThreadTtl = z
  .union([
    TtlMinutes,
    z.strictObject({ ttl: TtlMinutes, strategy: PruneStrategy.default("delete") }),
  ])
  .transform((ttl) => (typeof ttl === "number" ? { ttl, strategy: "delete" as const } : ttl));
export type ThreadTtl = z.infer<typeof ThreadTtl>;

/** When a thread expires. Each use of it moves the time on. */
export const ThreadExpiry = z.object({
  strategy: PruneStrategy,
  ttl_minutes: z.number(),
  expires_at: z.date(),
});
export type ThreadExpiry = z.infer<typeof ThreadExpiry>;
