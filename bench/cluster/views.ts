/** What a run does: talks, asks a question, answers it, or is stopped on its way. */
export type Kind = "talk" | "ask" | "resume" | "cancel";

/** An event as a client got it. */
export interface SeenEvent {
  id: number;
  event: string;
  data: string;
}

/** One run as a client saw it. */
export interface RunView {
  /** What the run is about; no two have the same. */
  turn: string;
  kind: Kind;
  thread_id: string;
  /** Known as soon as the server has acknowledged the run. */
  run_id: string | undefined;
  /** Whether the client followed the events, and from the first one. */
  follows: boolean;
  events: SeenEvent[];
  /** How often the stream was taken up again, by the official client or by hand. */
  reconnects: number;
  /** What a wait or join answered. */
  answer: unknown;
  /** From the request to the last event or answer. */
  elapsedMs: number;
}

/** Ids of attempt n start here times n - 1. */
export const ATTEMPT_IDS = 10_000_000;

/** What is wrong with the ids a client saw one after the other: they rise, and within an attempt none is missing. */
export function checkOrder(view: RunView): string[] {
  const problems: string[] = [];
  view.events.forEach(({ id }, at) => {
    const before = view.events[at - 1]?.id ?? -1;
    if (id <= before) problems.push(`event ${id} came after ${before}`);
    const isNewAttempt = id % ATTEMPT_IDS === 0 && id > before;
    if (id > before && id !== before + 1 && !isNewAttempt)
      problems.push(`event ${id} came after ${before}: some are missing`);
  });
  return problems.map((text) => `${view.run_id} (${view.turn}): ${text}`);
}

export interface StoredEvent {
  run_id: string;
  id: number;
  event: string;
  data: string;
}

/** What is wrong with what a client saw beside what the database has: nothing is missing, nothing is different. */
export function checkStored(view: RunView, stored: readonly StoredEvent[]): string[] {
  const seen = new Map(view.events.map((event) => [event.id, event]));
  const problems = stored.flatMap(({ id, event, data }) => {
    const own = seen.get(id);
    if (!own) return [`event ${id} (${event}) is stored and was not seen`];
    const same = own.event === event && own.data === JSON.stringify(JSON.parse(data));
    return same ? [] : [`event ${id} was seen as ${own.event} and is stored as ${event}`];
  });
  return problems.map((text) => `${view.run_id} (${view.turn}): ${text}`);
}
