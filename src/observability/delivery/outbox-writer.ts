import type { Outbox, OutboxRow } from "./outbox.ts";
import type { StoredRecord } from "./record.ts";

/** A record with its row's id. */
export interface Row extends StoredRecord {
  id: string;
  /** The table may have it, and: it has it. */
  tried: boolean;
  written: boolean;
}

/*
 * The table:   open ──a statement fails──▶ away ──tried again every few seconds──▶ open
 *
 * Records wait in a queue for the next statement, of which there is one at a time; what comes meanwhile makes the
 * one after it. A statement that failed may have been done all the same: writing its rows again changes nothing.
 */

export interface OutboxWriterOptions {
  queue: string;
  outbox: Outbox;
  retryMs: number;
  /** Whether this process should keep what is written now, or leave it to whoever has room. */
  keeps: () => boolean;
  onWritten: (rows: readonly Row[], kept: boolean) => void;
  /** The table takes nothing: these were not written. `first` if it did take something before. */
  onAway: (rows: readonly Row[], error: unknown, first: boolean) => void;
  /** Whether rows wait in memory for the table. */
  hasInMemory: () => boolean;
  /** Gives what had to wait in memory, now that it can be written. */
  takeFromMemory: () => Promise<readonly Row[]>;
  /** The table takes rows again. */
  onBack: () => void;
}

/** One statement's worth. */
const MOST = { rows: 1_000, bytes: 1_024 * 1_024 };
/** How long records wait for more to be written with, unless somebody waits for them. */
const COALESCE_MS = 10;
/** What may wait for a database that is slow, before it counts as one that takes nothing. */
const MAX_UNWRITTEN_BYTES = 32 * 1_024 * 1_024;

/** Writes rows to the table, and removes those that are where they belong. */
export class OutboxWriter {
  readonly #options: OutboxWriterOptions;
  #queue: Row[] = [];
  #queueBytes = 0;
  #writing: Row[] = [];
  #waiters: { left: number; resolve: () => void }[] = [];
  #timer: NodeJS.Timeout | undefined;
  #retry: NodeJS.Timeout | undefined;
  #draining: Promise<void> | undefined;
  #removals: string[] = [];
  #removing: Promise<void> | undefined;
  #away = false;
  #closed = false;

  constructor(options: OutboxWriterOptions) {
    this.#options = options;
  }

  /** Whether rows can be added. Not before those that had to wait in memory, which came earlier. */
  get takes(): boolean {
    return !this.#away && this.#queueBytes <= MAX_UNWRITTEN_BYTES && !this.#options.hasInMemory();
  }

  get unwritten(): number {
    return this.#queue.length + this.#writing.length;
  }

