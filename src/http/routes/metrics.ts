import { ServerError } from "../../errors.ts";
import { route, type Route } from "../route.ts";

/** `GET /metrics`. `metrics` gives the text; `undefined` where the configuration switched it off. */
export function metricsRoutes(deps: {
  metrics: (() => Promise<{ contentType: string; text: string }>) | undefined;
}): Route[] {
  return [
    route({
      method: "get",
      path: "/metrics",
      summary: "Runs, tracing and the process in numbers, in Prometheus' text format",
      tag: "Meta",
      permission: "public",
      answer: { status: 200, description: "The numbers" },
      async handle() {
        if (deps.metrics === undefined) {
          throw new ServerError("not_found", "Metrics are switched off (metrics.enabled)");
        }
        const { contentType, text } = await deps.metrics();
        return new Response(text, { headers: { "Content-Type": contentType } });
      },
    }),
  ];
}
