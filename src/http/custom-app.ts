import type { Hono, MiddlewareHandler } from "hono";
import type { ModuleReference } from "../config/schema.ts";
import { ServerError } from "../errors.ts";
import { loadConfigured } from "../modules/function.ts";

/** The routes and middleware of a project: a Hono app, which may be of the project's own copy of Hono. */
export type CustomApp = Pick<Hono, "routes" | "fetch"> & { errorHandler: unknown };

/** The app of the config's `http.app`. Rejects with `startup_failed`. */
export async function loadCustomApp(
  reference: ModuleReference,
  options: { cwd: string },
): Promise<CustomApp> {
  const value: unknown = await loadConfigured(reference, { ...options, option: "http.app" });
  if (isCustomApp(value)) return value;
  throw new ServerError(
    "startup_failed",
    `http.app: ${reference.path}:${reference.exportName} is not a Hono app; export one made with new Hono().`,
  );
}

/**
 * Puts the app's middleware and routes in front of whatever is added to `into` after it: middleware sees these
 * routes too, and a route of the same path takes their place. What the app throws and does not handle itself is
 * handled by `into`.
 */
export function mountCustomApp(into: Hono, app: CustomApp): void {
  const { constructor } = app as unknown as { constructor: new () => CustomApp };
  if (app.errorHandler !== new constructor().errorHandler) {
    into.route("/", app as unknown as Hono);
    return;
  }
  for (const { method, path, handler } of app.routes) {
    into.on(method, path, handler as MiddlewareHandler);
  }
}

function isCustomApp(value: unknown): value is CustomApp {
  if (typeof value !== "object" || value === null) return false;
  const { routes, fetch } = value as Partial<CustomApp>;
  return Array.isArray(routes) && typeof fetch === "function" && "errorHandler" in value;
}
