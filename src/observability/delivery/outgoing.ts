import type { AttemptRoot, BatchLimit, RecordBatch, StoredRecord } from "./record.ts";

/**
 * What has been taken from a store and is not settled:
 *
 *   offered ──its trace is not under way, or it is no root──▶ in a batch ──settled──▶ gone
 *      └──a root whose trace is under way──▶ held ──▶ ready ──▶ in a batch   └──left──▶ returned ──▶ in a batch
 *      └──a root whose run's result is not stored──▶ held ──stored──▶ ready
 *                                                       └──another attempt tells it──▶ gone
 *
 * What has come back or is ready may have to go meanwhile, for its age or for want of room: it is dropped.
 *
 * Requests overtake each other. A root is held until its trace's earlier records are settled, so that on the server
 * no trace is complete before it is; and until its run's result is stored, so that no trace tells of an end that
 * did not count.
 */
export class Outgoing<R extends StoredRecord> {
  readonly #onGone: (records: readonly R[]) => void;
  readonly #onForgotten: (records: readonly R[]) => void;
  readonly #bounds: OutgoingBounds<R>;
  /** How many records of a trace are under way. */
  readonly #underWay = new Map<string, number>();
  readonly #held = new Map<string, R[]>();
  /** Roots whose run's result is not stored, and those that another attempt tells. */
  readonly #undecided = new Set<string>();
  readonly #forgotten = new Set<string>();
  #ready: R[] = [];
  readonly #returned: R[][] = [];
  readonly #batches = new Set<readonly R[]>();

  /**
   * `onGone` hears of the records a batch is done with, `onForgotten` of roots that are not to be sent. Without
   * `bounds` nothing is dropped.
   */
  constructor(
    onGone: (records: readonly R[]) => void,
    onForgotten: (records: readonly R[]) => void,
    bounds: OutgoingBounds<R> = { hasToGo: () => false, onDropped: () => {} },
  ) {
    this.#bounds = bounds;
    this.#onGone = onGone;
    this.#onForgotten = onForgotten;
  }

