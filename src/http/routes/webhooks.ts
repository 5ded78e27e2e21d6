import { z } from "zod";
import { ServerError } from "../../errors.ts";
import { Uuid } from "../../protocol/common.ts";
import { WebhookDelivery } from "../../protocol/webhooks.ts";
import type { RunRepository } from "../../storage/runs.ts";
import type { WebhookRepository } from "../../storage/webhooks.ts";
import { route, type Route } from "../route.ts";

const Params = z.object({ thread_id: Uuid, run_id: Uuid });

/** What became of a run's webhook. */
export function webhookRoutes(deps: { runs: RunRepository; webhooks: WebhookRepository }): Route[] {
  return [
    route({
      method: "get",
      path: "/threads/:thread_id/runs/:run_id/webhooks",
      summary: "Show the attempts to deliver a run's webhook",
      tag: "Runs",
      permission: "threads:read",
      params: Params,
      answer: {
        status: 200,
        description: "The webhook, or nothing if the run has none or has not ended",
        schema: z.array(WebhookDelivery),
      },
      async handle({ params, filter }) {
        const run = await deps.runs.get(params.run_id, filter);
        if (run?.thread_id !== params.thread_id)
          throw new ServerError("not_found", "Run not found");
        return { json: await deps.webhooks.ofRun(run.run_id) };
      },
    }),
  ];
}
