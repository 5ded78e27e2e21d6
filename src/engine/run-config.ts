import { Command, Send } from "@langchain/langgraph";
import type { HeaderPatterns } from "../config/schema.ts";
import type { Command as WireCommand, RunKwargs } from "../protocol/runs.ts";
import type { RunRecord } from "../storage/run-record.ts";

/** Headers that carry credentials of this server or its clients; graphs never see them. */
const WITHHELD_HEADERS = new Set(["x-api-key", "x-tenant-id", "x-service-key"]);

/** Gives those of a request's headers that a graph may read from `configurable`. */
export type ChooseHeaders = (headers: Headers) => Record<string, string>;

/**
 * Chooses `x-*` and `user-agent`, and what the configuration includes; what it excludes wins. In its patterns
 * `*` stands for anything.
 */
export function createChooseHeaders(patterns: HeaderPatterns | undefined): ChooseHeaders {
  const included = toMatcher(patterns?.includes);
  const excluded = toMatcher(patterns?.excludes);
  const isUsual = (name: string): boolean =>
    name === "user-agent" || (name.startsWith("x-") && !WITHHELD_HEADERS.has(name));
  return (headers) => {
    const chosen: Record<string, string> = {};
    for (const [name, value] of headers) {
      if (!excluded(name) && (included(name) || isUsual(name))) chosen[name] = value;
    }
    return chosen;
  };
}

function toMatcher(patterns: readonly string[] | undefined): (name: string) => boolean {
  if (!patterns || patterns.length === 0) return () => false;
  const alternatives = patterns.map((pattern) =>
    pattern
      .toLowerCase()
      .split("*")
      .map((part) => part.replaceAll(/[.+?^${}()|[\]\\]/g, String.raw`\$&`))
      .join(".*"),
  );
  const expression = new RegExp(`^(?:${alternatives.join("|")})$`, "u");
  return (name) => expression.test(name);
}

/** The assistant's settings, what earlier runs of the thread asked for, and what this one does; the last one wins. */
function toSettings({ origin, kwargs }: RunRecord): Record<string, unknown> {
  const { configurable = {} } = kwargs.config;
  const { settings, given = Object.keys(configurable) } = origin;
  if (settings === undefined) return configurable;
  const asked = given.filter((key) => key in configurable).map((key) => [key, configurable[key]]);
  return { ...configurable, ...settings, ...(Object.fromEntries(asked) as object) };
}

/**
 * What a graph finds in `config.configurable`. The client's values come first, so that what the server knows
 * (ids, user, headers) overwrites them.
 */
export function toConfigurable(run: RunRecord): Record<string, unknown> {
  const { headers, user, permissions } = run.origin;
  const client = Object.entries(toSettings(run)).filter(
    // LangGraph's own channel into a run, and the server's: a client must not reach either.
    ([key]) => !key.startsWith("__") && !key.startsWith("langgraph_auth"),
  );
  return {
    ...Object.fromEntries(client),
    ...headers,
    run_id: run.run_id,
    thread_id: run.thread_id,
    graph_id: run.graph_id,
    assistant_id: run.assistant_id,
    ...(run.user_id !== null && { user_id: run.user_id }),
    ...(user && {
      langgraph_auth_user: user,
      langgraph_auth_user_id: run.user_id ?? undefined,
      langgraph_auth_permissions: permissions ?? [],
    }),
  };
}

/**
 * LangChain metadata of a run: the client's, then the server's. LangGraph keeps it with each checkpoint. No
 * more of it than somebody reads: LangChain copies it for each step, in time that grows with its square.
 */
export function toRunMetadata(run: RunRecord): Record<string, unknown> {
  return {
    ...run.kwargs.config.metadata,
    ...run.metadata,
    run_id: run.run_id,
    thread_id: run.thread_id,
    graph_id: run.graph_id,
    assistant_id: run.assistant_id,
    ...(run.user_id !== null && { user_id: run.user_id }),
    run_attempt: run.attempt,
  };
}

/** What goes into the graph: the command, else the input; `null` goes on from the last checkpoint. */
export function toGraphInput(kwargs: RunKwargs): unknown {
  if (kwargs.command) return toCommand(kwargs.command);
  return kwargs.input ?? null;
}

/** The wire's command as LangGraph's. */
export function toCommand(command: WireCommand): Command {
  const targets = command.goto === undefined || command.goto === null ? [] : [command.goto].flat();
  return new Command({
    ...(targets.length > 0 && {
      goto: targets.map((target) =>
        typeof target === "string" ? target : new Send(target.node, target.input ?? null),
      ),
    }),
    ...(command.update !== undefined && command.update !== null && { update: command.update }),
    ...(command.resume !== undefined && { resume: command.resume }),
  });
}

/** A record without the keys whose value is undefined: LangGraph spreads options over a graph's own defaults. */
export function defined<T extends Record<string, unknown>>(record: T): Partial<T> {
  return Object.fromEntries(
    Object.entries(record).filter(([, value]) => value !== undefined),
  ) as Partial<T>;
}