  /** Everything that is here. */
  get all(): readonly R[] {
    return [...this.#batches, ...this.#returned, ...this.#held.values(), this.#ready].flat();
  }

  /** Records that could be taken at once. */
  get waiting(): number {
    return this.#ready.length + sum(this.#returned, (records) => records.length);
  }

  /** The traces of which something is in a batch. */
  get traceIdsInBatches(): readonly string[] {
    return [...new Set([...this.#batches].flat().map(({ traceId }) => traceId))];
  }

  /** Drops what has to go, but for what is in a batch. */
  dropOverdue(): void {
    for (const batch of this.#returned.splice(0)) {
      const kept = this.#dropReturned(batch);
      if (kept.length > 0) this.#returned.push(kept);
    }
    for (const [traceId, records] of this.#held) this.#keepHeld(traceId, this.#dropFrom(records));
    this.#ready = this.#dropFrom(this.#ready);
  }

  /** When the oldest of all that is here was taken in. */
  get oldest(): number | undefined {
    let oldest: number | undefined;
    for (const { time } of this.all) oldest = Math.min(oldest ?? time, time);
    return oldest;
  }

  /** Holds the root of an attempt until it is decided on. */
  awaitDecision(root: AttemptRoot): void {
    this.#undecided.add(keyOf(root));
  }

  /** Leaves the decision to whoever takes the root from the store. */
  disown(root: AttemptRoot): void {
    this.#undecided.delete(keyOf(root));
  }

  /** Gives out a root that is awaited, or forgets it, whether it has been offered yet or not. */
  decide(root: AttemptRoot, send: boolean): void {
    if (!this.#undecided.delete(keyOf(root))) return;
    if (!send) this.forget(root);
    else if (!this.#underWay.has(root.traceId)) this.#free(root.traceId);
  }

  /** Never gives out this root, whether it has been offered yet or not. */
  forget(root: AttemptRoot): void {
    const held = this.#held.get(root.traceId) ?? [];
    const found = held.filter(({ attempt }) => attempt === root.attempt);
    if (found.length === 0) {
      this.#forgotten.add(keyOf(root));
      return;
    }
    this.#keepHeld(
      root.traceId,
      held.filter((record) => !found.includes(record)),
    );
    this.#onForgotten(found);
  }

  /**
   * A batch of what came back, else of what `peek` gives, one record after the other, until the limit; `shift` ends
   * each that is taken. `undefined` if there is nothing.
   */
  async take(
    limit: BatchLimit,
    source: { peek: () => Promise<R | undefined> | R | undefined; shift: (record: R) => R },
  ): Promise<RecordBatch | undefined> {
    for (;;) {
      const returned = this.#returned.shift();
      if (returned === undefined) break;
      const kept = this.#dropReturned(returned);
      if (kept.length > 0) return this.#batch(kept);
    }
    const records: R[] = [];
    let bytes = 0;
    const fits = (record: R): boolean =>
      records.length === 0 ||
      (records.length < limit.maxRecords && bytes + record.bytes.length <= limit.maxBytes);
    const take = (record: R): void => {
      records.push(record);
      bytes += record.bytes.length;
    };
    this.#ready = this.#dropFrom(this.#ready);
    while (this.#ready[0] !== undefined && fits(this.#ready[0])) take(this.#ready.shift() as R);
    for (;;) {
      const next = await source.peek();
      if (next === undefined || !fits(next)) break;
      const record = source.shift(next);
      if (!record.root) take(record);
      else if (this.#forgotten.delete(keyOf(record))) this.#onForgotten([record]);
      else if (this.#underWay.has(record.traceId) || this.#undecided.has(keyOf(record)))
        this.#hold(record);
      else take(record);
    }
    if (records.length === 0) return undefined;
    for (const { traceId } of records)
      this.#underWay.set(traceId, (this.#underWay.get(traceId) ?? 0) + 1);
    return this.#batch(records);
  }

  /** Of a batch that came back; gives the rest. */
  #dropReturned(records: R[]): R[] {
    const kept = this.#dropFrom(records);
    if (kept.length === records.length) return records;
    const here = new Set(kept);
    for (const record of records) if (!here.has(record)) this.#release(record.traceId);
    return kept;
  }

  /** Drops what has to go; gives the rest. */
  #dropFrom(records: R[]): R[] {
    const { hasToGo, onDropped } = this.#bounds;
    // A record may be what its whole trace goes for, wherever it is.
    for (const record of records) hasToGo(record);
    const dropped = records.filter(hasToGo);
    if (dropped.length === 0) return records;
    onDropped(dropped);
    const gone = new Set(dropped);
    return records.filter((record) => !gone.has(record));
  }

  #hold(record: R): void {
    const held = this.#held.get(record.traceId) ?? [];
    // Its bytes may be a view of a large buffer.
    held.push({ ...record, bytes: Buffer.from(record.bytes) });
    this.#held.set(record.traceId, held);
  }

  #batch(records: R[]): RecordBatch {
    this.#batches.add(records);
    return {
      records,
      settle: (left) => {
        if (!this.#batches.delete(records)) return;
        const again = new Set<StoredRecord>(left);
        const gone = again.size === 0 ? records : records.filter((record) => !again.has(record));
        if (again.size > 0) this.#returned.push(records.filter((record) => again.has(record)));
        for (const { traceId } of gone) this.#release(traceId);
        this.#onGone(gone);
      },
    };
  }

  #release(traceId: string): void {
    const count = (this.#underWay.get(traceId) ?? 0) - 1;
    if (count > 0) {
      this.#underWay.set(traceId, count);
      return;
    }
    this.#underWay.delete(traceId);
    this.#free(traceId);
  }

  #free(traceId: string): void {
    const held = this.#held.get(traceId);
    if (held === undefined) return;
    const waits = (record: R): boolean => this.#undecided.has(keyOf(record));
    this.#keepHeld(traceId, held.filter(waits));
    this.#ready.push(...held.filter((record) => !waits(record)));
  }

  #keepHeld(traceId: string, records: R[]): void {
    if (records.length === 0) this.#held.delete(traceId);
    else this.#held.set(traceId, records);
  }
}

/** What must not be kept any longer. */
export interface OutgoingBounds<R> {
  hasToGo: (record: R) => boolean;
  onDropped: (records: readonly R[]) => void;
}

/** Of a root without an attempt: what no decision is about. */
function keyOf({ traceId, attempt }: Pick<StoredRecord, "traceId" | "attempt">): string {
  return `${traceId}/${attempt}`;
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}
