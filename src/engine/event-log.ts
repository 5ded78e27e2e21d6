import type { RunEvent } from "../protocol/runs.ts";
import type { RunEventRepository } from "../storage/run-events.ts";
import type { StreamPart } from "./stream-modes.ts";

/*
 * The stream of one run:   open --append*--> open --close--> closed --evict--> gone
 *
 * While it is open or closed its events are in memory, and any number of readers follow it, each with a
 * cursor of its own. A resumable stream is also written to the database, in batches, before it is closed.
 * Once it is gone, its readers are served from the database, or get the run's end alone (see `runs.ts`).
 */

/** Bytes of one run's events kept in memory; a resumable run's older events are in the database. */
const RUN_BYTES = 16 * 1024 * 1024;
/** Bytes and time for which the events of finished runs stay in memory. */
const FINISHED_BYTES = 64 * 1024 * 1024;
const FINISHED_MS = 5 * 60_000;
/** How long the events of a resumable run are collected before they are written. */
const WRITE_INTERVAL_MS = 20;
const READ_BATCH = 500;

/** The writing end of a run's stream; one per execution. */
export interface EventWriter {
  append(part: StreamPart): void;
  /** Resolves when everything appended is where a later reader finds it. */
  flush(): Promise<void>;
  /** Flushes and tells the readers that this was all. Never rejects. */
  close(): Promise<void>;
}

class RunStream {
  readonly runId: string;
  readonly resumable: boolean;
  events: RunEvent[] = [];
  bytes = 0;
  nextId: number;
  closed = false;
  closedAt = 0;
  #wake = createSignal();

  constructor(runId: string, resumable: boolean, nextId: number) {
    this.runId = runId;
    this.resumable = resumable;
    this.nextId = nextId;
  }

  push(event: string, data: string): RunEvent {
    const entry = { id: this.nextId++, event, data };
    this.events.push(entry);
    this.bytes += data.length;
    if (this.bytes > RUN_BYTES) this.#trim();
    this.notify();
    return entry;
  }

  /** Drops the older half, so that trimming does not happen for every event. */
  #trim(): void {
    let dropped = 0;
    while (this.bytes > RUN_BYTES / 2 && dropped < this.events.length - 1) {
      this.bytes -= this.events[dropped++]!.data.length;
    }
    this.events = this.events.slice(dropped);
  }

  get firstId(): number {
    return this.events[0]?.id ?? this.nextId;
  }

  after(id: number): RunEvent[] {
    return this.events.slice(Math.max(0, id + 1 - this.firstId));
  }

  notify(): void {
    const wake = this.#wake;
    this.#wake = createSignal();
    wake.resolve();
  }

  /** Resolves at the next event, at the end, or when `signal` aborts. */
  changed(signal: AbortSignal | undefined): Promise<void> {
    if (!signal) return this.#wake.promise;
    return new Promise((resolve) => {
      const done = (): void => {
        signal.removeEventListener("abort", done);
        resolve();
      };
      signal.addEventListener("abort", done, { once: true });
      void this.#wake.promise.then(done);
    });
  }
}

/** A promise and its end; Node 20 has no `Promise.withResolvers`. */
function createSignal(): { promise: Promise<void>; resolve: () => void } {
  let resolve = (): void => {};
  const promise = new Promise<void>((end) => {
    resolve = end;
  });
  return { promise, resolve };
}

/** What a run said, to whoever listens, as often as they ask. */
export class EventLog {
  readonly #streams = new Map<string, RunStream>();
  readonly #repository: RunEventRepository;
  readonly #serialise: (value: unknown) => string;
  readonly #opened = new Map<string, Set<() => void>>();
  #finishedBytes = 0;

  constructor(options: { repository: RunEventRepository; serialise: (value: unknown) => string }) {
    this.#repository = options.repository;
    this.#serialise = options.serialise;
  }

