import type { DisabledRoutes } from "../config/schema.ts";
import type { Route, RouteTag } from "./route.ts";

/** The tags of a group that the configuration can switch off. */
const GROUPS: Readonly<Record<DisabledRoutes, readonly RouteTag[]>> = {
  assistants: ["Assistants"],
  threads: ["Threads"],
  runs: ["Runs", "Crons"],
  store: ["Store"],
  meta: ["Meta"],
  mcp: ["MCP"],
  a2a: ["A2A"],
};

/** Whether a route is there. Without runs, nothing of the thread's routes starts one. */
export function isServed(route: Route, disabled: readonly DisabledRoutes[]): boolean {
  const isOff = disabled.some((group) => GROUPS[group].includes(route.tag));
  // The commands of a web socket start runs too.
  const startsRun =
    route.tag === "Threads" && (route.permission === "threads:create_run" || route.socket === true);
  return !isOff && !(startsRun && disabled.includes("runs"));
}

/** What the paths of a route look like. */
export function toPattern(path: string): RegExp {
  return new RegExp(
    `^${path.replaceAll(".", String.raw`\.`).replaceAll(/:[a-z_]+/g, "[^/]+")}$`,
    "u",
  );
}
