import { BrokenOff } from "./broken-off.ts";

/** One event as it goes out. Without an id a client cannot go on after it. */
export interface ServerSentEvent {
  id?: number | string;
  event: string;
  /** JSON on one line. */
  data: string;
}

/**
 * How often a comment goes out while a stream is open. Regular, whatever else is sent: clients measure the
 * beat, and take a stream for dead when it stops.
 */
const HEARTBEAT_MS = 10_000;
const encoder = new TextEncoder();
const HEARTBEAT = encoder.encode(": heartbeat\n\n");

/**
 * Server-sent events: the only writer of them. A batch goes out as one chunk, so a fast run costs one write
 * for many events. `onGone` is called when the client is gone before the end.
 */
export function toEventStream(
  batches: AsyncGenerator<ServerSentEvent[], void, void>,
  options: { headers: Record<string, string>; onGone: () => void },
): Response {
  let heartbeat: NodeJS.Timeout | undefined;
  let over = false;
  const end = (): void => {
    over = true;
    clearInterval(heartbeat);
  };
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      heartbeat = setInterval(() => controller.enqueue(HEARTBEAT), HEARTBEAT_MS);
    },
    async pull(controller) {
      try {
        const { done, value } = await batches.next();
        if (over) return;
        if (!done) {
          controller.enqueue(encoder.encode(value.map(toText).join("")));
          return;
        }
        end();
        controller.close();
      } catch (error) {
        if (over) return;
        end();
        controller.error(new BrokenOff(error));
      }
    },
    cancel() {
      end();
      options.onGone();
    },
  });
  return new Response(body, {
    headers: {
      "Content-Type": "text/event-stream; charset=utf-8",
      "Cache-Control": "no-store",
      // Asks nginx and its kin not to collect the stream.
      "X-Accel-Buffering": "no",
      // Tells the HTTP adapter to send what there is, instead of waiting for a second batch.
      "Transfer-Encoding": "chunked",
      ...options.headers,
    },
  });
}

/** One event on the wire. The data is JSON, which never holds a raw line break. */
function toText({ id, event, data }: ServerSentEvent): string {
  const place = id === undefined ? "" : `id: ${id}\n`;
  return `${place}event: ${event}\ndata: ${data}\n\n`;
}
