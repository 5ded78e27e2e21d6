import { MemoryQueue, type MemoryLimits } from "./memory-queue.ts";
import { Outgoing } from "./outgoing.ts";
import {
  isAttemptRoot,
  type AttemptRoot,
  type BatchLimit,
  type DeliveryRecord,
  type RecordBatch,
  type RecordStore,
  type StoreLevel,
  type StoredRecord,
} from "./record.ts";

export const DEFAULT_MEMORY_LIMITS: MemoryLimits = {
  maxRecords: 200_000,
  maxBytes: 128 * 1_024 * 1_024,
};

/** A store that ends with the process. `onDrop` hears how many records were given up for want of room. */
export function createMemoryStore(
  onDrop: (records: number) => void,
  limits: MemoryLimits = DEFAULT_MEMORY_LIMITS,
): RecordStore {
  return new MemoryStore(onDrop, limits);
}

class MemoryStore implements RecordStore {
  readonly kind = "memory";
  readonly patienceMs = 0;
  readonly counts = { dropped: 0, adopted: 0, superseded: 0, torn: 0, left: 0 };
  readonly #queue: MemoryQueue<StoredRecord>;
  readonly #outgoing: Outgoing<StoredRecord>;
  #records = 0;
  #bytes = 0;

  constructor(onDrop: (records: number) => void, limits: MemoryLimits) {
    this.#queue = new MemoryQueue(limits, (records) => {
      this.counts.dropped += records.length;
      this.#forget(records);
      onDrop(records.length);
    });
    this.#outgoing = new Outgoing(
      (records) => this.#forget(records),
      (records) => {
        this.counts.superseded += records.length;
        this.#forget(records);
      },
    );
  }

  get pending(): StoreLevel {
    const times = [this.#outgoing.oldest, this.#queue.peek()?.time].filter(
      (time) => time !== undefined,
    );
    return {
      records: this.#records,
      bytes: this.#bytes,
      oldest: times.length === 0 ? undefined : Math.min(...times),
    };
  }

  get waiting(): number {
    return this.#queue.length + this.#outgoing.waiting;
  }

  add(record: DeliveryRecord): void {
    this.#records += 1;
    this.#bytes += record.bytes.length;
    if (isAttemptRoot(record)) this.#outgoing.awaitDecision(record);
    this.#queue.add({ ...record, time: Date.now() });
  }

  settle(root: AttemptRoot, send: boolean): void {
    this.#outgoing.decide(root, send);
  }

  take(limit: BatchLimit): Promise<RecordBatch | undefined> {
    return this.#outgoing.take(limit, {
      peek: () => this.#queue.peek(),
      shift: () => this.#queue.shift() as StoredRecord,
    });
  }

  async recorded(): Promise<void> {}

  async bury(): Promise<boolean> {
    return false;
  }

  async close(): Promise<void> {
    const lost = this.#queue.takeAll();
    this.counts.dropped += this.#records;
    this.#records = 0;
    this.#bytes = 0;
    lost.length = 0;
  }

  #forget(records: readonly StoredRecord[]): void {
    this.#records -= records.length;
    for (const { bytes } of records) this.#bytes -= bytes.length;
  }
}
