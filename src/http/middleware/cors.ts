import type { Context, MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import type { CorsConfig } from "../../config/schema.ts";

/** What browser clients read: the run they started, and the next page. */
const EXPOSED = [
  "Content-Location",
  "Location",
  "X-Pagination-Total",
  "X-Pagination-Next",
  "X-Request-ID",
  "Mcp-Session-Id",
];

/**
 * Whether the page that asks for a web socket is from an allowed origin. Browsers do not ask before they open
 * one, and send cookies along.
 */
export function mayOpenSocket(c: Context, config: CorsConfig | undefined): boolean {
  const origin = c.req.header("origin");
  if (origin === undefined || !URL.canParse(origin)) return origin === undefined;
  if (new URL(origin).host === c.req.header("host")) return true;
  return toOrigins(config).allows(origin);
}

function toOrigins(config: CorsConfig | undefined): {
  open: boolean;
  allows: (origin: string) => boolean;
} {
  const pattern = config?.allow_origin_regex
    ? new RegExp(config.allow_origin_regex, "u")
    : undefined;
  const origins = config?.allow_origins ?? (pattern ? [] : ["*"]);
  const open = origins.includes("*");
  return {
    open,
    allows: (origin) => open || origins.includes(origin) || pattern?.test(origin) === true,
  };
}

/** CORS as configured; open without a configuration, so that hosted clients can reach a local server. */
export function crossOrigin(config: CorsConfig | undefined): MiddlewareHandler {
  const { open, allows } = toOrigins(config);
  const inner = cors({
    origin: (origin) => {
      if (open) return config?.allow_credentials ? origin : "*";
      return allows(origin) ? origin : null;
    },
    allowMethods: config?.allow_methods ?? ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
    exposeHeaders: [...EXPOSED, ...(config?.expose_headers ?? [])],
    maxAge: config?.max_age ?? 600,
    ...(config?.allow_headers &&
      !config.allow_headers.includes("*") && { allowHeaders: config.allow_headers }),
    ...(config?.allow_credentials && { credentials: true }),
  });
  return async (c, next) => {
    const answer = await inner(c, next);
    // A page on the public web may call a server on this machine only if it says so.
    if (c.req.header("access-control-request-private-network") === "true") {
      const response = answer instanceof Response ? answer : c.res;
      response.headers.set("Access-Control-Allow-Private-Network", "true");
    }
    return answer;
  };
}
