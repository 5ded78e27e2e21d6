import { toPublicTask, type StreamPart } from "./stream-modes.ts";

/** One event of LangGraph's own `streamEvents` in version 3, as far as this module looks into it. */
export interface GraphProtocolEvent {
  method: string;
  params: { namespace: string[]; timestamp: number; node?: string; data: unknown };
}

const NAME_END = "|";
const CUSTOM = "custom:";

/** The name under which an event is kept: its channel, then its namespace. */
export function toEventName(channel: string, namespace: readonly string[]): string {
  return [channel, ...namespace].join(NAME_END);
}

/** The channel and the namespace in an event's name. */
export function fromEventName(name: string): { channel: string; namespace: string[] } {
  const [channel = "", ...namespace] = name.split(NAME_END);
  return { channel: channel.startsWith(CUSTOM) ? decodeURIComponent(channel) : channel, namespace };
}

/**
 * What is kept of one event of the graph: the `params` of the protocol's event, under its channel and namespace.
 * The root's lifecycle is left out, because the graph cannot know how its run ends. A question becomes an event
 * of its own, once: `asked` holds the ids of those that were told.
 */
export function fromProtocolEvent(event: GraphProtocolEvent, asked: Set<string>): StreamPart[] {
  const { namespace, timestamp, data } = event.params;
  // A question is told as an update of a node that is none.
  const node = event.params.node === "__interrupt__" ? undefined : event.params.node;
  const part = (channel: string, payload: unknown): StreamPart => ({
    event: toEventName(channel, namespace),
    data: { namespace, timestamp, ...(node !== undefined && { node }), data: payload },
  });
  const questions = (interrupts: unknown): StreamPart[] =>
    newQuestions(interrupts, asked).map((question) => part("input.requested", question));

  switch (event.method) {
    case "lifecycle":
      return namespace.length === 0 ? [] : [part("lifecycle", data)];
    case "values": {
      if (!isRecord(data) || !("__interrupt__" in data)) return [part("values", data)];
      const { __interrupt__: interrupts, ...values } = data;
      const told = questions(interrupts);
      return Object.keys(values).length === 0 ? told : [...told, part("values", values)];
    }
    case "updates":
      if (event.params.node === "__interrupt__")
        return questions((data as { values?: unknown }).values);
      return [part("updates", data)];
    case "tasks":
      return [part("tasks", toPublicTask(data as Record<string, unknown>))];
    case "custom": {
      const name = isRecord(data) ? data["name"] : undefined;
      return [part(typeof name === "string" ? toCustomChannel(name) : "custom", data)];
    }
    case "messages":
    case "tools":
    case "checkpoints":
      return [part(event.method, data)];
    default: {
      // A channel of the graph's own: `custom:<name>`.
      const name = event.method.replace(/^custom:/u, "");
      return [part(toCustomChannel(name), { name, payload: data })];
    }
  }
}

/** A graph's own channel as it is kept: its name may hold anything. */
function toCustomChannel(name: string): string {
  return CUSTOM + encodeURIComponent(name);
}

function newQuestions(
  interrupts: unknown,
  asked: Set<string>,
): { interrupt_id: string; payload: unknown }[] {
  if (!Array.isArray(interrupts)) return [];
  return (interrupts as { id?: unknown; value?: unknown }[]).flatMap(({ id, value }) => {
    if (typeof id !== "string" || asked.has(id)) return [];
    asked.add(id);
    return [{ interrupt_id: id, payload: value }];
  });
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
