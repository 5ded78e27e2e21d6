import { z } from "zod";
import { toIdempotency } from "../../engine/idempotency.ts";
import { ServerError } from "../../errors.ts";
import { Run, RunBatchCreate, RunsCancel, RunsCancelQuery } from "../../protocol/runs.ts";
import { route, type Route } from "../route.ts";
import { startRuns } from "../start-run.ts";
import { IDEMPOTENCY, assertInBackground, toAcceptedRun, type RunRouteDeps } from "./runs.ts";

/** Many runs at once: started, or stopped. */
export function runBatchRoutes(deps: RunRouteDeps): Route[] {
  const { engine, runs } = deps;
  return [
    route({
      method: "post",
      path: "/runs/batch",
      summary: "Start several runs without a thread, in the background",
      tag: "Runs",
      permission: "threads:create_run",
      value: "by-route",
      body: RunBatchCreate,
      headers: IDEMPOTENCY,
      answer: { status: 200, description: "The runs, in the same order", schema: z.array(Run) },
      async handle({ body, ...caller }) {
        const asked = body.map((run, index) => {
          assertInBackground(run);
          const one = { threadId: undefined, body: run };
          return { ...one, idempotency: toIdempotency(caller.headers, { ...one, index }) };
        });
        const created = await startRuns(engine, caller, asked);
        return { json: created.map((run) => toAcceptedRun(run, deps.trace(run))) };
      },
    }),
    route({
      method: "post",
      path: "/runs/cancel",
      summary: "Stop several runs: these of a thread, or all with a status",
      tag: "Runs",
      permission: "threads:update",
      query: RunsCancelQuery,
      body: RunsCancel,
      value: ({ body, query }) => ({
        thread_id: body["thread_id"],
        action: query["action"],
        metadata: { run_ids: body["run_ids"], status: body["status"] },
      }),
      answer: { status: 204, description: "Asked to stop" },
      async handle({ body, query, filter }) {
        for (const runId of body.run_ids ?? []) {
          const run = await runs.get(runId, filter);
          const foreign = body.thread_id !== undefined && run?.thread_id !== body.thread_id;
          if (!run || foreign) {
            throw new ServerError("not_found", `Run ${runId} not found; no run was stopped`);
          }
        }
        const active = await runs.findActive({
          threadId: body.thread_id,
          runIds: body.run_ids,
          status: body.status === "all" ? undefined : body.status,
          filter,
        });
        for (const run of active) {
          await engine.cancel(run, query.action, { wait: false, reason: "user" });
        }
        return new Response(null, { status: 204 });
      },
    }),
  ];
}
