import { ServerError } from "../errors.ts";
import type { Filter, FilterScalar } from "../protocol/filters.ts";
import { toRefusal, type Authenticator } from "./authenticate.ts";
import type { Principal } from "./principal.ts";

/** What can be asked of the `on` handlers, by the SDK's names. */
export type AuthEvent =
  | `assistants:${"create" | "read" | "update" | "delete" | "search"}`
  | `threads:${"create" | "read" | "update" | "delete" | "search" | "create_run"}`
  | `crons:${"create" | "read" | "update" | "delete" | "search"}`
  | `store:${"put" | "get" | "search" | "delete" | "list_namespaces"}`;

/** What the handler allowed. */
export interface Authorization {
  /** What the resource must hold; `undefined` is no restriction. */
  filter: Filter | undefined;
  /** The event's value as the handler left it: not validated. */
  value: Record<string, unknown>;
}

/** Asks whether the one who sent a request may do something. Rejects with the handler's refusal. */
export type Authorize = (
  event: AuthEvent,
  value: Record<string, unknown>,
) => Promise<Authorization>;

/** Asks nobody: what a server without authentication has, and what the server does of its own accord. */
export const allowAll: Authorize = async (_event, value) => ({ filter: undefined, value });

/**
 * Asks the most specific `on` handler there is for an event: `threads:create`, else `threads`, `*:create`, `*`.
 * The handler gets a copy of the value, which it may change.
 *
 * The answer rejects with `forbidden` where the handler returns false, with the status of what it throws, and
 * with a plain error, which is a 500, where it returns something that is no filter: a restriction this server
 * does not understand must not be taken for none.
 */
export function createAuthorize(auth: Authenticator, principal: Principal): Authorize {
  if (auth.handlers.size === 0) return allowAll;
  return async (event, given) => {
    const [resource = "", action = ""] = event.split(":");
    const handler = [event, resource, `*:${action}`, "*"]
      .map((name) => auth.handlers.get(name))
      .find((found) => found !== undefined);
    if (!handler) return { filter: undefined, value: given };
    const value = structuredClone(given);
    let answer: unknown;
    try {
      const { user, permissions } = principal;
      answer = await handler({ event, resource, action, value, user, permissions });
    } catch (thrown) {
      throw toRefusal(thrown, "forbidden");
    }
    if (answer === false) throw new ServerError("forbidden", "Forbidden");
    if (answer === true || answer === undefined || answer === null) {
      return { filter: undefined, value };
    }
    return { filter: toFilter(event, answer), value };
  };
}

function toFilter(event: AuthEvent, answer: unknown): Filter {
  const isPlain = typeof answer === "object" && answer !== null && !Array.isArray(answer);
  if (!isPlain) {
    throw new TypeError(
      `The on handler for ${event} returned ${describe(answer)}; it may return a boolean, nothing, or a filter.`,
    );
  }
  return Object.fromEntries(
    Object.entries(answer).map(([key, condition]) => [key, toWanted(event, key, condition)]),
  );
}

function toWanted(event: AuthEvent, key: string, condition: unknown): Filter[string] {
  if (isScalar(condition)) return condition;
  const [[operator, operand] = ["", undefined], ...more] = Object.entries(condition ?? {});
  if (more.length === 0 && operator === "$eq" && isScalar(operand)) return operand;
  if (more.length === 0 && operator === "$contains") {
    const items: unknown[] = Array.isArray(operand) ? operand : [operand];
    if (items.every(isScalar)) return items;
  }
  throw new TypeError(
    `The on handler for ${event} returned a filter that is not understood: "${key}" is ${describe(condition)}. ` +
      "A condition is a string, number, boolean or null, or one of {$eq: value}, {$contains: value} and {$contains: [values]}.",
  );
}

function isScalar(value: unknown): value is FilterScalar {
  if (value === null || typeof value === "string" || typeof value === "boolean") return true;
  return typeof value === "number" && Number.isFinite(value);
}

function describe(value: unknown): string {
  if (typeof value !== "object" || value === null) return String(value);
  return Array.isArray(value) ? "an array" : `an object with ${Object.keys(value).join(", ")}`;
}
