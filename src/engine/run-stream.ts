import type { RunEvent } from "../protocol/runs.ts";

/**
 * The ids of attempt n count from (n - 1) times this, so that they rise whatever the process that died had
 * sent and not written.
 */
const ATTEMPT_IDS = 10_000_000;

/** The id of the first event of an attempt, counted from 1. */
export function firstIdOf(attempt: number): number {
  return Math.max(0, attempt - 1) * ATTEMPT_IDS;
}

/** Whether events between these two are missing. A reader from the start has missed nothing. */
function isGap(cursor: number, next: number): boolean {
  return cursor >= 0 && next !== cursor + 1 && next % ATTEMPT_IDS !== 0;
}

export interface RunStreamOptions {
  runId: string;
  /** The id of the next event. */
  nextId: number;
  /** What is kept in memory. */
  maxBytes: number;
  /** Whether older events are in the database. */
  logged: boolean;
  /** Reads them. */
  stored: (after: number) => Promise<RunEvent[]>;
  /** Called before events are dropped that a reader has not seen and that are not in the database. */
  onBehind?: () => void;
}

interface Reader {
  cursor: number;
}

/**
 * The events of one run in memory, of which the oldest are dropped beyond a size, and any number of readers,
 * each with a cursor of its own.
 */
export class RunStream {
  readonly runId: string;
  logged: boolean;
  nextId: number;
  bytes = 0;
  /** No more events come. */
  closed = false;
  closedAt = 0;
  /** The run itself has ended, or is gone: there are none elsewhere either. */
  over = false;
  readonly #options: RunStreamOptions;
  readonly #readers = new Set<Reader>();
  #events: RunEvent[] = [];
  #wake = createSignal();

  constructor(options: RunStreamOptions) {
    this.#options = options;
    this.runId = options.runId;
    this.logged = options.logged;
    this.nextId = options.nextId;
  }

  /** Adds an event with the next id. */
  push(event: string, data: string): RunEvent {
    const entry = { id: this.nextId, event, data };
    this.add([entry]);
    return entry;
  }

  /** Adds events that have their ids; they are above those that are there. */
  add(events: readonly RunEvent[]): void {
    for (const entry of events) {
      this.#events.push(entry);
      this.bytes += entry.data.length;
      this.nextId = entry.id + 1;
    }
    if (this.bytes > this.#options.maxBytes) this.#trim();
    this.#notify();
  }

  /** Those that are in memory. */
  get kept(): readonly RunEvent[] {
    return this.#events;
  }

  close(over: boolean): void {
    this.closed = true;
    this.over = over;
    this.closedAt = Date.now();
    this.#notify();
  }

  /** The events after `after`, in batches, as they come, until the stream is closed or `signal` aborts. */
  async *follow(after: number, signal?: AbortSignal): AsyncGenerator<RunEvent[], void, void> {
    const reader: Reader = { cursor: after };
    this.#readers.add(reader);
    try {
      for (;;) {
        if (signal?.aborted) return;
        // Taken before looking, so that an event between the look and the wait is not slept through, and one
        // between the look and the end is not left out.
        const changed = this.#wake.promise;
        const { closed } = this;
        const events = await this.#after(reader.cursor);
        if (events.length > 0) {
          const gap = toGap(reader.cursor, events[0]!.id);
          reader.cursor = events.at(-1)!.id;
          yield gap ? [gap, ...events] : events;
        } else if (closed) {
          return;
        } else {
          await unlessAborted(changed, signal);
        }
      }
    } finally {
      this.#readers.delete(reader);
    }
  }

  async #after(cursor: number): Promise<RunEvent[]> {
    if (cursor + 1 < this.#firstId && this.logged) {
      const stored = await this.#options.stored(cursor);
      if (stored.length > 0) return stored;
    }
    return this.#events.slice(this.#indexAfter(cursor));
  }

  get #firstId(): number {
    return this.#events[0]?.id ?? this.nextId;
  }

  /** By halving: ids have gaps between attempts. */
  #indexAfter(id: number): number {
    let low = 0;
    let high = this.#events.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#events[middle]!.id <= id) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** Drops the older half, so that trimming does not happen for every event. */
  #trim(): void {
    let dropped = 0;
    let { bytes } = this;
    while (bytes > this.#options.maxBytes / 2 && dropped < this.#events.length - 1) {
      bytes -= this.#events[dropped++]!.data.length;
    }
    if (dropped === 0) return;
    const lastId = this.#events[dropped - 1]!.id;
    const behind = [...this.#readers].some(({ cursor }) => cursor < lastId);
    if (behind && !this.logged) this.#options.onBehind?.();
    this.bytes = bytes;
    this.#events = this.#events.slice(dropped);
  }

  #notify(): void {
    const wake = this.#wake;
    this.#wake = createSignal();
    wake.resolve();
  }
}

/** What a reader is told in place of events that are nowhere any more. */
function toGap(cursor: number, next: number): RunEvent | undefined {
  if (!isGap(cursor, next)) return undefined;
  const message = `Events ${cursor + 1} to ${next - 1} of this run are not kept any more.`;
  return {
    id: next - 1,
    event: "error",
    data: JSON.stringify({ error: "EventsExpired", message }),
  };
}

/** A promise and its end; Node 20 has no `Promise.withResolvers`. */
export function createSignal(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((end) => {
    resolve = end;
  });
  return { promise, resolve };
}

/** Resolves with `promise`, or when `signal` aborts; leaves no listener behind. */
export function unlessAborted(
  promise: Promise<void>,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (!signal) return promise;
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = (): void => {
      signal.removeEventListener("abort", done);
      resolve();
    };
    signal.addEventListener("abort", done, { once: true });
    void promise.then(done);
  });
}
