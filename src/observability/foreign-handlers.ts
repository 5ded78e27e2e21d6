import type { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import type { Callbacks } from "@langchain/core/callbacks/manager";

/** The name of the official Langfuse handler, whatever copy of its package it comes from. */
const LANGFUSE_HANDLER = "LangfuseCallbackHandler";

/**
 * `callbacks` without Langfuse handlers of the application's own, which would send every observation a second time.
 * For a graph's own `config.callbacks`, where this server traces to Langfuse itself. The input is not changed;
 * `removed` says how many there were.
 */
export function withoutLangfuseHandlers(callbacks: Callbacks | undefined): {
  callbacks: Callbacks | undefined;
  removed: number;
} {
  if (callbacks === undefined) return { callbacks, removed: 0 };
  if (Array.isArray(callbacks)) {
    const kept = callbacks.filter((handler) => nameOf(handler) !== LANGFUSE_HANDLER);
    return { callbacks: kept, removed: callbacks.length - kept.length };
  }
  if (!callbacks.handlers.some(isLangfuse)) return { callbacks, removed: 0 };
  const copy = callbacks.copy();
  const doubles = copy.handlers.filter(isLangfuse);
  for (const handler of doubles) copy.removeHandler(handler);
  return { callbacks: copy, removed: doubles.length };
}

function isLangfuse(handler: BaseCallbackHandler): boolean {
  return handler.name === LANGFUSE_HANDLER;
}

function nameOf(handler: unknown): unknown {
  return typeof handler === "object" && handler !== null && "name" in handler
    ? handler.name
    : undefined;
}
