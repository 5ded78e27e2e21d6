import type { StoredRecord } from "./record.ts";

export interface MemoryLimits {
  maxRecords: number;
  maxBytes: number;
}

/** A record in the order of arrival, and the next of its own trace. */
interface Entry<R> {
  record: R;
  before: Entry<R> | undefined;
  after: Entry<R> | undefined;
  nextOfTrace: Entry<R> | undefined;
}

/**
 * A bounded queue in memory. Past its bounds the oldest whole traces go, since half a trace helps nobody; giving one up
 * takes as long as it has records, whatever else is here.
 */
export class MemoryQueue<R extends StoredRecord> {
  readonly #limits: MemoryLimits;
  readonly #onDrop: (records: readonly R[]) => void;
  readonly #traces = new Map<string, { first: Entry<R>; last: Entry<R> }>();
  #first: Entry<R> | undefined;
  #last: Entry<R> | undefined;
  #length = 0;
  #bytes = 0;

  /** `onDrop` hears of every trace that is given up. */
  constructor(limits: MemoryLimits, onDrop: (records: readonly R[]) => void) {
    this.#limits = limits;
    this.#onDrop = onDrop;
  }

  get length(): number {
    return this.#length;
  }

  get bytes(): number {
    return this.#bytes;
  }

  add(record: R): void {
    const entry: Entry<R> = {
      record,
      before: this.#last,
      after: undefined,
      nextOfTrace: undefined,
    };
    if (this.#last === undefined) this.#first = entry;
    else this.#last.after = entry;
    this.#last = entry;
    const trace = this.#traces.get(record.traceId);
    if (trace === undefined) this.#traces.set(record.traceId, { first: entry, last: entry });
    else trace.last = trace.last.nextOfTrace = entry;
    this.#length += 1;
    this.#bytes += record.bytes.length;
    while (this.#length > this.#limits.maxRecords || this.#bytes > this.#limits.maxBytes)
      this.#dropOldestTrace();
  }

  peek(): R | undefined {
    return this.#first?.record;
  }

  shift(): R | undefined {
    const entry = this.#first;
    if (entry === undefined) return undefined;
    this.#remove(entry);
    const { traceId } = entry.record;
    // The oldest of all is the oldest of its trace.
    const trace = this.#traces.get(traceId);
    if (entry.nextOfTrace === undefined) this.#traces.delete(traceId);
    else if (trace !== undefined) trace.first = entry.nextOfTrace;
    return entry.record;
  }

  /** Everything, and the queue is empty. */
  takeAll(): R[] {
    const records: R[] = [];
    for (let entry = this.#first; entry !== undefined; entry = entry.after)
      records.push(entry.record);
    this.#traces.clear();
    this.#first = this.#last = undefined;
    this.#length = 0;
    this.#bytes = 0;
    return records;
  }

  /** Everything of a trace, which is not here any more. */
  takeTrace(traceId: string): R[] {
    const records: R[] = [];
    let entry = this.#traces.get(traceId)?.first;
    for (; entry !== undefined; entry = entry.nextOfTrace) {
      this.#remove(entry);
      records.push(entry.record);
    }
    this.#traces.delete(traceId);
    return records;
  }

  #dropOldestTrace(): void {
    this.#onDrop(this.takeTrace(this.#first?.record.traceId ?? ""));
  }

  #remove({ record, before, after }: Entry<R>): void {
    if (before === undefined) this.#first = after;
    else before.after = after;
    if (after === undefined) this.#last = before;
    else after.before = before;
    this.#length -= 1;
    this.#bytes -= record.bytes.length;
  }
}