  /** Opens the stream of a run for writing. The caller closes it. */
  async open(
    runId: string,
    options: { resumable: boolean; attempt: number },
  ): Promise<EventWriter> {
    // An earlier attempt's numbering goes on where it stopped, here or in another process.
    const nextId =
      options.attempt > 1
        ? (this.#streams.get(runId)?.nextId ?? (await this.#repository.lastId(runId)) + 1)
        : 0;
    this.forget(runId);
    const stream = new RunStream(runId, options.resumable, nextId);
    this.#streams.set(runId, stream);
    this.#opened.get(runId)?.forEach((wake) => wake());
    const batch = new BatchWriter(this.#repository, runId);
    // Not so once the run is deleted, or another attempt writes: what this one still says is for nobody.
    const isCurrent = (): boolean => this.#streams.get(runId) === stream;
    return {
      append: ({ event, data }) => {
        if (!isCurrent()) return;
        const entry = stream.push(event, this.#serialise(data));
        if (stream.resumable) batch.add(entry);
      },
      flush: () => batch.flush(),
      close: async () => {
        // A stream that cannot be kept is still a stream its present readers have seen whole.
        await batch.flush().catch(() => {});
        if (!isCurrent()) return;
        stream.closed = true;
        stream.closedAt = Date.now();
        this.#finishedBytes += stream.bytes;
        stream.notify();
        this.#evict();
      },
    };
  }

  /** Whether this process has the run's events, finished or not. */
  has(runId: string): boolean {
    return this.#streams.has(runId);
  }

  /** Resolves when this process opens the run's stream, after `timeoutMs`, or when `signal` aborts. */
  whenOpened(runId: string, timeoutMs: number, signal?: AbortSignal): Promise<void> {
    if (this.has(runId) || signal?.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const wakers = this.#opened.get(runId) ?? new Set();
      this.#opened.set(runId, wakers);
      const done = (): void => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", done);
        wakers.delete(done);
        if (wakers.size === 0) this.#opened.delete(runId);
        resolve();
      };
      const timer = setTimeout(done, timeoutMs);
      signal?.addEventListener("abort", done, { once: true });
      wakers.add(done);
    });
  }

  /**
   * The events after `after` (-1 is from the start), in batches, as they come, until the run's stream is
   * closed or `signal` aborts. Each reader has its own cursor. `undefined` if this process has no such stream.
   */
  read(
    runId: string,
    after: number,
    signal?: AbortSignal,
  ): AsyncGenerator<RunEvent[], void, void> | undefined {
    const stream = this.#streams.get(runId);
    return stream && this.#follow(stream, after, signal);
  }

  async *#follow(
    stream: RunStream,
    after: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<RunEvent[], void, void> {
    let cursor = after;
    while (!signal?.aborted) {
      // Taken before looking, so that an event between the look and the wait is not slept through.
      const changed = stream.changed(signal);
      if (cursor + 1 < stream.firstId && stream.resumable) {
        const stored = await this.#repository.read(stream.runId, cursor, READ_BATCH);
        if (stored.length > 0) {
          cursor = stored.at(-1)!.id;
          yield stored;
          continue;
        }
      }
      const events = stream.after(cursor);
      if (events.length > 0) {
        cursor = events.at(-1)!.id;
        yield events;
        continue;
      }
      if (stream.closed) return;
      await changed;
    }
  }

  /** The stored events of a resumable run that no process has in memory any more. */
  async *stored(runId: string, after: number): AsyncGenerator<RunEvent[], void, void> {
    let cursor = after;
    for (;;) {
      const events = await this.#repository.read(runId, cursor, READ_BATCH);
      if (events.length === 0) return;
      cursor = events.at(-1)!.id;
      yield events;
    }
  }

  /** Whether the database has events of a run. */
  async isStored(runId: string): Promise<boolean> {
    return (await this.#repository.lastId(runId)) >= 0;
  }

  /** Forgets the oldest finished streams beyond the limits in bytes and time. */
  #evict(): void {
    const oldest = Date.now() - FINISHED_MS;
    for (const [runId, stream] of this.#streams) {
      if (!stream.closed) continue;
      if (this.#finishedBytes <= FINISHED_BYTES && stream.closedAt >= oldest) return;
      this.#finishedBytes -= stream.bytes;
      this.#streams.delete(runId);
    }
  }

  /** Forgets a run's events at once, as when the run is deleted. Its readers see the end of the stream. */
  forget(runId: string): void {
    const stream = this.#streams.get(runId);
    if (!stream) return;
    if (stream.closed) this.#finishedBytes -= stream.bytes;
    stream.closed = true;
    stream.notify();
    this.#streams.delete(runId);
  }
}

/** Collects events for a moment and writes them in one statement, one statement at a time. */
class BatchWriter {
  readonly #repository: RunEventRepository;
  readonly #runId: string;
  #waiting: RunEvent[] = [];
  #timer: NodeJS.Timeout | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(repository: RunEventRepository, runId: string) {
    this.#repository = repository;
    this.#runId = runId;
  }

  add(event: RunEvent): void {
    this.#waiting.push(event);
    this.#timer ??= setTimeout(() => void this.flush().catch(() => {}), WRITE_INTERVAL_MS);
  }

  flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#writing = this.#writing
      .catch(() => {})
      .then(async () => {
        const events = this.#waiting;
        if (events.length === 0) return;
        this.#waiting = [];
        try {
          await this.#repository.append(this.#runId, events);
        } catch (error) {
          this.#waiting = [...events, ...this.#waiting];
          throw error;
        }
      });
    return this.#writing;
  }
}
