import type { Filter } from "../protocol/filters.ts";
import type { RunEvent } from "../protocol/runs.ts";
import { patiently } from "../storage/persistence.ts";
import type { RunRecord } from "../storage/run-record.ts";
import type { RunRepository } from "../storage/runs.ts";
import type { ThreadRepository } from "../storage/threads.ts";
import type { RunEngine } from "./runs.ts";
import { isTerminal } from "./run-status.ts";
import { unlessAborted } from "./run-stream.ts";
import type { Watch } from "./watch.ts";

/*
 * The stream of a thread is the events of its runs, one run after another, in the order they started. A place in
 * it is one number, so that a client can name it, and a program compare two of them:
 *
 *   place = position of the run x RUN_SPAN + offset     offset 0, 1: what is told when the run starts
 *                                                       n + 2: event n of its log
 *                                                       from ENDING on: what is told when it has ended
 *
 * Ids of a run's attempts are 10,000,000 apart, so a run has room for 99 of them, and a thread for 9,007,199 runs.
 */

const RUN_SPAN = 1_000_000_000;
const ENDING = RUN_SPAN - 1_000;

/** The offsets of what is told of a run when it starts. */
export const STARTED = 0;
export const ANSWERED = 1;
/** The offset of the very last thing that is told of a run. */
export const ENDED = RUN_SPAN - 1;

/** The place in its thread's stream of something that is told of a run. */
export function placeOf(run: { stream_position: number | null }, offset: number): number {
  return (run.stream_position ?? 0) * RUN_SPAN + offset;
}

/** The offset of an event of a run's log. */
export function offsetOf(event: { id: number }): number {
  return event.id + 2;
}

/** The offset of what is told about a run's end before the last thing; `index` counts from 0. */
export function endingOffset(index: number): number {
  return Math.min(ENDING + index, ENDED - 1);
}

/** The last place of all the runs before the one at a position. */
export function placeBefore(position: number): number {
  return position * RUN_SPAN - 1;
}

/** A piece of a thread's stream. */
export type ThreadPiece =
  /** The run has been taken up, or was stopped before that. */
  | { kind: "started"; run: RunRecord }
  | { kind: "events"; run: RunRecord; events: readonly RunEvent[] }
  /**
   * The run has ended; `last` is how, `undefined` if it was deleted. `found`: its events were told, so that its
   * row has nothing to add to them.
   */
  | { kind: "ended"; run: RunRecord; last: RunRecord | undefined; found: boolean }
  /** All there is was told. Comes again whenever something may have happened that was no run. */
  | { kind: "quiet" };

export interface ThreadStreamsOptions {
  runs: RunRepository;
  engine: RunEngine;
  threads: ThreadRepository;
  /** Of threads, by their marks. */
  watch: Watch;
}

/** The streams of threads, for any number of readers, in whichever process the runs are executed. */
export class ThreadStreams {
  readonly #options: ThreadStreamsOptions;

  constructor(options: ThreadStreamsOptions) {
    this.#options = options;
  }

  /** The place from which on a reader gets the active run from its start, and what comes after. */
  async now(threadId: string): Promise<number> {
    const { runs, threads } = this.#options;
    const last = await threads.lastStreamPosition(threadId);
    const running = (await runs.active(threadId)).find(({ status }) => status === "running");
    return Math.max(0, placeBefore(running?.stream_position ?? last + 1));
  }

  /**
   * The pieces from the run on in which the place `after` is (0: from the first run), then what happens, for
   * ever: it ends when `signal` aborts. Pieces of that run may be from before `after`. For a reader that begins
   * at 0, a run that has ended already and whose events are gone is left out. A thread that is not there, or does
   * not pass `filter`, says nothing, until it does.
   */
  async *follow(
    threadId: string,
    reader: { after: number; filter: Filter | undefined; signal: AbortSignal },
  ): AsyncGenerator<ThreadPiece, void, void> {
    const { after, filter, signal } = reader;
    const { runs, threads, watch } = this.#options;
    const watched = watch.watch(threadId);
    const begun = Math.floor(after / RUN_SPAN);
    const offset = after % RUN_SPAN;
    let position = offset === ENDED ? begun : begun - 1;
    const last = () => patiently(() => threads.lastStreamPosition(threadId), signal);
    const nextRun = () => patiently(() => runs.nextInStream(threadId, position, filter), signal);
    try {
      // A run that ended while this reader was away is told of, one from before its time is not.
      const past = after > 0 ? 0 : ((await last()) ?? 0);
      while (!signal.aborted) {
        let run = await nextRun();
        if (!run) {
          yield { kind: "quiet" };
          // Taken before looking, so that a run that starts between the look and the wait is not slept through.
          const changed = watched.changed();
          run = await nextRun();
          if (!run) await unlessAborted(changed, signal);
          if (!run) continue;
        }
        position = run.stream_position ?? position;
        yield* this.#run(run, {
          seen: position === begun ? Math.max(-1, offset - 2) : -1,
          skipsGone: position <= past && isTerminal(run.status),
          signal,
        });
      }
    } finally {
      watched.close();
    }
  }

  async *#run(
    run: RunRecord,
    reader: { seen: number; skipsGone: boolean; signal: AbortSignal },
  ): AsyncGenerator<ThreadPiece, void, void> {
    const log = this.#options.engine.log(run, reader.seen, reader.signal);
    let next = reader.skipsGone ? await log.next() : undefined;
    if (next?.done && !next.value.found) return;
    yield { kind: "started", run };
    for (;;) {
      next ??= await log.next();
      if (reader.signal.aborted) return;
      if (next.done) {
        yield { kind: "ended", run, last: next.value.run, found: next.value.found };
        return;
      }
      yield { kind: "events", run, events: next.value };
      next = undefined;
    }
  }
}
