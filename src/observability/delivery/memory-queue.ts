import type { StoredRecord } from "./record.ts";

export interface MemoryLimits {
  maxRecords: number;
  maxBytes: number;
}

/** How far below the limit room is made, so that it is not made again for every record. */
const AFTER_DROP = 0.9;

/** A bounded queue in memory. Past its bounds the oldest whole traces go, since half a trace helps nobody. */
export class MemoryQueue<R extends StoredRecord> {
  #queue: R[] = [];
  #head = 0;
  #bytes = 0;
  readonly #limits: MemoryLimits;
  readonly #onDrop: (records: readonly R[]) => void;

  constructor(limits: MemoryLimits, onDrop: (records: readonly R[]) => void) {
    this.#limits = limits;
    this.#onDrop = onDrop;
  }

  get length(): number {
    return this.#queue.length - this.#head;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(record: R): void {
    this.#queue.push(record);
    this.#bytes += record.bytes.length;
    if (this.length > this.#limits.maxRecords || this.#bytes > this.#limits.maxBytes)
      this.#makeRoom();
  }

  peek(): R | undefined {
    return this.#queue[this.#head];
  }

  shift(): R | undefined {
    const record = this.#queue[this.#head];
    if (record === undefined) return undefined;
    this.#head += 1;
    this.#bytes -= record.bytes.length;
    if (this.#head >= 1_024 && this.#head * 2 >= this.#queue.length) {
      this.#queue = this.#queue.slice(this.#head);
      this.#head = 0;
    }
    return record;
  }

  /** Everything, and the queue is empty. */
  takeAll(): R[] {
    const records = this.#queue.slice(this.#head);
    this.#queue = [];
    this.#head = 0;
    this.#bytes = 0;
    return records;
  }

  #makeRoom(): void {
    const records = this.takeAll();
    let count = records.length;
    let bytes = 0;
    const perTrace = new Map<string, { records: number; bytes: number }>();
    for (const record of records) {
      const trace = perTrace.get(record.traceId) ?? { records: 0, bytes: 0 };
      bytes += record.bytes.length;
      perTrace.set(record.traceId, {
        records: trace.records + 1,
        bytes: trace.bytes + record.bytes.length,
      });
    }
    const victims = new Set<string>();
    for (const [traceId, trace] of perTrace) {
      const fits =
        count <= this.#limits.maxRecords * AFTER_DROP &&
        bytes <= this.#limits.maxBytes * AFTER_DROP;
      if (fits) break;
      victims.add(traceId);
      count -= trace.records;
      bytes -= trace.bytes;
    }
    this.#queue = records.filter((record) => !victims.has(record.traceId));
    this.#bytes = bytes;
    this.#onDrop(records.filter((record) => victims.has(record.traceId)));
  }
}
