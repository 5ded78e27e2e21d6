import type { z } from "zod";
import type { StateGet, StateListCheckpoints } from "../protocol/commands.ts";
import { CommandRefusal } from "./command-refusal.ts";
import type { CommandContext, Outcome } from "./commands.ts";

/** `state.get`: the latest values of a graph of the thread. */
export async function getState(
  context: CommandContext,
  params: z.output<typeof StateGet>,
): Promise<Outcome> {
  const thread = await context.thread();
  const { namespace, keys } = params;
  const state = await orMissing(
    namespace,
    context.states.read(thread, { checkpoint_ns: namespace.join("|") }, { subgraphs: false }),
  );
  if (namespace.length > 0 && !state.checkpoint) throw missing(namespace);
  const values = state.values as Record<string, unknown>;
  const { checkpoint } = state;
  return {
    result: {
      values: keys
        ? Object.fromEntries(keys.filter((key) => key in values).map((key) => [key, values[key]]))
        : values,
      ...(checkpoint?.checkpoint_id && {
        checkpoint: { id: checkpoint.checkpoint_id, ns: checkpoint.checkpoint_ns ?? "" },
      }),
    },
  };
}

/** `state.listCheckpoints`: the checkpoints of a graph of the thread, newest first. */
export async function listCheckpoints(
  context: CommandContext,
  params: z.output<typeof StateListCheckpoints>,
): Promise<Outcome> {
  const thread = await context.thread();
  const { namespace, limit, before } = params;
  const history = await orMissing(
    namespace,
    context.states.history(thread, {
      limit,
      ...(before !== undefined && { before }),
      checkpoint: { checkpoint_ns: namespace.join("|") },
    }),
  );
  if (namespace.length > 0 && before === undefined && history.length === 0)
    throw missing(namespace);
  const checkpoints = history.map((state) => {
    const metadata = (state.metadata ?? {}) as Record<string, unknown>;
    return {
      id: state.checkpoint?.checkpoint_id,
      timestamp: state.created_at,
      step: metadata["step"],
      metadata,
    };
  });
  return { result: { checkpoints } };
}

async function orMissing<T>(namespace: readonly string[], read: Promise<T>): Promise<T> {
  try {
    return await read;
  } catch (error) {
    const message = error instanceof Error ? error.message : "";
    throw message.startsWith("Subgraph with namespace") ? missing(namespace) : error;
  }
}

function missing(namespace: readonly string[]): CommandRefusal {
  return new CommandRefusal("no_such_namespace", `There is no graph at ${namespace.join(" > ")}.`);
}
