import { z } from "zod";
import { MAX_NAME_LENGTH } from "./common.ts";

/** What is being judged, such as `helpfulness`: the score's name in Langfuse. */
export const FeedbackKey = z
  .string()
  .trim()
  .min(1, "the key needs at least one character")
  .max(200, "the key is longer than 200 characters");

const Judgement = {
  /** A number or a boolean. */
  score: z.union([z.number(), z.boolean()]).optional(),
  /** A category, or what `score` takes. */
  value: z.union([z.string().min(1).max(MAX_NAME_LENGTH), z.number(), z.boolean()]).optional(),
  comment: z.string().max(10_000).optional(),
};

const exactlyOne = (feedback: { score?: unknown; value?: unknown }): boolean =>
  (feedback.score === undefined) !== (feedback.value === undefined);
const EXACTLY_ONE = "send either score (a number or a boolean) or value (a category)";

/** A judgement sent to a run. */
export const FeedbackCreate = z
  .strictObject({
    key: FeedbackKey,
    ...Judgement,
    /** The same id again replaces the earlier judgement of this run. */
    id: z.string().min(1).max(200).optional(),
  })
  .refine(exactlyOne, { error: EXACTLY_ONE, path: ["score"] });
export type FeedbackCreate = z.infer<typeof FeedbackCreate>;

/** A judgement sent to a signed link, which already says of what run and what key. */
export const SignedFeedback = z
  .strictObject(Judgement)
  .refine(exactlyOne, { error: EXACTLY_ONE, path: ["score"] });
export type SignedFeedback = z.infer<typeof SignedFeedback>;

export const Feedback = z.object({
  id: z.string(),
  run_id: z.uuid(),
  trace_id: z.string(),
  key: z.string(),
  score: z.number().nullable(),
  value: z.string().nullable(),
  comment: z.string().nullable(),
});
export type Feedback = z.infer<typeof Feedback>;
