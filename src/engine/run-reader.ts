import type { RunEvent } from "../protocol/runs.ts";
import { patiently } from "../storage/persistence.ts";
import type { RunRecord } from "../storage/run-record.ts";
import type { RunRepository } from "../storage/runs.ts";
import type { PublicError } from "./errors.ts";
import type { EventLog } from "./event-log.ts";
import type { Message } from "./mailbox.ts";
import { toModeEvents } from "./mode-events.ts";
import { isTerminal } from "./run-status.ts";
import { firstIdOf, unlessAborted } from "./run-stream.ts";
import type { Watch } from "./watch.ts";
import type { Worker } from "./worker.ts";

/** What a wait or join answers: the final values, or `__error__`. */
export type RunAnswer = Record<string, unknown> | { __error__: PublicError };

/** How the log of a run ended. */
export interface LogEnd {
  /** The run, which has ended; `undefined` if it was deleted, or the reader left. */
  run: RunRecord | undefined;
  /** Whether its events are there, or those the reader had not seen. */
  found: boolean;
}

export interface RunReaderOptions {
  runs: RunRepository;
  events: EventLog;
  worker: Worker;
  watch: Watch;
  /** Tells the other processes. */
  notify: (message: Message) => void;
}

/** Follows runs and waits for them, wherever they are executed. */
export class RunReader {
  readonly #options: RunReaderOptions;
  readonly #waits = new Set<Promise<unknown>>();

  constructor(options: RunReaderOptions) {
    this.#options = options;
  }

  /**
   * The events of a run after `after` (-1 is from the start), in batches, as they come, until the run has
   * ended. A reader that comes after the events are gone gets how the run ended.
   */
  async *events(
    run: RunRecord,
    after: number,
    signal?: AbortSignal,
  ): AsyncGenerator<RunEvent[], void, void> {
    const { kind, cursor } = yield* toModeBatches(run, this.#follow(run, after, signal));
    const ended = kind === "expired" ? await this.#get(run, signal) : undefined;
    if (ended) yield toClosingEvents(ended, cursor);
  }

  /** As `events`, with nothing made up: a run whose events are gone gives none. */
  async *log(
    run: RunRecord,
    after: number,
    signal?: AbortSignal,
  ): AsyncGenerator<RunEvent[], LogEnd, void> {
    const { kind } = yield* this.#follow(run, after, signal);
    const ended = kind !== "left" ? await this.#get(run, signal) : undefined;
    return { run: ended, found: kind === "complete" };
  }

  /** The events wherever they are; then whether that was the end, with what was seen last. */
  async *#follow(
    run: RunRecord,
    after: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<RunEvent[], { kind: "complete" | "expired" | "left"; cursor: number }, void> {
    const { events } = this.#options;
    let cursor = after;
    const passOn = async function* <End>(
      batches: AsyncGenerator<RunEvent[], End, void>,
    ): AsyncGenerator<RunEvent[], End, void> {
      for (;;) {
        const { done, value } = await batches.next();
        if (done) return value;
        cursor = value.at(-1)!.id;
        yield value;
      }
    };
    for (;;) {
      const here = events.read(run.run_id, cursor, signal);
      const over = here && (yield* passOn(here));
      if (signal?.aborted) return { kind: "left", cursor };
      if (over) return { kind: "complete", cursor };
      const end = yield* passOn(events.tail(run.run_id, cursor, signal));
      if (end.kind === "gone") return { kind: "left", cursor };
      if (end.kind === "ended") return { kind: end.complete ? "complete" : "expired", cursor };
    }
  }

  /** The run as it is, once the database tells; `undefined` if it is gone, or `signal` aborts first. */
  #get(run: RunRecord, signal: AbortSignal | undefined): Promise<RunRecord | undefined> {
    return patiently(() => this.#options.runs.get(run.run_id, undefined), signal);
  }

  /** Resolves when nobody waits for a run's end in this process. */
  async idle(): Promise<void> {
    while (this.#waits.size > 0) await Promise.allSettled(this.#waits);
  }

  /** Waits for a run's end, here or in another process. Rejects only if `signal` aborts first. */
  wait(run: RunRecord, signal?: AbortSignal): Promise<RunAnswer> {
    const wait = this.#wait(run, signal).finally(() => this.#waits.delete(wait));
    this.#waits.add(wait);
    return wait;
  }

  async #wait(run: RunRecord, signal: AbortSignal | undefined): Promise<RunAnswer> {
    const { worker, watch, notify } = this.#options;
    const watched = watch.watch(run.run_id);
    let asked = false;
    try {
      for (;;) {
        // Taken before looking, so that an end between the look and the wait is not slept through.
        const changed = watched.changed();
        const ended = await abortable(worker.ended(run.run_id), signal);
        if (ended) return toAnswer(ended);
        const now = await this.#get(run, signal);
        signal?.throwIfAborted();
        if (!now) return {};
        if (isTerminal(now.status)) return toAnswer(now);
        if (!asked && now.status === "running") {
          asked = true;
          notify({ kind: "follow", run_id: run.run_id, log: false });
        }
        await unlessAborted(changed, signal);
        signal?.throwIfAborted();
      }
    } finally {
      watched.close();
    }
  }
}

function toAnswer(run: { output: unknown; error?: PublicError | null | undefined }): RunAnswer {
  if (run.error) return { __error__: run.error };
  return (run.output as Record<string, unknown> | null | undefined) ?? {};
}

/** What readers of the first API get of a run, whichever events it tells. */
async function* toModeBatches<End>(
  run: RunRecord,
  batches: AsyncGenerator<RunEvent[], End, void>,
): AsyncGenerator<RunEvent[], End, void> {
  if (run.kwargs.protocol !== "v2") return yield* batches;
  for (;;) {
    const { done, value } = await batches.next();
    if (done) return value;
    const events = toModeEvents(value);
    if (events.length > 0) yield events;
  }
}

/** How a run ended, for a reader that comes after its events are gone. */
function toClosingEvents(run: RunRecord, after: number): RunEvent[] {
  const start = { event: "metadata", data: { run_id: run.run_id, attempt: run.attempt } };
  const values = { event: "values", data: run.output ?? {} };
  const end = run.error ? { event: "error", data: run.error } : values;
  const firstId = Math.max(after + 1, firstIdOf(run.attempt));
  return (after < 0 ? [start, end] : [end]).map(({ event, data }, index) => ({
    id: firstId + index,
    event,
    data: JSON.stringify(data),
  }));
}

function abortable<T>(
  promise: Promise<T> | undefined,
  signal: AbortSignal | undefined,
): Promise<T | undefined> {
  if (!promise || !signal) return promise ?? Promise.resolve(undefined);
  return new Promise((resolve, reject) => {
    const abort = (): void => reject(signal.reason as Error);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
