import { rename } from "node:fs/promises";
import { listDeadLetters, writeDeadLetter } from "./dead-letters.ts";
import { DiskWriter } from "./disk-writer.ts";
import { createLossTeller, DEFAULT_LIMITS, type Limits, type StoreEvent } from "./limits.ts";
import { MemoryQueue } from "./memory-queue.ts";
import { Outgoing } from "./outgoing.ts";
import { Overdue } from "./overdue.ts";
import {
  isAttemptRoot,
  type AskSuperseded,
  type AttemptRoot,
  type BatchLimit,
  type DeliveryRecord,
  type RecordBatch,
  type RecordStore,
  type StoreLevel,
  type StoredRecord,
} from "./record.ts";
import { Segment, type SpooledRecord } from "./segment.ts";
import { FRAME_BYTES } from "./segment-format.ts";
import { SegmentShelf, type Lost } from "./segment-shelf.ts";
import { within } from "./within.ts";

/*
 * Where records are on their way out:
 *
 *   queue ──written, within 2 ms──▶ segment ──read──▶ outgoing ──settled──▶ gone; a segment with no other is removed
 *     └──the disk takes nothing──▶ memory ──the disk is back──▶ queue        └──too old, no room──▶ dropped, counted
 *                                    └──read──▶ outgoing ──the disk is back──▶ outgoing, with a copy in a segment
 */

export interface DiskStoreOptions {
  /** The folder of this store alone; processes may share it. Made, for its owner only, if it is missing. */
  folder: string;
  /** For records the server will not take. */
  deadLetterFolder: string;
  limits?: Partial<Limits> | undefined;
  /** Waits for the disk itself after every write: safe against power loss, and slower. */
  fsync: boolean;
  /** Asked about roots of a process that is gone. Without it they are sent. */
  superseded?: AskSuperseded | undefined;
  /** How often a disk that takes nothing is tried again, and neighbours are looked after. */
  retryMs?: number;
  adoptMs?: number;
  /** How long the disk may take for one thing before it counts as one that takes nothing. Default 5,000. */
  answerMs?: number;
  onEvent: (event: StoreEvent) => void;
  /** Something can be taken that was not added here. */
  onAdopted: () => void;
}

/** A store in files that outlive the process. Opens in the background; `close` ends it. */
export function createDiskStore(options: DiskStoreOptions): RecordStore {
  return new DiskStore(options);
}

const SEGMENT_BYTES = 4 * 1_024 * 1_024;
const RETRY_MS = 3_000;
const ADOPT_MS = 10_000;
/** The longest a run waits for its disk. */
const PATIENCE_MS = 250;
const ANSWER_MS = 5_000;
/** The same for the disk, once the store is being closed. */
const LAST_ANSWER_MS = 1_500;
/** How long a batch waits for what is just being written. */
const WRITE_WAIT_MS = 50;

class DiskStore implements RecordStore {
  readonly kind = "disk";
  readonly patienceMs = PATIENCE_MS;
  readonly counts = { dropped: 0, adopted: 0, superseded: 0, torn: 0, left: 0 };
  readonly #options: DiskStoreOptions;
  readonly #limits: Limits;
  readonly #writer: DiskWriter;
  readonly #shelf: SegmentShelf;
  readonly #overdue: Overdue;
  readonly #memory: MemoryQueue<SpooledRecord>;
  readonly #outgoing: Outgoing<SpooledRecord>;
  #records = 0;
  #bytes = 0;
  /** Those under way that are in memory alone. */
  #unwritten = 0;
  #closed = false;
  #reading: Promise<unknown> = Promise.resolve();
  #deadLetters: number | undefined;
  readonly #tellLoss: (records: number, why: string) => void;
  #adoption: NodeJS.Timeout | undefined;
  #adopting: Promise<void> | undefined;
  /** Files that were taken over and could not be read yet. */
  #unadopted: string[] = [];

