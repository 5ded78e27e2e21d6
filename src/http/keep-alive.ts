import { BrokenOff } from "./broken-off.ts";

/** How often a line break goes out while an answer is being waited for. */
const BEAT_MS = 5_000;
const encoder = new TextEncoder();
const BEAT = encoder.encode("\n");

/**
 * A JSON answer that takes its time: status 200 and a line break at once, so that no proxy gives up, then
 * the value. JSON allows white space in front. `onGone` is called when the client is gone before the end.
 */
export function toPatientJson(
  value: Promise<unknown>,
  options: {
    headers: Record<string, string>;
    serialise: (value: unknown) => string;
    onGone: () => void;
  },
): Response {
  let beat: NodeJS.Timeout | undefined;
  let over = false;
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      controller.enqueue(BEAT);
      beat = setInterval(() => controller.enqueue(BEAT), BEAT_MS);
      value.then(options.serialise).then(
        (answer) => {
          clearInterval(beat);
          if (over) return;
          controller.enqueue(encoder.encode(answer));
          controller.close();
        },
        (error: unknown) => {
          clearInterval(beat);
          if (!over) controller.error(new BrokenOff(error));
        },
      );
    },
    cancel() {
      over = true;
      clearInterval(beat);
      options.onGone();
    },
  });
  return new Response(body, {
    headers: { "Content-Type": "application/json", ...options.headers },
  });
}
