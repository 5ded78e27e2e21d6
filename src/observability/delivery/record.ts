/** A finished span or a score, encoded once: from then on it is bytes that nothing changes. */
export interface DeliveryRecord {
  /** 32 hex digits. */
  traceId: string;
  /** True for the span without a parent: the trace is complete once it is in. */
  root: boolean;
  /**
   * Of a root whose run's result is not stored yet: the attempt it tells of. It is not given out before `settle`;
   * left by a process that is gone, it is given out if the run did end with that attempt.
   */
  attempt?: number | undefined;
  bytes: Buffer;
}

/** A root that may be told again by a later attempt of its run. */
export interface AttemptRoot {
  traceId: string;
  attempt: number;
}

/** Whether a record is the root of an attempt whose run's result is not stored yet. */
export function isAttemptRoot<R extends Omit<DeliveryRecord, "bytes">>(
  record: R,
): record is R & AttemptRoot {
  return record.root && record.attempt !== undefined;
}

/**
 * Asks the runs themselves: gives the trace ids of the roots that a later attempt tells, or has told. Rejects where
 * there is nobody to ask now.
 */
export type AskSuperseded = (roots: readonly AttemptRoot[]) => Promise<ReadonlySet<string>>;

/** A record that has been taken in. */
export interface StoredRecord extends DeliveryRecord {
  /** When it was taken in, in milliseconds since 1970. */
  time: number;
}

/**
 * Spans taken in, delivered, waiting and given up since the start. `made` is the sum of the others. Where processes
 * share what waits, `pending` and `made` count what waits for all of them.
 */
export interface SpanCounts {
  made: number;
  sent: number;
  pending: number;
  dropped: number;
}

/**
 * Where finished records go. `put` takes one over at once and never throws, blocks or waits for the network; from
 * then on the sink answers for it, with a number for every record it could not deliver.
 */
export interface RecordSink {
  put(record: DeliveryRecord): void;
  counts(): SpanCounts;
  /** Tells that the run's result is stored, or that it is not known to be: its root is sent, or the runs are asked. */
  settle(root: AttemptRoot, stored: boolean): void;
  /** Resolves when what was put so far is as safe as the store makes it, or when the store's patience ends. */
  recorded(): Promise<void>;
  /** True if nothing is left after at most `timeoutMs`. */
  flush(timeoutMs: number): Promise<boolean>;
  /** Flushes for at most `timeoutMs`, then lets go of everything; what a disk holds stays for the next start. */
  close(timeoutMs: number): Promise<void>;
}

/** How much one batch may hold. */
export interface BatchLimit {
  maxRecords: number;
  maxBytes: number;
}

/**
 * What a sender takes its batches from: memory, files, or a table. A batch's records are hidden until it is settled,
 * and a root is not given out before every other record of its trace that came before it is settled or in the same
 * batch.
 */
export interface RecordStore {
  /** How much of the store outlives the process. */
  readonly kind: "memory" | "disk" | "database";
  /** The longest a run waits for `recorded`. */
  readonly patienceMs: number;
  add(record: DeliveryRecord): void;
  /** Gives out the root of a trace that waits for its run's result, or forgets it. */
  settle(root: AttemptRoot, send: boolean): void;
  /** The next records in order of arrival; `undefined` if there is nothing to take now. One call at a time. */
  take(limit: BatchLimit): Promise<RecordBatch | undefined>;
  /** Resolves when what was added so far is as safe as this store makes it. Never rejects. */
  recorded(): Promise<void>;
  /** Keeps a record the server will not take, with what it said; false where there is no place for it. */
  bury(record: StoredRecord, answer: string): Promise<boolean>;
  readonly pending: StoreLevel;
  /** Records that can be taken now. */
  readonly waiting: number;
  readonly counts: StoreCounts;
  /** Writes what is not written and lets go. */
  close(): Promise<void>;
}

/** What is neither delivered nor given up, in flight included. */
export interface StoreLevel {
  records: number;
  bytes: number;
  /** When the oldest of them was taken in, in milliseconds since 1970. */
  oldest: number | undefined;
}

/** Since the start. */
export interface StoreCounts {
  /** Given up for want of room, for their age or for their size. */
  dropped: number;
  /** Left by another process and taken over. */
  adopted: number;
  /** Records here that were not added here, without those another process took. Left out: those adopted. */
  foreign?: number;
  /** Roots that a later attempt of their run tells. */
  superseded: number;
  /** Unreadable ends of files of a process that was killed. */
  torn: number;
  /** Left for another process when the store was closed. */
  left: number;
}

export interface RecordBatch {
  records: readonly StoredRecord[];
  /** Ends the batch: records in `left` will be taken again before anything newer, the others are gone for good. */
  settle(left: readonly StoredRecord[]): void;
}