  constructor(options: DiskStoreOptions) {
    this.#options = options;
    this.#tellLoss = createLossTeller(options.onEvent);
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#limits = limits;
    this.#overdue = new Overdue(limits.maxAgeMs);
    this.#memory = new MemoryQueue(limits.memory, (records) =>
      this.#drop(toLost(records), "the disk takes nothing and there is no room in memory"),
    );
    this.#outgoing = new Outgoing(
      (records) => this.#onGone(records),
      (records) => {
        this.counts.superseded += records.length;
        this.#onGone(records);
      },
      {
        hasToGo: (record) => this.#overdue.why(record) !== undefined,
        onDropped: (records) => this.#onOverdue(records),
      },
    );
    this.#shelf = new SegmentShelf({
      maxBytes: limits.maxBytes,
      overdue: this.#overdue,
      answerMs: options.answerMs ?? ANSWER_MS,
      onDrop: (lost, why) => this.#drop(lost, why),
      onUnreadable: (segment, lost) => this.#onUnreadable(segment, lost),
    });
    this.#writer = new DiskWriter({
      folder: options.folder,
      segmentBytes: Math.min(SEGMENT_BYTES, limits.maxBytes / 16),
      fsync: options.fsync,
      retryMs: options.retryMs ?? RETRY_MS,
      answerMs: { ever: options.answerMs ?? ANSWER_MS, atEnd: LAST_ANSWER_MS },
      patienceMs: PATIENCE_MS,
      onOpen: () => this.#adoptIn(0),
      onSegment: (segment) => this.#shelf.add(segment),
      isOverfull: () => this.#shelf.overfull,
      onWritten: () => this.#onWritten(),
      onAway: (records, error, first) => {
        if (first) options.onEvent({ kind: "away", error: textOf(error) });
        for (const record of records) this.#memory.add(record);
      },
      hasInMemory: () => this.#memory.length > 0,
      takeFromMemory: () => this.#exclusive(async () => this.#memory.takeAll()),
      // What is just being put into a batch is seen once it is in it.
      hasUnderWay: () => this.#unwritten > 0 && this.#inMemoryAlone().length > 0,
      underWay: () => this.#inMemoryAlone(),
      onKept: (records, segment) => this.#onKept(records, segment),
      saveRemoved: () => this.#exclusive(() => this.#saveRemoved()),
      onBack: () => options.onEvent({ kind: "back" }),
    });
  }

  get pending(): StoreLevel {
    const times = [
      this.#outgoing.oldest,
      this.#shelf.oldest,
      this.#memory.peek()?.time,
      this.#writer.oldest,
    ].filter((time) => time !== undefined);
    return {
      records: this.#records,
      bytes: this.#bytes,
      oldest: this.#records === 0 || times.length === 0 ? undefined : Math.min(...times),
    };
  }

  get waiting(): number {
    return (
      this.#shelf.unread + this.#memory.length + this.#outgoing.waiting + this.#writer.unwritten
    );
  }

  add(record: DeliveryRecord): void {
    const stored: SpooledRecord = { ...record, time: Date.now(), segment: undefined };
    this.#records += 1;
    this.#bytes += record.bytes.length;
    if (isAttemptRoot(record)) this.#outgoing.awaitDecision(record);
    if (record.bytes.length > this.#limits.maxRecordBytes) {
      this.#drop(toLost([stored]), "they are larger than a record may be");
    } else if (this.#overdue.has(record.traceId)) {
      this.#drop(toLost([stored]), "the rest of their trace had to go");
    } else if (this.#writer.takes) {
      this.#writer.add(stored);
    } else {
      this.#memory.add(stored);
    }
  }

  settle(root: AttemptRoot, send: boolean): void {
    this.#outgoing.decide(root, send);
  }

  async take(limit: BatchLimit): Promise<RecordBatch | undefined> {
    await within(WRITE_WAIT_MS, this.recorded());
    return this.#exclusive(() =>
      this.#outgoing.take(limit, {
        peek: async () => (await this.#shelf.peek()) ?? this.#peekMemory(),
        shift: (record) => {
          if (record.segment !== undefined) return record.segment.shift(record);
          this.#unwritten += 1;
          return this.#memory.shift() ?? record;
        },
      }),
    );
  }

  #peekMemory(): SpooledRecord | undefined {
    for (;;) {
      const record = this.#memory.peek();
      const why = record === undefined ? undefined : this.#overdue.why(record);
      if (record === undefined || why === undefined) return record;
      this.#memory.shift();
      this.#drop(toLost([record]), why);
    }
  }

  recorded(): Promise<void> {
    return this.#writer.written();
  }

  async bury(record: StoredRecord, answer: string): Promise<boolean> {
    const folder = this.#options.deadLetterFolder;
    try {
      // Others add to them and take them away, so a full folder is looked at again.
      if (this.#deadLetters === undefined || this.#deadLetters >= this.#limits.maxDeadLetters)
        this.#deadLetters = (await listDeadLetters(folder)).length;
      if (this.#deadLetters >= this.#limits.maxDeadLetters) return false;
      this.#deadLetters += 1;
      await writeDeadLetter(folder, { record, answer, buriedAt: Date.now() });
      return true;
    } catch {
      return false;
    }
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#adoption);
    this.#shelf.hurry(LAST_ANSWER_MS);
    await Promise.all([
      within(LAST_ANSWER_MS, this.#adopting ?? Promise.resolve()),
      this.#writer.close(this.#memory.takeAll()),
    ]);
    await this.#exclusive(async () => {
      // A disk that hangs would keep this waiting too.
      if (!this.#writer.hangs) await within(LAST_ANSWER_MS, this.#shelf.close());
      // What is in memory alone ends here.
      this.counts.left = this.#shelf.left;
      this.counts.dropped += this.#records - this.counts.left;
      this.#records = this.counts.left;
      const released = this.#writer.hangs ? undefined : this.#writer.folder?.release();
      if (released !== undefined) await within(LAST_ANSWER_MS, released);
    });
  }

  async #onWritten(): Promise<void> {
    this.#removeSpent();
    if (this.#shelf.overfull) await this.#exclusive(() => this.#shelf.makeRoom());
  }

  #onGone(records: readonly SpooledRecord[]): void {
    for (const { segment, bytes } of records) {
      this.#records -= 1;
      this.#bytes -= bytes.length;
      if (segment === undefined) this.#unwritten -= 1;
      else segment.settled += 1;
    }
    this.#removeSpent();
  }

  /** Records that were taken once, and had to go before they could be sent. */
  #onOverdue(records: readonly SpooledRecord[]): void {
    this.#onGone(records);
    this.counts.dropped += records.length;
    for (const record of records) this.#tellLoss(1, this.#overdue.why(record) ?? "");
  }

  /** Records that were under way in memory alone are in a file now, unless they are settled. */
  #onKept(records: readonly SpooledRecord[], segment: Segment): void {
    const here = new Set(this.#outgoing.all);
    for (const record of records) {
      if (here.has(record)) {
        record.segment = segment;
        this.#unwritten -= 1;
      } else {
        segment.settled += 1;
      }
    }
  }

  async #saveRemoved(): Promise<readonly SpooledRecord[]> {
    const { segments, saved } = await this.#shelf.leaveRemoved();
    for (const record of this.#outgoing.all) {
      if (record.segment === undefined || !segments.has(record.segment)) continue;
      record.segment = undefined;
      this.#unwritten += 1;
    }
    return saved;
  }

  #inMemoryAlone(): readonly SpooledRecord[] {
    return this.#outgoing.all.filter(({ segment }) => segment === undefined);
  }

  #removeSpent(): void {
    this.#writer.endIdleSegment();
    this.#shelf.removeSpent();
  }

  #onUnreadable(segment: Segment, lost: Lost): void {
    if (segment.sealed) this.#writer.forget(segment);
    // At least one record was there, if not where it was thought to be.
    const records = Math.max(1, lost.records);
    this.counts.adopted += records - lost.records;
    this.#records += records - lost.records;
    this.#giveUp({ records, bytes: lost.bytes });
    const bytes = lost.bytes + lost.records * FRAME_BYTES;
    this.#options.onEvent({ kind: "unreadable", file: segment.path, records, bytes });
  }

  #drop(lost: Lost, why: string): void {
    this.#giveUp(lost);
    this.#tellLoss(lost.records, why);
  }

  #giveUp(lost: Lost): void {
    this.#records -= lost.records;
    this.#bytes -= lost.bytes;
    this.counts.dropped += lost.records;
  }

  #adoptIn(ms: number): void {
    clearTimeout(this.#adoption);
    if (this.#closed) return;
    this.#adoption = setTimeout(() => {
      this.#adopting = this.#adopt()
        .catch(() => {})
        .finally(() => {
          this.#adopting = undefined;
          this.#adoptIn(this.#options.adoptMs ?? ADOPT_MS);
        });
    }, ms);
    this.#adoption.unref();
  }

  async #adopt(): Promise<void> {
    if (this.#writer.hangs) return;
    const paths = [...this.#unadopted, ...((await this.#writer.folder?.adopt()) ?? [])];
    this.#unadopted = [];
    if (paths.length === 0) return;
    let records = 0;
    let torn = 0;
    for (const path of paths) {
      const adopted = await this.#readLeft(path).catch(() => "unread" as const);
      if (adopted === "unread") {
        this.#unadopted.push(path);
        continue;
      }
      if (adopted === undefined) {
        await rename(path, `${path}.unknown`).catch(() => {});
        this.#options.onEvent({ kind: "foreign", file: `${path}.unknown` });
        continue;
      }
      if (adopted.torn) torn += 1;
      const { segment } = adopted;
      for (const root of adopted.superseded) this.#outgoing.forget(root);
      records += segment.records;
      this.#records += segment.records;
      this.#bytes += segment.recordBytes;
      this.#shelf.add(segment);
    }
    this.counts.adopted += records;
    this.counts.torn += torn;
    this.#removeSpent();
    if (records + torn === 0) return;
    this.#options.onEvent({ kind: "adopted", records, torn });
    this.#options.onAdopted();
  }

  /** A file another process left, and which of its roots a later attempt tells. Rejects if the runs cannot be asked. */
  async #readLeft(path: string) {
    const adopted = await Segment.adopt(path);
    const { superseded: ask } = this.#options;
    if (adopted === undefined) return undefined;
    const { roots } = adopted;
    const told = ask === undefined || roots.length === 0 ? undefined : await ask(roots);
    return { ...adopted, superseded: roots.filter(({ traceId }) => told?.has(traceId)) };
  }

  /** Taking and making room both read files; one of them at a time. */
  async #exclusive<T>(work: () => Promise<T>): Promise<T> {
    const turn = this.#reading.then(work, work);
    this.#reading = turn.catch(() => {});
    return turn;
  }
}

function toLost(records: readonly SpooledRecord[]): Lost {
  return {
    records: records.length,
    bytes: records.reduce((total, { bytes }) => total + bytes.length, 0),
  };
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
