import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import { createLossTeller, DEFAULT_LIMITS, type Limits, type StoreEvent } from "./limits.ts";
import { MemoryQueue } from "./memory-queue.ts";
import type { Outbox, OutboxLevel, OutboxRow } from "./outbox.ts";
import { OutboxWriter, toRow, type Row } from "./outbox-writer.ts";
import { Outgoing } from "./outgoing.ts";
import { Overdue, TOO_OLD, TRACE_HAD_TO_GO } from "./overdue.ts";
import {
  isAttemptRoot,
  type AttemptRoot,
  type BatchLimit,
  type DeliveryRecord,
  type RecordBatch,
  type RecordStore,
  type StoreCounts,
  type StoreLevel,
  type StoredRecord,
} from "./record.ts";
import { within } from "./within.ts";

/*
 * Where records are on their way out:
 *
 *   queue ──written, as ours──▶ window ──▶ outgoing ──settled──▶ removed from the table
 *     │                           ▲ ▲
 *     │                           │ └──claimed── pool: rows that are nobody's
 *     ├──too much in hand: written as nobody's──────▶ pool
 *     └──the database takes nothing──▶ window, in memory alone ──it is back──▶ queue
 *
 * While the target takes them, rows are written and removed and never read. What is more than a process should hold
 * in memory is left in the pool, where any process takes it from.
 */

export interface OutboxStoreEvents {
  onEvent: (event: StoreEvent) => void;
  /** Something can be taken that was not added here. */
  onAdopted: () => void;
}

export interface OutboxStoreOptions extends OutboxStoreEvents {
  queue: string;
  outbox: Outbox;
  limits: Partial<Limits> | undefined;
  inHand: { records: number; bytes: number };
  retryMs: number;
}

const CLAIM = { maxRecords: 1_000, maxBytes: 2 * 1_024 * 1_024 };
/** The result of a run goes to the same database: a run that waits here would wait there. */
const PATIENCE_MS = 2_000;
/** How long a batch waits for what is just being written. */
const WRITE_WAIT_MS = 50;
const CLOSE_MS = 1_500;
/** After a long outage it takes its time: a second is followed by twenty without. */
const PAUSE_PER_TRIM = 20;
const UNWRITTEN = { tried: false, written: false } as const;

export class OutboxStore implements RecordStore {
  readonly kind = "database";
  readonly patienceMs = PATIENCE_MS;
  readonly #options: OutboxStoreOptions;
  readonly #limits: Limits;
  readonly #writer: OutboxWriter;
  readonly #window: MemoryQueue<Row>;
  readonly #outgoing: Outgoing<Row>;
  readonly #overdue: Overdue;
  /** Traces that had to go, of which there may be rows in nobody's hands. */
  readonly #unswept = new Set<string>();
  #trimNotBefore = 0;
  readonly #tellLoss: (records: number, why: string) => void;
  readonly #counts = { dropped: 0, adopted: 0, superseded: 0, torn: 0, left: 0 };
  #taking: Promise<unknown> = Promise.resolve();
  /** In this process's hands. */
  #records = 0;
  #bytes = 0;
  /** Rows that are nobody's, as last seen. */
  #pool = { records: 0, bytes: 0, oldest: undefined as number | undefined };
  /** Rows taken from the pool, less those put there; and those of ours that are still in it. */
  #taken = 0;
  #shared = 0;
  /** Put there while somebody was counting. */
  #sharedMeanwhile = 0;
  /** Rows go to the pool until all of it is taken: what came first goes first. */
  #pooling = false;
  #poolMayHave = true;
  /** The window has rows that are not written. */
  #overflown = false;
  #closed = false;

