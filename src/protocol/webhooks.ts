import { z } from "zod";
import { Uuid } from "./common.ts";

/** One attempt to deliver. */
export const WebhookAttempt = z.object({
  at: z.string(),
  /** What the receiver answered; null where it did not. */
  status_code: z.int().nullable(),
  /** Why the attempt failed; null where it did not. */
  error: z.string().nullable(),
  duration_ms: z.int(),
});
export type WebhookAttempt = z.infer<typeof WebhookAttempt>;

/** The way of one webhook to its receiver. */
export const WebhookDelivery = z.object({
  /** The `webhook-id` header of every attempt. */
  webhook_id: Uuid,
  run_id: Uuid,
  thread_id: Uuid,
  url: z.string(),
  status: z.enum(["waiting", "delivered", "failed"]),
  attempts: z.array(WebhookAttempt),
  /** Null once it is delivered or given up. */
  next_attempt_at: z.date().nullable(),
  created_at: z.date(),
  ended_at: z.date().nullable(),
});
export type WebhookDelivery = z.infer<typeof WebhookDelivery>;
