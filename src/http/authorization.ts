import { isDeepStrictEqual } from "node:util";
import { z } from "zod";
import type { AuthEvent, Authorize } from "../auth/authorize.ts";
import { ServerError } from "../errors.ts";
import { conflictingKey, type Filter } from "../protocol/filters.ts";
import type { AskedRequest, Route } from "./route.ts";

/** What a request became by asking the `on` handler about it. */
export interface Asked<Body> {
  filter: Filter | undefined;
  /** With what the handler changed. */
  body: Body;
}

/**
 * Asks the `on` handler about a request to this route. Throws the handler's refusal, and `forbidden` where the
 * request would put its resource outside the handler's own filter.
 */
export async function authorizeRoute<Body>(
  route: Route,
  request: { params: unknown; query: unknown; body: Body },
  authorize: Authorize,
): Promise<Asked<Body>> {
  const { permission, value } = route;
  if (permission === "public" || value === "by-route") {
    return { filter: undefined, body: request.body };
  }
  const { params, query, body } = request;
  const asked = { params: toRecord(params), query: toRecord(query), body: toRecord(body) };
  const given = value ? value(asked) : asked.params;
  const answer = await authorize(permission, given);
  // Without a handler nothing has changed, and nothing need be compared.
  const changed =
    answer.value === given
      ? undefined
      : changedBody(permission, { schema: route.body, asked }, answer.value, given);
  assertWithin(answer.filter, permission, changed?.["metadata"] ?? asked.body["metadata"]);
  return { filter: answer.filter, body: changed ? (changed as Body) : body };
}

/**
 * The fields of `given` that the handler has changed, validated as the client's are. What is wrong with them is
 * the handler's mistake, and no refusal: it is a plain error.
 */
export function changesOf<Shape extends z.ZodRawShape>(
  event: AuthEvent,
  schema: z.ZodObject<Shape>,
  values: { given: Record<string, unknown>; left: Record<string, unknown> },
): Partial<z.output<z.ZodObject<Shape>>> {
  const { given, left } = values;
  const changes: Record<string, unknown> = {};
  for (const name of Object.keys(given)) {
    if (isDeepStrictEqual(given[name], left[name])) continue;
    const field: z.ZodType | undefined = schema.shape[name] as z.ZodType | undefined;
    if (!field) throw mistake(event, name, "which cannot be changed");
    const parsed = field.safeParse(left[name]);
    if (!parsed.success) {
      throw mistake(event, name, `into something invalid: ${z.prettifyError(parsed.error)}`);
    }
    changes[name] = parsed.data;
  }
  return changes as Partial<z.output<z.ZodObject<Shape>>>;
}

/**
 * As `changesOf`, where some of the fields are inside of the value's `inner`. What the handler adds there counts
 * as changed too.
 */
export function changesWith<Shape extends z.ZodRawShape>(
  event: AuthEvent,
  schema: z.ZodObject<Shape>,
  values: { given: Record<string, unknown>; left: Record<string, unknown>; inner: string },
): Partial<z.output<z.ZodObject<Shape>>> {
  const { inner } = values;
  const { [inner]: givenInner, ...given } = values.given;
  const { [inner]: leftInner, ...left } = values.left;
  if (typeof leftInner !== "object" || leftInner === null) {
    throw new TypeError(`The on handler for ${event} took value.${inner} away.`);
  }
  const added = Object.fromEntries(Object.keys(leftInner).map((name) => [name, undefined]));
  return {
    ...changesOf(event, schema, { given, left }),
    ...changesOf(event, schema, {
      given: { ...added, ...toRecord(givenInner) },
      left: toRecord(leftInner),
    }),
  };
}

/** Throws `forbidden` where metadata would put its resource outside the filter: into the hands of others. */
export function assertWithin(
  filter: Filter | undefined,
  event: AuthEvent,
  metadata: unknown,
): void {
  if (!filter || !/:(?:create|update|create_run)$/u.test(event)) return;
  const key = conflictingKey(toRecord(metadata), filter);
  if (key === undefined) return;
  throw new ServerError("forbidden", `metadata.${key} is not yours to set to this value.`, {
    details: [{ path: `metadata.${key}`, message: "would be out of your own reach" }],
  });
}

function changedBody(
  event: AuthEvent,
  { schema, asked }: { schema: z.ZodType | undefined; asked: AskedRequest },
  left: Record<string, unknown>,
  given: Record<string, unknown>,
): Record<string, unknown> | undefined {
  // A handler for everything writes metadata everywhere, also where nothing of the request is called so.
  const isMeant = (name: string): boolean =>
    name !== "metadata" || (schema instanceof z.ZodObject && "metadata" in schema.shape);
  const object = schema instanceof z.ZodObject ? schema : z.object({});
  const names = Object.keys(given).filter((name) => isMeant(name));
  // What the value has made up for a field that the client left out, such as an id, is a change too.
  const only = Object.fromEntries(
    names.map((name) => [name, name in object.shape ? asked.body[name] : given[name]]),
  );
  const changes = changesOf(event, object, { given: only, left });
  return Object.keys(changes).length === 0 ? undefined : { ...asked.body, ...changes };
}

function mistake(event: AuthEvent, name: string, what: string): Error {
  return new TypeError(`The on handler for ${event} changed value.${name} ${what}.`);
}

function toRecord(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
    ? Object.fromEntries(Object.entries(value))
    : {};
}
