import { setTimeout as delay } from "node:timers/promises";
import type { Logger } from "../observability/log.ts";
import type { RunEvent } from "../protocol/runs.ts";
import { patiently } from "../storage/persistence.ts";
import type { RunEventRepository } from "../storage/run-events.ts";
import type { Lease } from "../storage/run-queue.ts";
import { EventCommitter, createOutbox, type Outbox } from "./event-committer.ts";
import { isTerminal } from "./run-status.ts";
import { RunStream, firstIdOf, unlessAborted } from "./run-stream.ts";
import type { Watch } from "./watch.ts";
import type { StreamPart } from "./stream-modes.ts";

/*
 * The stream of one run:   open --append*--> open --close--> closed --evict--> gone
 *
 * While it is open or closed its events are in the memory of the process that executes the run, and any number
 * of readers follow it there, each with a cursor of its own. They are also written to the database where that is
 * asked for: by a resumable run from its beginning, and by a reader in another process from whatever is in
 * memory then. Readers elsewhere, and those that come when a stream is gone, follow the database (`tail`).
 */

/** Bytes of one run's events kept in memory; a logged run's older events are in the database. */
const RUN_BYTES = 16 * 1024 * 1024;
/** The same for a run that another process executes: whatever is older is read again. */
const TAIL_BYTES = 1024 * 1024;
/** Bytes and time for which the events of finished runs stay in memory. */
const FINISHED_BYTES = 64 * 1024 * 1024;
const FINISHED_MS = 5 * 60_000;
const TAIL_RETRY_MS = 500;

/** The writing end of a run's stream; one per execution. */
export interface EventWriter {
  append(part: StreamPart): void;
  /** Whether the events go to the database, all of them. */
  readonly logged: boolean;
  /** Resolves when everything appended is where a later reader finds it. */
  flush(): Promise<void>;
  /**
   * Tells the readers that this was all of this execution; `over`: and that the run has ended. Without it they
   * look for the next attempt. Never rejects.
   */
  close(over: boolean): Promise<void>;
}

/** How the log of a run ended that was followed in the database. */
export type TailEnd =
  /** The run has ended; `complete` if its last attempt is in the database. */
  | { kind: "ended"; complete: boolean }
  /** This process has the events in memory. */
  | { kind: "here" }
  /** There is no such run any more, or the reader left. */
  | { kind: "gone" };

export interface EventLogOptions {
  repository: RunEventRepository;
  serialise: (value: unknown) => string;
  watch: Watch;
  /** Asks whoever executes the run to write its events, and to tell of them. */
  askToLog: (runId: string) => void;
  /** Tells the other processes that there is news of the run. */
  announce: (runId: string) => void;
  /** No other process has this database: nobody follows a run from elsewhere. */
  alone: boolean;
  /** What the database keeps of one execution, in bytes; past it the oldest events go. */
  maxLoggedBytes: number;
  log: Logger;
}

interface Writing {
  stream: RunStream;
  outbox: Outbox;
}

interface Tail {
  stream: RunStream;
  readers: number;
  end: TailEnd;
  /** Aborts when nobody reads any more. */
  left: AbortController;
}

/** What a run said, to whoever listens, as often as they ask, in whichever process they are. */
export class EventLog {
  readonly #options: EventLogOptions;
  readonly #committer: EventCommitter;
  readonly #writings = new Map<string, Writing>();
  readonly #tails = new Map<string, Tail>();
  #finishedBytes = 0;

  constructor(options: EventLogOptions) {
    this.#options = options;
    const { repository, log, maxLoggedBytes } = options;
    this.#committer = new EventCommitter({ repository, log, maxRunChars: maxLoggedBytes });
  }

