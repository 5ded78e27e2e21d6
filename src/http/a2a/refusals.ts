import { A2AError, RequestMalformedError } from "@a2a-js/sdk/errors";
import type { Logger } from "../../observability/log.ts";
import { logCause, toRefusal } from "../problem.ts";
import type { A2aHandler } from "./handler.ts";

/** The handler with this server's refusals in A2A's words, and without what a bug has to say. */
export function withRefusals(handler: A2aHandler, log: Logger): A2aHandler {
  const translate = (error: unknown): unknown => {
    if (error instanceof A2AError) return error;
    const refusal = toRefusal(error);
    if (refusal.code !== "internal") {
      logCause(refusal, log, {});
      return refusal.status < 500 ? new RequestMalformedError(refusal.message) : refusal;
    }
    log.error({ err: error }, "an A2A request failed");
    return new Error("Internal server error. The log has more.");
  };
  return new Proxy(handler, {
    get(target, name) {
      const member: unknown = Reflect.get(target, name);
      if (typeof member !== "function") return member;
      return (...args: unknown[]): unknown => {
        const result: unknown = Reflect.apply(member, target, args);
        return result instanceof Promise
          ? result.catch((error: unknown) => {
              throw translate(error);
            })
          : translated(result as AsyncGenerator<unknown, void, undefined>, translate);
      };
    },
  });
}

async function* translated<T>(
  items: AsyncGenerator<T, void, undefined>,
  translate: (error: unknown) => unknown,
): AsyncGenerator<T, void, undefined> {
  try {
    yield* items;
  } catch (error) {
    throw translate(error);
  }
}
