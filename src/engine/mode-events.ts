import type { RunEvent } from "../protocol/runs.ts";
import { fromEventName, isRecord, toEventName } from "./protocol-events.ts";

/**
 * The events of a run of the v2 protocol as a run with stream modes would have told them, for readers of the
 * first API. Messages and tools have no equal there: the one API tells of blocks, the other of whole chunks.
 */
export function toModeEvents(events: readonly RunEvent[]): RunEvent[] {
  return events.flatMap((event) => {
    const { channel, namespace } = fromEventName(event.event);
    if (channel === "metadata" || channel === "error" || channel === "feedback") return [event];
    const kind = channel.startsWith("custom:") ? "custom" : channel;
    const told = MODES[kind]?.((JSON.parse(event.data) as { data: unknown }).data);
    if (!told) return [];
    const name = toEventName(told.mode ?? kind, namespace);
    return [{ id: event.id, event: name, data: JSON.stringify(told.payload) }];
  });
}

interface Told {
  mode?: string;
  payload: unknown;
}

const MODES: Readonly<Record<string, (data: unknown) => Told>> = {
  values: (payload) => ({ payload }),
  tasks: (payload) => ({ payload }),
  checkpoints: (payload) => ({ payload }),
  updates(data) {
    const { node, values } = data as { node?: string; values: unknown };
    return { payload: node === undefined ? values : { [node]: values } };
  },
  custom: (data) => ({ payload: isRecord(data) && !("name" in data) ? data["payload"] : data }),
  "input.requested"(data) {
    const { interrupt_id: id, payload: value } = data as Record<string, unknown>;
    return { mode: "values", payload: { __interrupt__: [{ id, value }] } };
  },
};