  /**
   * Opens the stream of a run for writing. `logged`: its events go to the database; `watched`: readers in other
   * processes are told of them. The caller closes it.
   */
  open(lease: Lease, options: { logged: boolean; watched: boolean }): EventWriter {
    const { run_id: runId } = lease;
    this.forget(runId);
    const outbox = createOutbox(lease, options.watched && !this.#options.alone);
    const stream = new RunStream({
      runId,
      nextId: firstIdOf(lease.attempt),
      maxBytes: RUN_BYTES,
      logged: options.logged,
      stored: async (after) => {
        const page = await patiently(async () => {
          // What is not in memory any more may not be in the database yet.
          await this.#committer.flush(outbox);
          return this.#options.repository.read(runId, after);
        });
        return page?.events ?? [];
      },
      onBehind: () => this.log(runId),
    });
    const writing: Writing = { stream, outbox };
    this.#writings.set(runId, writing);
    this.#options.watch.hint([runId]);
    // Not so once the run is deleted, or another attempt writes: what this one still says is for nobody.
    const isCurrent = (): boolean => this.#writings.get(runId) === writing;
    return {
      append: ({ event, data }) => {
        if (!isCurrent()) return;
        const entry = stream.push(event, this.#options.serialise(data));
        if (stream.logged) this.#committer.add(outbox, [entry]);
      },
      get logged() {
        return stream.logged;
      },
      flush: () => this.#committer.flush(outbox),
      close: async (over) => {
        this.#committer.drop(outbox);
        if (outbox.watched) this.#options.announce(runId);
        if (!isCurrent()) return;
        stream.close(over);
        this.#finishedBytes += stream.bytes;
        this.#evict();
      },
    };
  }

  /** Whether this process has the run's events, finished or not. */
  has(runId: string): boolean {
    return this.#writings.has(runId);
  }

  /**
   * The events after `after` (-1 is from the start), in batches, as they come, until the run's stream is
   * closed or `signal` aborts; then whether the run has ended. `undefined` if this process has no such stream.
   */
  read(
    runId: string,
    after: number,
    signal?: AbortSignal,
  ): AsyncGenerator<RunEvent[], boolean, void> | undefined {
    const stream = this.#writings.get(runId)?.stream;
    return stream && followToEnd(stream, after, signal);
  }

  /** Writes the run's events to the database from here on, beginning with those that are in memory. */
  log(runId: string): void {
    const writing = this.#writings.get(runId);
    if (!writing || writing.stream.logged || writing.stream.closed) return;
    writing.stream.logged = true;
    this.#committer.add(writing.outbox, writing.stream.kept);
  }

  /** Resolves when what a logged run has said so far is in the database, or cannot be at the moment. */
  async written(runId: string): Promise<void> {
    const writing = this.#writings.get(runId);
    if (writing?.stream.logged) await this.#committer.flush(writing.outbox).catch(() => {});
  }

  /** Tells the other processes what happens to the run, if it is executed here. */
  follow(runId: string): void {
    const writing = this.#writings.get(runId);
    if (writing && !this.#options.alone) writing.outbox.watched = true;
  }

  /**
   * The events of a run that this process does not execute, as `read` gives them: from the database, where they
   * are asked to be. Readers of one run share the statements.
   */
  async *tail(
    runId: string,
    after: number,
    signal?: AbortSignal,
  ): AsyncGenerator<RunEvent[], TailEnd, void> {
    const tail = this.#tails.get(runId) ?? this.#openTail(runId, after);
    tail.readers += 1;
    try {
      yield* tail.stream.follow(after, signal);
      return signal?.aborted ? { kind: "gone" } : tail.end;
    } finally {
      tail.readers -= 1;
      if (tail.readers === 0) {
        tail.left.abort();
        if (this.#tails.get(runId) === tail) this.#tails.delete(runId);
      }
    }
  }

  #openTail(runId: string, after: number): Tail {
    const { repository, log } = this.#options;
    const tail: Tail = {
      stream: new RunStream({
        runId,
        nextId: after + 1,
        maxBytes: TAIL_BYTES,
        logged: true,
        stored: async (cursor) =>
          (await patiently(() => repository.read(runId, cursor)))?.events ?? [],
      }),
      readers: 0,
      end: { kind: "gone" },
      left: new AbortController(),
    };
    this.#tails.set(runId, tail);
    void this.#pull(tail, after)
      .catch((error: unknown) => log.error({ err: error, run_id: runId }, "events"))
      .finally(() => {
        if (this.#tails.get(runId) === tail) this.#tails.delete(runId);
        tail.stream.close(tail.end.kind !== "here");
      });
    return tail;
  }

  /** Brings what another process writes into memory, until the run's end or until nobody reads. */
  async #pull(tail: Tail, after: number): Promise<void> {
    const { repository, watch, askToLog, alone, log } = this.#options;
    const { stream, left } = tail;
    const { signal } = left;
    const watched = watch.watch(stream.runId);
    let cursor = after;
    let received = -1;
    let askedIn = 0;
    try {
      while (!signal.aborted) {
        // Taken before looking, so that what happens between the look and the wait is not slept through.
        const changed = watched.changed();
        if (this.#goesOnHere(stream.runId)) {
          tail.end = { kind: "here" };
          return;
        }
        try {
          const page = await repository.read(stream.runId, cursor);
          if (!page) return;
          if (page.events.length > 0) {
            stream.add(page.events);
            cursor = received = page.events.at(-1)!.id;
          }
          if (!page.last) continue;
          if (isTerminal(page.status)) {
            tail.end = { kind: "ended", complete: await this.#isComplete(stream, page, received) };
            return;
          }
          if (askedIn < page.attempt && page.status === "running" && !alone) {
            // It ended meanwhile, or is logged meanwhile: either is worth a look.
            if (!page.logged && !(await repository.want(stream.runId))) continue;
            askedIn = page.attempt;
            askToLog(stream.runId);
          }
        } catch (error) {
          log.debug({ err: error }, "the log of a run could not be read; it will be tried again");
          await delay(TAIL_RETRY_MS, undefined, { signal }).catch(() => {});
          continue;
        }
        await unlessAborted(changed, signal);
      }
    } finally {
      watched.close();
    }
  }

  /** Whether memory has more of a run than an attempt that ended before the run did. */
  #goesOnHere(runId: string): boolean {
    const stream = this.#writings.get(runId)?.stream;
    return stream !== undefined && (!stream.closed || stream.over);
  }

  /** Whether the database has the last attempt of a run that has ended. */
  async #isComplete(
    { runId }: RunStream,
    { logged, attempt }: { logged: boolean; attempt: number },
    received: number,
  ): Promise<boolean> {
    if (!logged) return false;
    if (received >= firstIdOf(attempt)) return true;
    const [state] = await this.#options.repository.states([runId]);
    return state !== undefined && state.last_id >= firstIdOf(attempt);
  }

  /** Ends what is followed in other processes. */
  close(): void {
    for (const { left, stream } of this.#tails.values()) {
      left.abort();
      stream.close(false);
    }
  }

  /** Forgets the oldest finished streams beyond the limits in bytes and time. */
  #evict(): void {
    const oldest = Date.now() - FINISHED_MS;
    for (const [runId, { stream }] of this.#writings) {
      if (!stream.closed) continue;
      if (this.#finishedBytes <= FINISHED_BYTES && stream.closedAt >= oldest) return;
      this.#finishedBytes -= stream.bytes;
      this.#writings.delete(runId);
    }
  }

  /** Forgets a run's events at once, as when the run is deleted. Its readers see the end of the stream. */
  forget(runId: string): void {
    const writing = this.#writings.get(runId);
    if (!writing) return;
    const { stream, outbox } = writing;
    this.#committer.drop(outbox);
    if (stream.closed) this.#finishedBytes -= stream.bytes;
    else stream.close(false);
    this.#writings.delete(runId);
  }
}

async function* followToEnd(
  stream: RunStream,
  after: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<RunEvent[], boolean, void> {
  yield* stream.follow(after, signal);
  return stream.over;
}
