import { AsyncResource } from "node:async_hooks";
import { setImmediate as nextTurn } from "node:timers/promises";
import { ServerError } from "../errors.ts";
import type { SaveRows } from "./checkpoint-rows.ts";
import { saveRows } from "./checkpoint-statement.ts";
import type { SaveGuard } from "./checkpoint-statement.ts";
import type { Queryable } from "./database.ts";
import { isUnreachable, persistently } from "./persistence.ts";

/** Whose rows they are. Rows of one writer are committed in order; after a failure none of its rows are. */
export interface Writer {
  readonly guard?: SaveGuard | undefined;
  /** Awaited before its rows are committed; never rejects. */
  readonly before?: (() => Promise<void>) | undefined;
  failure: Error | undefined;
}

interface Save {
  writer: Writer;
  threadId: string;
  /** Resolves when the values are serialised. */
  rows: Promise<SaveRows>;
  resolve: () => void;
  reject: (error: Error) => void;
}

/** Enough to spread the cost of a commit over many runs, small enough to build and send in a few ms. */
const MAX_STATEMENT_BYTES = 4 * 1024 * 1024;
const MAX_STATEMENT_SAVES = 1_000;

/**
 * Commits the rows of all runs of a server together.
 *
 * Idle until a save is added; then collecting, for the rest of this turn of the event loop; then
 * committing one statement, while new saves collect for the next. Idle again when none are left.
 * A statement that fails is sent again in parts, run by run, so that a row the database refuses fails the
 * run it belongs to and no other.
 */
export class GroupCommitter {
  readonly #database: Queryable;
  readonly #queue: Save[] = [];
  readonly #pending = new Map<string, Promise<void>>();
  /** The loop serves all runs, so it must not inherit the async context (trace, transaction) of one. */
  readonly #context = new AsyncResource("aegra.checkpoints");
  #running = false;

  constructor(database: Queryable) {
    this.#database = database;
  }

  /** Resolves when the rows are committed; rejects when they never will be. */
  add(writer: Writer, threadId: string, rows: Promise<SaveRows>): Promise<void> {
    const saved = new Promise<void>((resolve, reject) => {
      this.#queue.push({ writer, threadId, rows, resolve, reject });
    });
    // Handled by the loop, which may reach it only after it rejected.
    rows.catch(() => {});
    const settled = saved.then(noop, noop).finally(() => {
      if (this.#pending.get(threadId) === settled) this.#pending.delete(threadId);
    });
    this.#pending.set(threadId, settled);
    if (!this.#running) {
      this.#running = true;
      void this.#context.runInAsyncScope(() => this.#run());
    }
    return saved;
  }

  /** Resolves when nothing of the thread (or of any) that was added before this call is waiting. */
  async settled(threadId?: string): Promise<void> {
    if (threadId === undefined) await Promise.all(this.#pending.values());
    else await this.#pending.get(threadId);
  }

  async #run(): Promise<void> {
    while (this.#queue.length > 0) {
      // Runs that wait for the statement before go on in this turn and join the next one.
      await nextTurn();
      await this.#commit(await this.#take());
    }
    this.#running = false;
  }

  /** The oldest saves, as many as fit one statement; at least one, however large. */
  async #take(): Promise<Ready[]> {
    const ready: Ready[] = [];
    let byteCount = 0;
    while (ready.length < MAX_STATEMENT_SAVES && byteCount < MAX_STATEMENT_BYTES) {
      const save = this.#queue.shift();
      if (!save) break;
      try {
        const rows = await save.rows;
        await save.writer.before?.();
        byteCount += rows.byteCount;
        ready.push({ save, rows });
      } catch (error) {
        fail(save, error);
      }
    }
    return ready;
  }

  async #commit(batch: readonly Ready[]): Promise<void> {
    const open = batch.filter(isOpen);
    if (open.length === 0) return;
    try {
      // Sending rows twice is harmless, so it does not matter whether a lost statement was committed.
      await persistently(() => this.#send(open));
      return;
    } catch (error) {
      if (isUnreachable(error) || open.length === 1) {
        for (const { save } of open) fail(save, error);
        return;
      }
    }
    const writers = new Map<Writer, Ready[]>();
    for (const part of open) {
      const parts = writers.get(part.save.writer);
      if (parts) parts.push(part);
      else writers.set(part.save.writer, [part]);
    }
    if (writers.size > 1) {
      for (const parts of writers.values()) await this.#commit(parts);
    } else {
      // One run's saves, each on its own: what came before the refused row is kept.
      for (const part of open) await this.#commit([part]);
    }
  }

  async #send(batch: readonly Ready[]): Promise<void> {
    const lost = await saveRows(
      this.#database,
      batch.map(({ save, rows }) => ({ rows, guard: save.writer.guard })),
    );
    for (const { save } of batch) {
      const { guard } = save.writer;
      if (guard && lost.has(guard)) {
        fail(
          save,
          new ServerError(
            "conflict",
            "runId" in guard
              ? `Run ${guard.runId} is no longer held by its attempt ${guard.attempt}.`
              : `Thread ${guard.threadId} was deleted, or the update took too long.`,
          ),
        );
      } else {
        save.resolve();
      }
    }
  }
}

interface Ready {
  save: Save;
  rows: SaveRows;
}

function isOpen({ save }: Ready): boolean {
  if (!save.writer.failure) return true;
  save.reject(save.writer.failure);
  return false;
}

function fail(save: Save, cause: unknown): void {
  save.writer.failure ??= toFailure(save.threadId, cause);
  save.reject(save.writer.failure);
}

function toFailure(threadId: string, cause: unknown): Error {
  if (cause instanceof ServerError) return cause;
  const reason = cause instanceof Error ? cause.message : String(cause);
  if (isUnreachable(cause)) {
    return new ServerError(
      "unavailable",
      `The database could not be reached to save thread ${threadId}.`,
      { cause },
    );
  }
  return new Error(`The state of thread ${threadId} cannot be saved: ${reason}`, { cause });
}

function noop(): void {}
