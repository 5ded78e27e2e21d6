import { isPrefixMatch } from "@langchain/langgraph/stream";
import type { AgentStatus, EventFilter, ThreadEvent } from "../protocol/events.ts";
import type { RunEvent } from "../protocol/runs.ts";
import type { RunError, RunRecord } from "../storage/run-record.ts";
import { fromEventName, isRecord } from "./protocol-events.ts";
import { isTerminal } from "./run-status.ts";
import {
  ANSWERED,
  ENDED,
  STARTED,
  endingOffset,
  offsetOf,
  placeOf,
  type ThreadPiece,
} from "./thread-stream.ts";

/** The ids LangGraph gives its interrupts; a resume value with such keys answers each of them. */
const INTERRUPT_ID = /^[0-9a-f]{32}$/;

/**
 * A piece of a thread's stream as events of the v2 protocol. How the root graph of a run stands is told from the
 * run itself, whichever API it was started by.
 */
export function toThreadEvents(piece: ThreadPiece, serialise: Serialise): ThreadEvent[] {
  if (piece.kind === "quiet") return [];
  const { run } = piece;
  if (piece.kind === "started") return started(run, serialise);
  if (piece.kind === "ended") return ended(piece, serialise);
  return piece.events.flatMap((event) =>
    run.kwargs.protocol === "v2" ? kept(run, event) : translated(run, event, serialise),
  );
}

/** The most of a batch that is waited with, in characters of JSON. */
const MOST_HELD = 4 * 1_024 * 1_024;

/**
 * A thread's stream as events, in batches. From the first end of a run on, all that is past already comes in one: a
 * client that reads an end, and nothing after it for a moment, takes the thread for at rest.
 */
export async function* toEventBatches(
  pieces: AsyncGenerator<ThreadPiece, void, void>,
  serialise: Serialise,
): AsyncGenerator<ThreadEvent[], void, void> {
  let held: ThreadEvent[] = [];
  let size = 0;
  let holds = false;
  for await (const piece of pieces) {
    const isPast = piece.kind !== "quiet" && isTerminal(piece.run.status);
    holds = isPast && (holds || piece.kind === "ended");
    for (const event of toThreadEvents(piece, serialise)) {
      held.push(event);
      size += event.params.length;
    }
    if (held.length === 0 || (holds && size < MOST_HELD)) continue;
    yield held;
    held = [];
    size = 0;
  }
}

type Serialise = (value: unknown) => string;

/** Whether a subscription wants an event. */
export function isWanted(event: ThreadEvent, filter: EventFilter): boolean {
  const { channel, namespace } = event;
  const asked =
    filter.channels.some((wanted) => wanted === channel) ||
    (isCustom(channel) && filter.channels.includes("custom"));
  if (!asked) return false;
  if (!filter.namespaces || filter.namespaces.length === 0) return true;
  return filter.namespaces.some(
    (place) =>
      isPrefixMatch([...namespace], place) &&
      (filter.depth === undefined || namespace.length - place.length <= filter.depth),
  );
}

/** An event as it goes over the wire. Its params are JSON already. */
export function toWire(event: ThreadEvent): string {
  const head = JSON.stringify({
    type: "event",
    event_id: event.event_id,
    seq: event.seq,
    method: event.method,
  });
  return `${head.slice(0, -1)},"params":${event.params}}`;
}

/** The `seq` in an event id; `undefined` if it is none of ours. */
export function seqOf(eventId: string): number | undefined {
  const seq = /^(?:synth:[0-9a-f-]{36}:)?(\d{1,16})$/.exec(eventId)?.[1];
  return seq === undefined ? undefined : Number(seq);
}

function started(run: RunRecord, serialise: Serialise): ThreadEvent[] {
  const events = [
    lifecycle(run, STARTED, { event: "running", graph_name: run.graph_id }, startOf(run)),
  ];
  const answered = answeredBy(run);
  if (answered.length > 0) {
    events.push(
      toEvent(run, {
        offset: ANSWERED,
        method: "input.answered",
        params: serialise({
          namespace: [],
          timestamp: startOf(run),
          data: { interrupt_ids: answered },
        }),
        ofTheRun: true,
      }),
    );
  }
  return events;
}

/** The questions a run was started to answer, by their ids. */
export function answeredBy(run: RunRecord): string[] {
  const resume = run.kwargs.command?.resume;
  if (!isRecord(resume)) return [];
  const ids = Object.keys(resume);
  return ids.every((id) => INTERRUPT_ID.test(id)) ? ids : [];
}

/** An event of a run that speaks the protocol: its params were kept as they are. */
function kept(run: RunRecord, event: RunEvent): ThreadEvent[] {
  const { channel, namespace } = fromEventName(event.event);
  if (channel === "metadata") return restarted(run, event);
  if (channel === "error" || channel === "feedback") return [];
  const method = isCustom(channel) ? "custom" : channel;
  return [
    toEvent(run, { offset: offsetOf(event), method, channel, namespace, params: event.data }),
  ];
}

