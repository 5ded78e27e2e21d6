import type { Event } from "@langchain/protocol";
import { wireEvents } from "./server.ts";

/** A subscription to a thread's events as they are on the wire. */
export interface Subscription {
  /** The next event; waits for it. */
  next(): Promise<Event>;
  /** All events up to the end of a run, with it. */
  untilRunEnd(): Promise<Event[]>;
  close(): void;
}

/** Opens `POST /threads/:id/stream/events`. */
export async function subscribe(
  url: string,
  threadId: string,
  body: object,
  headers: Record<string, string> = {},
): Promise<Subscription> {
  const controller = new AbortController();
  const response = await fetch(`${url}/threads/${threadId}/stream/events`, {
    method: "POST",
    body: JSON.stringify(body),
    headers,
    signal: controller.signal,
  });
  if (response.status !== 200) throw new Error(`${response.status}: ${await response.text()}`);
  const events = wireEvents(response);
  const next = async (): Promise<Event> => {
    const { done, value } = await events.next();
    if (done) throw new Error("the stream ended");
    const event = value.data as Event;
    if (value.id !== event.event_id || value.event !== event.method) {
      throw new Error(`the frame says something else than its event: ${JSON.stringify(value)}`);
    }
    return event;
  };
  return {
    next,
    async untilRunEnd() {
      const seen: Event[] = [];
      for (;;) {
        const event = await next();
        seen.push(event);
        if (isRunEnd(event)) return seen;
      }
    },
    close: () => controller.abort(),
  };
}

function isRunEnd({ method, params }: Event): boolean {
  const { event } = params.data as { event?: string };
  return (
    method === "lifecycle" &&
    params.namespace.length === 0 &&
    ["completed", "failed", "interrupted"].includes(String(event))
  );
}

/** The short form of an event: what kind it is, and where in the tree of graphs. */
export function brief({ method, params }: Event): string {
  const { event } = params.data as { event?: string };
  const place = params.namespace.map((segment) => segment.split(":", 1)[0]).join("/");
  const kind = method === "lifecycle" || method === "tools" ? String(event) : method;
  return place === "" ? kind : `${kind}@${place}`;
}
