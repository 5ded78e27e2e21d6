import { z } from "zod";
import { ServerError } from "../../errors.ts";
import { Run, RunBatchCreate, RunsCancel, RunsCancelQuery } from "../../protocol/runs.ts";
import type { RunRecord } from "../../storage/runs.ts";
import { route, type Route } from "../route.ts";
import { toRun, type RunRouteDeps } from "./runs.ts";

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
      body: RunBatchCreate,
      answer: { status: 200, description: "The runs, in the same order", schema: z.array(Run) },
      async handle({ body, principal, headers, baseUrl }) {
        const request = { principal, headers, baseUrl, trigger: "api" };
        // Every assistant first, so that a batch with a mistake in it starts nothing.
        await Promise.all(body.map((run) => engine.assistant(run.assistant_id)));
        const created: RunRecord[] = [];
        for (const run of body) created.push(await engine.create(undefined, run, request));
        return {
          json: created.map((run) => ({
            ...toRun(run, deps.trace(run)),
            status: "pending",
          })),
        };
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
      answer: { status: 204, description: "Asked to stop" },
      async handle({ body, query }) {
        for (const runId of body.run_ids ?? []) {
          const run = await runs.get(runId);
          const foreign = body.thread_id !== undefined && run?.thread_id !== body.thread_id;
          if (!run || foreign) {
            throw new ServerError("not_found", `Run ${runId} not found; no run was stopped`);
          }
        }
        const active = await runs.findActive({
          threadId: body.thread_id,
          runIds: body.run_ids,
          status: body.status === "all" ? undefined : body.status,
        });
        for (const run of active) {
          await engine.cancel(run, query.action, { wait: false, reason: "user" });
        }
        return new Response(null, { status: 204 });
      },
    }),
  ];
}