  constructor(options: OutboxStoreOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#overdue = new Overdue(this.#limits.maxAgeMs);
    this.#tellLoss = createLossTeller(options.onEvent);
    this.#window = new MemoryQueue(this.#limits.memory, (rows) =>
      this.#drop(rows, "the database takes nothing and there is no room in memory"),
    );
    this.#outgoing = new Outgoing(
      (rows) => this.#onGone(rows),
      (rows) => {
        this.#counts.superseded += rows.length;
        this.#onGone(rows);
      },
      {
        hasToGo: (row) => this.#overdue.why(row) !== undefined,
        onDropped: (rows) => this.#dropOverdue(rows),
      },
    );
    this.#writer = new OutboxWriter({
      queue: options.queue,
      outbox: options.outbox,
      retryMs: options.retryMs,
      keeps: () => this.#keeps(),
      onWritten: (rows, kept) => this.#onWritten(rows, kept),
      onAway: (rows, error, first) => {
        if (first) options.onEvent({ kind: "away", error: textOf(error) });
        for (const row of rows) this.#window.add(row);
      },
      hasInMemory: () => this.#overflown,
      takeFromMemory: () => this.#exclusive(async () => this.#takeUnwritten()),
      onBack: () => options.onEvent({ kind: "back" }),
    });
  }

  get counts(): StoreCounts {
    return { ...this.#counts, foreign: this.#taken + this.#pool.records };
  }

  get pending(): StoreLevel {
    const times = [
      this.#outgoing.oldest,
      this.#window.peek()?.time,
      this.#writer.oldest,
      this.#pool.oldest,
    ].filter((time) => time !== undefined);
    const records = this.#records + this.#pool.records;
    return {
      records,
      bytes: this.#bytes + this.#pool.bytes,
      oldest: records === 0 || times.length === 0 ? undefined : Math.min(...times),
    };
  }

  get waiting(): number {
    const pooled = this.#poolMayHave ? this.#pool.records : 0;
    return this.#window.length + this.#outgoing.waiting + this.#writer.unwritten + pooled;
  }

  add(record: DeliveryRecord): void {
    const row: Row = { ...record, id: uuid7(), time: Date.now(), ...UNWRITTEN };
    this.#records += 1;
    this.#bytes += record.bytes.length;
    if (isAttemptRoot(row)) this.#outgoing.awaitDecision(row);
    if (record.bytes.length > this.#limits.maxRecordBytes)
      this.#drop([row], "they are larger than a record may be");
    else if (this.#overdue.has(record.traceId))
      this.#drop([row], "the rest of their trace had to go");
    else if (this.#writer.takes) this.#writer.add(row);
    else {
      this.#overflown = true;
      this.#window.add(row);
    }
  }

  settle(root: AttemptRoot, send: boolean): void {
    this.#outgoing.decide(root, send);
  }

  async take(limit: BatchLimit): Promise<RecordBatch | undefined> {
    await within(WRITE_WAIT_MS, this.recorded());
    return this.#exclusive(async () => {
      if (this.#window.length + this.#outgoing.waiting === 0 && this.#poolMayHave)
        await this.#claim();
      return this.#outgoing.take(limit, {
        peek: () => this.#peek(),
        shift: (row) => this.#window.shift() ?? row,
      });
    });
  }

  recorded(): Promise<void> {
    return this.#writer.written();
  }

  async bury(record: StoredRecord, answer: string): Promise<boolean> {
    const { queue, outbox } = this.#options;
    const letter = { answer, most: this.#limits.maxDeadLetters };
    const row = { ...record, id: "id" in record ? String(record.id) : uuid7(), ...UNWRITTEN };
    try {
      return await outbox.apart(() => outbox.table.bury(queue, toRow(row), letter));
    } catch {
      return false;
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const unwritten = await this.#exclusive(async () => this.#takeUnwritten());
    let lost: readonly Row[] = unwritten;
    await within(
      CLOSE_MS,
      this.#writer.close(unwritten).then((rows) => (lost = rows)),
    );
    // What is in memory alone ends here.
    this.#counts.left = this.pending.records - lost.length;
    this.#counts.dropped += lost.length;
    this.#records -= lost.length;
    await within(CLOSE_MS, this.#options.outbox.forget(this.#options.queue));
  }

  /** The process was silent for too long: what it held is anybody's. What is under way is sent all the same. */
  onLeaseLost(): void {
    for (const row of this.#window.takeAll()) {
      if (row.written) this.#share([row]);
      else this.#window.add(row);
    }
  }

  /** Somebody begins to count what is in nobody's hands. */
  onLook(): void {
    this.#sharedMeanwhile = 0;
  }

  /** Told regularly what is in nobody's hands. */
  onLevel(level: OutboxLevel | undefined): void {
    this.#pool = {
      // Never nothing where there is something.
      records: Math.max(level?.records ?? 0, this.#sharedMeanwhile),
      bytes: level?.bytes ?? 0,
      oldest: level === undefined || level.records === 0 ? undefined : Date.now() - level.oldest_ms,
    };
    if (level === undefined) this.#unswept.clear();
    else if (this.#isBeyond(level) && Date.now() >= this.#trimNotBefore) void this.#trim();
    if (this.#pool.records === 0) {
      this.#shared = 0;
      return;
    }
    this.#poolMayHave = true;
    this.#options.onAdopted();
  }

  #isBeyond(level: OutboxLevel): boolean {
    const { maxBytes, maxAgeMs } = this.#limits;
    return (
      level.bytes + level.held_bytes > maxBytes ||
      Math.max(level.oldest_ms, level.held_oldest_ms) > maxAgeMs ||
      this.#unswept.size > 0
    );
  }

  /** The oldest traces go, here and in the table. Meanwhile none is given out. */
  async #trim(): Promise<void> {
    const began = performance.now();
    this.#trimNotBefore = Number.POSITIVE_INFINITY;
    try {
      await this.#exclusive(() => this.#trimTable());
    } catch {
      // The database is away: the next look tries again.
    } finally {
      this.#trimNotBefore = Date.now() + PAUSE_PER_TRIM * (performance.now() - began);
    }
  }

  async #trimTable(): Promise<void> {
    if (this.#closed) return;
    const { queue, outbox } = this.#options;
    const { maxBytes, maxAgeMs } = this.#limits;
    const overdue = [...this.#unswept];
    const except = this.#outgoing.traceIdsInBatches;
    const bounds = { maxBytes, maxAgeMs, except, overdue };
    const trimmed = await outbox.apart(() => outbox.table.trim(queue, outbox.senderId, bounds));
    for (const { trace_id: traceId, records, old } of trimmed) {
      const why = old ? TOO_OLD : TRACE_HAD_TO_GO;
      this.#overdue.add(traceId, why);
      this.#drop(this.#window.takeTrace(traceId), why);
      if (records === 0) continue;
      this.#taken += records;
      this.#pool.records = Math.max(0, this.#pool.records - records);
      this.#counts.dropped += records;
      this.#tellLoss(records, why);
    }
    this.#outgoing.dropOverdue();
    for (const traceId of overdue) this.#unswept.delete(traceId);
  }

  #keeps(): boolean {
    const { inHand } = this.#options;
    if (this.#records > inHand.records || this.#bytes > inHand.bytes) this.#pooling = true;
    return !this.#pooling;
  }

  #onWritten(rows: readonly Row[], kept: boolean): void {
    const overdue = rows.filter(({ traceId }) => this.#overdue.has(traceId));
    const rest = overdue.length === 0 ? rows : rows.filter((row) => !overdue.includes(row));
    if (kept) for (const row of rest) this.#window.add(row);
    else this.#share(rest);
    this.#dropOverdue(overdue);
  }

  #share(rows: readonly Row[]): void {
    for (const row of rows) {
      this.#records -= 1;
      this.#bytes -= row.bytes.length;
      this.#taken -= 1;
      this.#shared += 1;
      this.#sharedMeanwhile += 1;
      this.#pool.records += 1;
      this.#pool.bytes += row.bytes.length;
      this.#pool.oldest ??= row.time;
      // Whoever takes it looks at the run itself.
      if (isAttemptRoot(row)) this.#outgoing.disown(row);
    }
    this.#poolMayHave = true;
  }

  async #claim(): Promise<void> {
    const { queue, outbox } = this.#options;
    let rows: OutboxRow[];
    try {
      await outbox.ready();
      rows = await outbox.apart(() => outbox.table.claim(queue, outbox.senderId, CLAIM));
    } catch {
      this.#poolMayHave = false;
      return;
    }
    if (rows.length === 0) {
      this.#poolMayHave = false;
      this.#pooling = false;
    }
    for (const { record_id: id, trace_id: traceId, root, bytes, time } of rows) {
      this.#records += 1;
      this.#bytes += bytes.length;
      this.#window.add({ id, traceId, root, bytes, time, tried: true, written: true });
    }
    this.#taken += rows.length;
    this.#pool.records = Math.max(0, this.#pool.records - rows.length);
    if (this.#pool.records === 0) this.#pool = { records: 0, bytes: 0, oldest: undefined };
    const adopted = Math.max(0, rows.length - this.#shared);
    this.#shared = Math.max(0, this.#shared - rows.length);
    this.#counts.adopted += adopted;
    if (adopted > 0) this.#options.onEvent({ kind: "adopted", records: adopted, torn: 0 });
  }

  #peek(): Row | undefined {
    for (;;) {
      const row = this.#window.peek();
      if (row === undefined || this.#overdue.why(row) === undefined) return row;
      this.#dropOverdue(this.#window.takeTrace(row.traceId));
    }
  }

  /** Those in memory alone; the others stay in the window. */
  #takeUnwritten(): Row[] {
    this.#overflown = false;
    const rows = this.#window.takeAll();
    for (const row of rows) if (row.written) this.#window.add(row);
    return rows.filter((row) => !row.written);
  }

  #onGone(rows: readonly Row[]): void {
    for (const row of rows) {
      this.#records -= 1;
      this.#bytes -= row.bytes.length;
      if (row.tried) this.#writer.remove(row.id);
    }
  }

  #dropOverdue(rows: readonly Row[]): void {
    for (const row of rows) {
      this.#unswept.add(row.traceId);
      this.#drop([row], this.#overdue.why(row) ?? TOO_OLD);
    }
  }

  #drop(rows: readonly Row[], why: string): void {
    if (rows.length === 0) return;
    this.#onGone(rows);
    this.#counts.dropped += rows.length;
    this.#tellLoss(rows.length, why);
  }

  /** Claiming and giving out, one at a time. */
  async #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#taking.then(work, work);
    this.#taking = turn.catch(() => {});
    return turn;
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