  /** When the oldest that is not written was taken in. */
  get oldest(): number | undefined {
    return (this.#writing[0] ?? this.#queue[0])?.time;
  }

  add(row: Row): void {
    this.#queue.push(row);
    this.#queueBytes += row.bytes.length;
    if (this.#draining === undefined)
      this.#timer ??= this.#apart(() => setTimeout(() => this.#writeNow(), COALESCE_MS));
  }

  /** Resolves when what was added is written, or turned away. Never rejects. */
  async written(): Promise<void> {
    if (this.unwritten === 0) return;
    const written = new Promise<void>((resolve) => {
      this.#waiters.push({ left: this.unwritten, resolve });
    });
    this.#writeNow();
    await written;
  }

  /** Forgets a row of the table, soon. */
  remove(id: string): void {
    this.#removals.push(id);
    this.#removing ??= this.#apart(() => this.#removeAll());
  }

  /** Writes what is left, and `more`; gives those it could not write. */
  async close(more: readonly Row[]): Promise<Row[]> {
    this.#closed = true;
    clearTimeout(this.#retry);
    for (const row of more) this.#queue.push(row);
    // It may be about to bring more.
    await this.#draining;
    this.#away = false;
    await this.written();
    await this.#removing;
    return [...this.#writing, ...this.#queue];
  }

  #writeNow(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#queue.length > 0) this.#draining ??= this.#apart(() => this.#drain());
  }

  async #drain(): Promise<void> {
    while (!this.#away && (await this.#hasMore())) {
      const rows = (this.#writing = this.#next());
      for (const row of rows) row.tried = true;
      const { queue, outbox, keeps } = this.#options;
      const kept = !this.#closed && keeps();
      try {
        await outbox.ready();
        await outbox.table.add(queue, rows.map(toRow), kept ? outbox.senderId : undefined);
        this.#writing = [];
        for (const row of rows) row.written = true;
        this.#options.onWritten(rows, kept);
      } catch (error) {
        this.#writing = [];
        this.#turnAway(rows, error);
      }
      this.#wake(rows.length);
    }
    this.#draining = undefined;
    // What came since the last look.
    if (!this.#away) this.#writeNow();
  }

  /** Whether something is to be written: what is in the queue, else what had to wait in memory. */
  async #hasMore(): Promise<boolean> {
    if (this.#queue.length === 0 && !this.#closed && this.#options.hasInMemory())
      await this.#fetch();
    return this.#queue.length > 0;
  }

  async #fetch(): Promise<void> {
    const rows = await this.#options.takeFromMemory();
    // What is in the queue by now came later.
    this.#queue = [...rows, ...this.#queue];
    for (const row of rows) this.#queueBytes += row.bytes.length;
    for (const waiter of this.#waiters) waiter.left += rows.length;
  }

  #next(): Row[] {
    let bytes = 0;
    let count = 0;
    for (const row of this.#queue) {
      if (count === MOST.rows || (count > 0 && bytes + row.bytes.length > MOST.bytes)) break;
      bytes += row.bytes.length;
      count += 1;
    }
    this.#queueBytes -= bytes;
    return this.#queue.splice(0, count);
  }

  /** Those that wait for `count` more rows at most have what they waited for. */
  #wake(count: number): void {
    const waiters = this.#waiters;
    this.#waiters = [];
    for (const waiter of waiters) {
      waiter.left -= count;
      if (waiter.left > 0 && !this.#away) this.#waiters.push(waiter);
      else waiter.resolve();
    }
  }

  #turnAway(rows: readonly Row[], error: unknown): void {
    const first = !this.#away;
    this.#away = true;
    const unwritten = [...rows, ...this.#queue];
    this.#queue = this.#closed ? unwritten : [];
    this.#queueBytes = 0;
    if (this.#closed) return;
    this.#options.onAway(unwritten, error, first);
    this.#retryLater();
  }

  #retryLater(): void {
    clearTimeout(this.#retry);
    this.#retry = this.#apart(() => setTimeout(() => void this.#tryAgain(), this.#options.retryMs));
    this.#retry.unref();
  }

  async #tryAgain(): Promise<void> {
    const { outbox } = this.#options;
    try {
      await outbox.probe();
    } catch {
      if (!this.#closed) this.#retryLater();
      return;
    }
    if (this.#closed) return;
    this.#options.onBack();
    await this.#fetch();
    this.#away = false;
    // Also where nothing came: what was added in this very moment waits in memory, and all else behind it.
    this.#draining ??= this.#apart(() => this.#drain());
    this.#removing ??= this.#apart(() => this.#removeAll());
  }

  /** What cannot be removed now is removed later; if not, it is sent again, the same bytes. */
  async #removeAll(): Promise<void> {
    // What is settled in the same moment makes one statement.
    await new Promise((resolve) => setImmediate(resolve));
    while (this.#removals.length > 0 && !this.#away) {
      const ids = this.#removals.splice(0, MOST.rows);
      try {
        await this.#options.outbox.table.remove(ids);
      } catch (error) {
        this.#removals.unshift(...ids);
        if (!this.#away) this.#turnAway([], error);
      }
      if (this.#closed) break;
    }
    this.#removing = undefined;
  }

  #apart<T>(work: () => T): T {
    return this.#options.outbox.apart(work);
  }
}

export function toRow({ id, traceId, root, attempt, bytes, time }: Row): OutboxRow {
  return { record_id: id, trace_id: traceId, root, attempt, bytes, time };
}
