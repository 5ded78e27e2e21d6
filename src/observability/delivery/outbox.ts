import { randomUUID } from "node:crypto";
import { AsyncResource } from "node:async_hooks";
import type { Limits } from "./limits.ts";
import { OutboxStore, type OutboxStoreEvents } from "./outbox-store.ts";
import type { RecordStore } from "./record.ts";

/** A record as the table has it. */
export interface OutboxRow {
  record_id: string;
  trace_id: string;
  root: boolean;
  attempt: number | undefined;
  bytes: Buffer;
  /** Milliseconds since 1970. */
  time: number;
}

/** What waits in a queue: in nobody's hands, and in somebody's. */
export interface OutboxLevel {
  queue: string;
  records: number;
  bytes: number;
  oldest_ms: number;
  held_bytes: number;
  held_oldest_ms: number;
}

/** What a queue may hold. */
export interface OutboxBounds {
  maxBytes: number;
  maxAgeMs: number;
  /** Traces that stay, whatever else is true of them. */
  except: readonly string[];
  /** Traces that go in any case. */
  overdue: readonly string[];
}

/** A trace that had to go. */
export interface TrimmedTrace {
  trace_id: string;
  old: boolean;
  /** Its rows that were in nobody's hands. */
  records: number;
}

/** The table, as far as sending needs it: the storage's repository. Every call rejects while the database is away. */
export interface OutboxTable {
  add(queue: string, rows: readonly OutboxRow[], senderId: string | undefined): Promise<void>;
  claim(
    queue: string,
    senderId: string,
    limit: { maxRecords: number; maxBytes: number },
  ): Promise<OutboxRow[]>;
  remove(recordIds: readonly string[]): Promise<void>;
  renew(senderId: string, leaseMs: number): Promise<boolean>;
  leave(senderId: string): Promise<void>;
  recover(senderId: string, everything: boolean): Promise<void>;
  dropSuperseded(): Promise<void>;
  levels(): Promise<OutboxLevel[]>;
  trim(queue: string, senderId: string, bounds: OutboxBounds): Promise<TrimmedTrace[]>;
  bury(queue: string, row: OutboxRow, letter: { answer: string; most: number }): Promise<boolean>;
}

export interface OutboxOptions {
  table: OutboxTable;
  /** No other process can be using the database: what others left is taken at once. */
  alone: boolean;
  limits?: Partial<Limits> | undefined;
  /** How long a process that says nothing keeps its rows. Default 10,000. */
  leaseMs?: number;
  /** What this process holds of each queue before it leaves the rest to whoever has room. */
  inHand?: { records: number; bytes: number };
  /** How often a database that takes nothing is tried again. Default 2,000. */
  retryMs?: number;
}

const LEASE_MS = 10_000;
const RETRY_MS = 2_000;
/** Roots that another attempt tells lie where they are until then, and do no harm. */
const LOOKS_PER_CHECK = 6;
/** A look that takes a second is followed by twenty seconds without. */
const PAUSE_PER_LOOK = 20;
const IN_HAND = { records: 20_000, bytes: 16 * 1_024 * 1_024 };
/** How much of a lease passes between two renewals, each with a look at what others left. */
const RENEW_SHARE = 1 / 3;

/**
 * This process among those that send from the table:
 *
 *   opening ──▶ holding a lease ──renewed──▶ holding ──the database was away too long──▶ its rows are anybody's
 *
 * Opens with its first store, and ends with its last.
 */
export class Outbox {
  readonly senderId = randomUUID();
  readonly table: OutboxTable;
  readonly #options: OutboxOptions;
  readonly #stores = new Map<string, OutboxStore>();
  /** Timers and statements of the outbox belong to no run, and to none of its transactions. */
  readonly #context = new AsyncResource("aegra.Outbox");
  #timer: NodeJS.Timeout | undefined;
  #tending: Promise<void> | undefined;
  #begun = false;
  #looks = 0;
  #lookNotBefore = 0;

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.table = options.table;
  }

  /** The store of one target's stream. Closed by whoever opened it. */
  openStore(queue: string, events: OutboxStoreEvents): RecordStore {
    const store = new OutboxStore({
      queue,
      outbox: this,
      limits: this.#options.limits,
      inHand: this.#options.inHand ?? IN_HAND,
      retryMs: this.#options.retryMs ?? RETRY_MS,
      ...events,
    });
    this.#stores.set(queue, store);
    this.#tendIn(0);
    return store;
  }

  /** Runs `work` outside of whatever is going on. */
  apart<T>(work: () => T): T {
    return this.#context.runInAsyncScope(work);
  }

  /** Resolves when this process has its first lease. Rejects if the database does not give it one. */
  async ready(): Promise<void> {
    if (!this.#begun) await this.probe();
  }

  /** Resolves if the database answers. */
  async probe(): Promise<void> {
    this.#lookNotBefore = 0;
    await this.apart(() => this.#tend());
  }

  async forget(queue: string): Promise<void> {
    this.#stores.delete(queue);
    if (this.#stores.size > 0) return;
    clearTimeout(this.#timer);
    await this.#tending?.catch(() => {});
    await this.table.leave(this.senderId).catch(() => {});
  }

  #tendIn(ms: number): void {
    clearTimeout(this.#timer);
    this.#timer = this.apart(() =>
      setTimeout(() => {
        const again = (): void => {
          if (this.#stores.size > 0) this.#tendIn(this.#leaseMs * RENEW_SHARE);
        };
        // The database is away: the stores have noticed, or will.
        this.#tend().then(again, again);
      }, ms),
    );
    this.#timer.unref();
  }

  get #leaseMs(): number {
    return this.#options.leaseMs ?? LEASE_MS;
  }

  #tend(): Promise<void> {
    this.#tending ??= this.#renewAndLook().finally(() => (this.#tending = undefined));
    return this.#tending;
  }

  async #renewAndLook(): Promise<void> {
    const held = await this.table.renew(this.senderId, this.#leaseMs);
    if (this.#begun && !held) for (const store of this.#stores.values()) store.onLeaseLost();
    await this.table.recover(this.senderId, this.#options.alone && !this.#begun);
    this.#begun = true;
    if (Date.now() >= this.#lookNotBefore) await this.#look();
  }

  /** What waits in nobody's hands. After a long outage that is much, and looking at it takes its time. */
  async #look(): Promise<void> {
    const began = performance.now();
    if (this.#looks % LOOKS_PER_CHECK === 0) await this.table.dropSuperseded();
    this.#looks += 1;
    for (const store of this.#stores.values()) store.onLook();
    const levels = await this.table.levels();
    for (const [queue, store] of this.#stores)
      store.onLevel(levels.find((level) => level.queue === queue));
    this.#lookNotBefore = Date.now() + PAUSE_PER_LOOK * (performance.now() - began);
  }
}