/** An event of a run with stream modes: those that have an equal in the protocol. */
function translated(run: RunRecord, event: RunEvent, serialise: Serialise): ThreadEvent[] {
  const { channel: mode, namespace } = fromEventName(event.event);
  if (mode === "metadata") return restarted(run, event);
  const told = TRANSLATED[mode]?.(JSON.parse(event.data));
  if (!told) return [];
  const timestamp = run.ended_at?.getTime() ?? Date.now();
  const { node, channel, data } = told;
  const params = serialise({
    namespace,
    timestamp,
    ...(node !== undefined && { node }),
    data,
  });
  return [toEvent(run, { offset: offsetOf(event), method: mode, channel, namespace, params })];
}

function isCustom(channel: string): boolean {
  return channel === "custom" || channel.startsWith("custom:");
}

interface Told {
  channel: string;
  node?: string | undefined;
  data: unknown;
}

const TRANSLATED: Readonly<Record<string, (payload: unknown) => Told | undefined>> = {
  values(payload) {
    if (!isRecord(payload)) return undefined;
    const { __interrupt__: _asked, ...values } = payload;
    return Object.keys(values).length === 0 ? undefined : { channel: "values", data: values };
  },
  updates(payload) {
    const [entry] = Object.entries(isRecord(payload) ? payload : {});
    if (!entry || entry[0] === "__interrupt__") return undefined;
    const [node, values] = entry;
    return {
      channel: "updates",
      node,
      data: { node, values: isRecord(values) ? values : { value: values } },
    };
  },
  custom(payload) {
    const named = isRecord(payload) && "name" in payload;
    const name = named ? payload["name"] : undefined;
    return {
      channel: typeof name === "string" ? `custom:${name}` : "custom",
      data: named ? payload : { payload },
    };
  },
  tasks: (payload) => ({ channel: "tasks", data: payload }),
};

/** Another attempt says so; the first one was told when the run started. */
function restarted(run: RunRecord, event: RunEvent): ThreadEvent[] {
  const { attempt } = JSON.parse(event.data) as { attempt: number };
  if (attempt === 1) return [];
  const data = { event: "running", graph_name: run.graph_id, attempt } as const;
  return [lifecycle(run, offsetOf(event), data, Date.now())];
}

function ended(piece: ThreadPiece & { kind: "ended" }, serialise: Serialise): ThreadEvent[] {
  const { run, last, found } = piece;
  const timestamp = (last?.ended_at ?? new Date()).getTime();
  const events: ThreadEvent[] = [];
  const tell = (method: string, channel: string, data: unknown): void => {
    const offset = endingOffset(events.length);
    const params = serialise({ namespace: [], timestamp, data });
    events.push(toEvent(run, { offset, method, channel, params }));
  };
  const told = found && run.kwargs.protocol === "v2";
  if (!told && isRecord(last?.output)) {
    const { __interrupt__: asked, ...values } = last.output;
    if (!found || !run.kwargs.stream_mode.includes("values")) tell("values", "values", values);
    for (const { id, value } of (asked ?? []) as { id?: string; value?: unknown }[]) {
      if (id !== undefined) tell("input.requested", "input", { interrupt_id: id, payload: value });
    }
  }
  const data = {
    event: statusOf(last),
    graph_name: run.graph_id,
    ...(last?.error && toFailure(last.error)),
  };
  return [...events, lifecycle(run, ENDED, data, timestamp)];
}

/** A failed run's reason; of a refused answer also which questions it was about. */
function toFailure({ error: _name, message, ...refusal }: RunError): object {
  return { error: message, ...refusal };
}

/** How a run stands that has ended, or was deleted. */
export function statusOf(last: RunRecord | undefined): AgentStatus {
  if (last?.status === "error" || last?.status === "timeout") return "failed";
  if (last?.status === "success" && !last.interrupted) return "completed";
  return "interrupted";
}

function lifecycle(
  run: RunRecord,
  offset: number,
  data: { event: AgentStatus; graph_name: string; attempt?: number },
  timestamp: number,
): ThreadEvent {
  const params = JSON.stringify({ namespace: [], timestamp, data });
  return toEvent(run, { offset, method: "lifecycle", params, ofTheRun: true });
}

function startOf(run: RunRecord): number {
  return (run.started_at ?? run.ended_at ?? run.created_at).getTime();
}

function toEvent(
  run: RunRecord,
  event: {
    offset: number;
    method: string;
    channel?: string;
    namespace?: readonly string[];
    params: string;
    /** Told of the run, and not by its graph: clients read the run's id from the event's. */
    ofTheRun?: boolean;
  },
): ThreadEvent {
  const seq = placeOf(run, event.offset);
  const channel = event.channel ?? event.method;
  return {
    seq,
    event_id: event.ofTheRun ? `synth:${run.run_id}:${seq}` : String(seq),
    method: event.method,
    channel: channel.startsWith("input.") ? "input" : channel,
    namespace: event.namespace ?? [],
    params: event.params,
  };
}
