import type { ThreadStreamMode } from "../protocol/threads.ts";
import { toModeEvents } from "./mode-events.ts";
import { firstIdOf } from "./run-stream.ts";
import {
  ENDED,
  STARTED,
  endingOffset,
  offsetOf,
  placeOf,
  type ThreadPiece,
} from "./thread-stream.ts";

/** One event of a thread's stream in the first API. `id` is its place in the stream. */
export interface ThreadModeEvent {
  id: number;
  event: string;
  /** JSON on one line. */
  data: string;
}

/**
 * A piece of a thread's stream in the first API. `run_modes`: what the runs tell, each from its `metadata` to a
 * `run_done`; `lifecycle`: these two alone.
 */
export function toThreadModeEvents(
  piece: ThreadPiece,
  modes: readonly ThreadStreamMode[],
  serialise: (value: unknown) => string,
): ThreadModeEvent[] {
  const isFull = modes.includes("run_modes");
  if (piece.kind === "quiet" || (!isFull && !modes.includes("lifecycle"))) return [];
  const { run } = piece;
  const at = (offset: number, event: string, data: unknown): ThreadModeEvent => ({
    id: placeOf(run, offset),
    event,
    data: serialise(data),
  });
  if (piece.kind === "started") {
    return [at(STARTED, "metadata", { run_id: run.run_id, attempt: 1 })];
  }
  if (piece.kind === "events") {
    if (!isFull) return [];
    const events = run.kwargs.protocol === "v2" ? toModeEvents(piece.events) : piece.events;
    return events
      .filter(({ id, event }) => event !== "metadata" || id >= firstIdOf(2))
      .map((event) => ({ ...event, id: placeOf(run, offsetOf(event)) }));
  }
  const { last, found } = piece;
  const done = at(ENDED, "run_done", { run_id: run.run_id, status: last?.status ?? "interrupted" });
  if (!isFull || found || !last) return [done];
  const end = last.error
    ? at(endingOffset(0), "error", last.error)
    : at(endingOffset(0), "values", last.output ?? {});
  return [end, done];
}
