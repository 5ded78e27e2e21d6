import { z } from "zod";
import { route, type Route } from "../route.ts";

export interface HealthRouteDeps {
  /** Why the process should get no work; `undefined` if it should. */
  unready: () => Promise<string | undefined>;
}

const Live = z.object({ live: z.literal(true) });
const Ready = z.object({ ready: z.literal(true) });

/** `/live` and `/ready`, for whoever restarts processes and shares requests out to them. */
export function healthRoutes(deps: HealthRouteDeps): Route[] {
  const common = { method: "get", tag: "Meta", permission: "public" } as const;
  return [
    route({
      ...common,
      path: "/live",
      summary: "Tell that the process is alive",
      answer: { status: 200, description: "It is", schema: Live },
      handle: async () => ({ json: { live: true } }),
    }),
    route({
      ...common,
      path: "/ready",
      summary:
        "Tell whether the process should get requests: its database answers, and it is not stopping",
      answer: { status: 200, description: "It should; 503 if not, with the reason", schema: Ready },
      async handle() {
        const reason = await deps.unready();
        return reason === undefined
          ? { json: { ready: true } }
          : { status: 503, json: { ready: false, reason } };
      },
    }),
  ];
}
