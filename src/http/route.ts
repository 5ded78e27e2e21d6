import type { z } from "zod";
import type { AuthEvent, Authorize } from "../auth/authorize.ts";
import type { Principal } from "../auth/principal.ts";
import type { ServerError } from "../errors.ts";
import type { Filter } from "../protocol/filters.ts";
import type { OpenSession } from "./web-socket.ts";

/** One request, parsed and validated, as a handler sees it. */
export interface RouteRequest<Params, Query, Body> {
  params: Params;
  query: Query;
  body: Body;
  /** Who asks; `undefined` where the server has no authentication. */
  principal: Principal | undefined;
  /**
   * What a resource must hold for the caller to have to do with it, as the `on` handler for the route's
   * permission said; repositories take it. `undefined` is no restriction.
   */
  filter: Filter | undefined;
  /** Asks the `on` handlers about something else than the route's permission. */
  authorize: Authorize;
  headers: Headers;
  /** How the client reached this server, behind a proxy too; no trailing slash. */
  baseUrl: string;
  requestId: string;
}

/** What a handler answers: a whole response, a value that goes out as JSON, or what is said over a web socket. */
export type RouteAnswer =
  | Response
  | { session: OpenSession }
  | { status?: number; headers?: Record<string, string>; json: unknown };

/** What a route is about, for authorization: an event of the SDK's, or `public`, for everybody unasked. */
export type Permission = AuthEvent | "public";

/** The parts of a request that an `on` handler is told about. */
export interface AskedRequest {
  params: Record<string, unknown>;
  query: Record<string, unknown>;
  body: Record<string, unknown>;
}

/** What routes are grouped by: in the document, and where a group is switched off. */
export type RouteTag =
  | "Assistants"
  | "Threads"
  | "Runs"
  | "Crons"
  | "Store"
  | "MCP"
  | "A2A"
  | "Meta";

/**
 * A route as data. The router, the validation and `/openapi.json` are made from the same description, so
 * none of them can say something else than the others.
 */
export interface Route {
  method: "get" | "post" | "put" | "patch" | "delete";
  /** In Hono's form: `/threads/:thread_id`. */
  path: string;
  summary: string;
  tag: RouteTag;
  /** Who may not even authenticate is not let in; who may, is asked about with this event. */
  permission: Permission;
  /**
   * The `value` of the event, by the SDK's names; without it, the ids in the path. A field of the body that the
   * handler changes is changed for the route. `"by-route"`: the route asks, with `authorize`, as often as it must.
   */
  value?: ((request: AskedRequest) => Record<string, unknown>) | "by-route";
  params?: z.ZodType;
  query?: z.ZodType;
  body?: z.ZodType;
  /** Headers the route reads, by name, with what they do; for the document. */
  headers?: Readonly<Record<string, string>>;
  /** What a successful answer looks like, for the document. */
  answer: { status: number; description: string; schema?: z.ZodType; stream?: boolean };
  /** Whether the request is for a web socket; the handler answers with its session. */
  socket?: boolean;
  /** How a refusal is told where the protocol on this route has a form of its own. */
  refuse?: (error: ServerError) => RouteAnswer;
  handle: (request: RouteRequest<never, never, never>) => Promise<RouteAnswer>;
}

type Output<T> = T extends z.ZodType ? z.output<T> : undefined;

/** Describes a route, with its handler typed by its schemas. */
export function route<
  Params extends z.ZodType | undefined = undefined,
  Query extends z.ZodType | undefined = undefined,
  Body extends z.ZodType | undefined = undefined,
>(
  description: Omit<Route, "params" | "query" | "body" | "handle"> & {
    params?: Params;
    query?: Query;
    body?: Body;
    handle: (
      request: RouteRequest<Output<Params>, Output<Query>, Output<Body>>,
    ) => Promise<RouteAnswer>;
  },
): Route {
  return description;
}
