import { z } from "zod";
import type { Feedback } from "../../engine/feedback.ts";
import { ServerError } from "../../errors.ts";
import {
  FeedbackCreate,
  SignedFeedback,
  Feedback as FeedbackResource,
} from "../../protocol/feedback.ts";
import type { RunRepository } from "../../storage/runs.ts";
import { route, type Route } from "../route.ts";

/** Judgements of runs: with the caller's credentials, or through a signed link. */
export function feedbackRoutes(deps: { feedback: Feedback; runs: RunRepository }): Route[] {
  return [
    route({
      method: "post",
      path: "/runs/:run_id/feedback",
      summary: "Judge a run: a score on its trace in Langfuse",
      tag: "Runs",
      permission: "threads:read",
      params: z.object({ run_id: z.uuid() }),
      body: FeedbackCreate,
      answer: { status: 200, description: "The judgement, accepted", schema: FeedbackResource },
      value: () => ({ thread_id: undefined }),
      async handle({ params, body, filter }) {
        const run = await deps.runs.get(params.run_id, filter);
        if (!run) throw new ServerError("not_found", "Run not found");
        const judged = { run_id: run.run_id, place: run.origin.trace };
        return { json: await deps.feedback.submit(judged, body) };
      },
    }),
    route({
      method: "post",
      path: "/feedback/:token",
      summary: "Judge a run through the signed link of its feedback event",
      tag: "Runs",
      permission: "public",
      params: z.object({ token: z.string().max(4_000) }),
      body: SignedFeedback,
      answer: { status: 200, description: "The judgement, accepted", schema: FeedbackResource },
      handle: async ({ params, body }) => ({
        json: await deps.feedback.submitSigned(params.token, body),
      }),
    }),
  ];
}
