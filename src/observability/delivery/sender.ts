import type {
  AskSuperseded,
  AttemptRoot,
  DeliveryRecord,
  RecordBatch,
  RecordSink,
  RecordStore,
  SpanCounts,
  StoredRecord,
} from "./record.ts";
import type { Delivery, Transport } from "./transport.ts";
import { within } from "./within.ts";

/**
 * Delivery's states, as the log and `/info` tell them:
 *
 *   idle ──first answer 2xx──▶ up ──network error, 408, 429, 5xx──▶ down ──2xx──▶ recovering ──▶ up
 *                              └──401, 403──▶ refused ──2xx──▶ recovering ──what waited is sent──▶ up
 *
 * In `down` and `refused` one request at a time probes, later and later; nothing is thrown away but by the store's
 * own bounds.
 */
export type DeliveryState = "idle" | "up" | "down" | "refused" | "recovering";

export interface SenderOptions {
  store: RecordStore;
  transport: Transport;
  /** Puts the protocol's frame around encoded records. */
  encode: (records: readonly Uint8Array[]) => Buffer;
  /** Records that make a batch worth sending at once, and the most of one request. */
  flushAt: number;
  /** The longest a record waits for company. */
  flushIntervalMs: number;
  /** Uncompressed bytes of one request. Default 3 MB: proxies in front of self-hosts often allow 1 MB compressed. */
  maxBatchBytes?: number;
  /** Requests under way at once while up. Default 4. */
  maxInFlight?: number;
  /** First and longest wait between tries. Defaults 500 and 30,000. */
  backoffMs?: { first: number; longest: number };
  /** Who knows what became of a run. Without it a root is sent, whatever became of its run's result. */
  superseded?: AskSuperseded | undefined;
  /** Heard once for every change of state. */
  onState: (state: DeliveryState, message: string) => void;
  /** A record the server will not take, whatever is around it; `kept` if it is in a dead-letter file. */
  onRefused: (record: DeliveryRecord, message: string, kept: boolean) => void;
  /** Records the server says it left out of a request it accepted; `kept` if they are in dead-letter files. */
  onPartial: (rejected: number, message: string, kept: boolean) => void;
}

/** How delivery went since the start. */
export interface SenderReport {
  state: DeliveryState;
  lastError: string | undefined;
  /** Milliseconds since 1970. */
  lastErrorAt: number | undefined;
  lastSuccessAt: number | undefined;
  /** Records put into a further request. */
  retried: number;
  deadLettered: number;
}

/** Sends what its store holds, in the background. It closes the store. */
export interface Sender extends RecordSink {
  readonly state: DeliveryState;
  readonly lastError: string | undefined;
  readonly store: RecordStore;
  report(): SenderReport;
  /** Looks at the store again, which has got more than was put here. */
  wake(): void;
}

export function createSender(options: SenderOptions): Sender {
  return new BackgroundSender(options);
}

const DEFAULT_BATCH_BYTES = 3 * 1_024 * 1_024;
/** Longer than a store waits for a disk that hangs. */
const STORE_CLOSE_MS = 4_000;
/** How soon to look again where a store has records that cannot be taken yet. */
const LOOK_AGAIN_MS = 50;
/** How soon to ask again what became of a run. */
const ASK_AGAIN_MS = 2_000;
/** A server that refuses this many single records on end refuses everything: that is an outage, not bad records. */
const REFUSED_ON_END = 10;

class BackgroundSender implements Sender {
  readonly store: RecordStore;
  readonly #options: SenderOptions;
  readonly #backoff: { first: number; longest: number };
  readonly #idle = new Set<() => void>();
  readonly #stop = new AbortController();
  readonly #tried = new WeakSet<StoredRecord>();
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #notBefore = 0;
  #askedToWaitUntil = 0;
  #failures = 0;
  #inFlight = 0;
  #pumping = false;
  #put = 0;
  #sent = 0;
  #refused = 0;
  #refusedOnEnd = 0;
  #retried = 0;
  #deadLettered = 0;
  #lastErrorAt: number | undefined;
  #lastSuccessAt: number | undefined;
  #closing: Promise<void> | undefined;
  #flushing = 0;
  state: DeliveryState = "idle";
  lastError: string | undefined;

  constructor(options: SenderOptions) {
    this.#options = options;
    this.store = options.store;
    this.#backoff = options.backoffMs ?? { first: 500, longest: 30_000 };
  }

  put(record: DeliveryRecord): void {
    this.#put += 1;
    if (this.#closing !== undefined) {
      this.#refused += 1;
      return;
    }
    this.store.add(record);
    const full = this.store.waiting >= this.#options.flushAt;
    this.#wakeAt(Date.now() + (full ? 0 : this.#options.flushIntervalMs));
  }

  counts(): SpanCounts {
    const { counts, pending } = this.store;
    return {
      made: this.#put + (counts.foreign ?? counts.adopted) - counts.superseded,
      sent: this.#sent,
      pending: pending.records,
      dropped: counts.dropped + this.#refused,
    };
  }

  report(): SenderReport {
    return {
      state: this.state,
      lastError: this.lastError,
      lastErrorAt: this.#lastErrorAt,
      lastSuccessAt: this.#lastSuccessAt,
      retried: this.#retried,
      deadLettered: this.#deadLettered,
    };
  }

  wake(): void {
    this.#wakeAt(Date.now());
  }

  settle(root: AttemptRoot, stored: boolean): void {
    const { superseded } = this.#options;
    const decide = (send: boolean): void => {
      this.store.settle(root, send);
      this.#wakeAt(Date.now() + this.#options.flushIntervalMs);
      this.#settleIdle();
    };
    if (stored || superseded === undefined) {
      decide(true);
      return;
    }
    const ask = async (): Promise<void> => {
      try {
        decide(!(await superseded([root])).has(root.traceId));
      } catch {
        // What is not decided by the end is decided by whoever adopts it.
        if (!this.#stop.signal.aborted) setTimeout(() => void ask(), ASK_AGAIN_MS).unref();
      }
    };
    void ask();
  }

  recorded(): Promise<void> {
    return within(this.store.patienceMs, this.store.recorded());
  }

  async flush(timeoutMs: number): Promise<boolean> {
    await within(timeoutMs, this.store.recorded());
    if (this.#isEmpty()) return true;
    this.#flushing += 1;
    // A flush is worth one try at once; only what the server itself asked for is waited out.
    this.#notBefore = Math.min(this.#notBefore, this.#askedToWaitUntil);
    this.#wakeAt(Date.now());
    await new Promise<void>((resolve) => {
      const giveUp = setTimeout(settle, timeoutMs);
      const idle = this.#idle;
      function settle(): void {
        clearTimeout(giveUp);
        idle.delete(settle);
        resolve();
      }
      idle.add(settle);
    });
    this.#flushing -= 1;
    return this.#isEmpty();
  }

  close(timeoutMs: number): Promise<void> {
    this.#closing ??= this.#close(timeoutMs);
    return this.#closing;
  }

  async #close(timeoutMs: number): Promise<void> {
    await this.flush(timeoutMs);
    clearTimeout(this.#timer);
    this.#timerAt = Number.NEGATIVE_INFINITY;
    this.#stop.abort();
    if (this.store.pending.records > 0) this.lastError ??= "stopped before everything was sent";
    await within(STORE_CLOSE_MS, this.store.close());
  }

  #isEmpty(): boolean {
    return this.store.pending.records === 0;
  }

  #wakeAt(time: number): void {
    const due = Math.max(time, this.#notBefore);
    if (this.#stop.signal.aborted || due >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = due;
    this.#timer = setTimeout(
      () => {
        this.#timerAt = Number.POSITIVE_INFINITY;
        void this.#pump();
      },
      Math.max(0, Math.ceil(due - Date.now())),
    );
    // A process with nothing else to do still delivers its records, but does not live on for a dead server.
    if (this.state === "down" || this.state === "refused") this.#timer.unref();
  }

  async #pump(): Promise<void> {
    if (this.#pumping) return;
    // Timers may fire a moment early.
    if (Date.now() < this.#notBefore) {
      this.#wakeAt(this.#notBefore);
      return;
    }
    this.#pumping = true;
    try {
      while (this.#inFlight < this.#mostInFlight() && !this.#stop.signal.aborted) {
        const batch = await this.store.take({
          maxRecords: this.#options.flushAt,
          maxBytes: this.#options.maxBatchBytes ?? DEFAULT_BATCH_BYTES,
        });
        if (batch === undefined) break;
        this.#inFlight += 1;
        void this.#deliver(batch);
      }
    } finally {
      this.#pumping = false;
    }
    this.#settleIdle();
    if (this.#inFlight === 0 && this.store.waiting > 0) this.#wakeAt(Date.now() + LOOK_AGAIN_MS);
  }

  #mostInFlight(): number {
    if (Date.now() < this.#notBefore) return 0;
    const ill = this.state === "down" || this.state === "refused";
    return ill ? 1 : (this.#options.maxInFlight ?? 4);
  }

  async #deliver(batch: RecordBatch): Promise<void> {
    const left = await this.#send(batch.records);
    batch.settle(left);
    this.#inFlight -= 1;
    // What is less than a request is what just came.
    const little = this.store.waiting < this.#options.flushAt && this.#inFlight === 0;
    if (this.state === "recovering" && little) this.#change("up", "");
    if (this.#settleIdle()) return;
    const { waiting } = this.store;
    const soon =
      this.#flushing > 0 ||
      waiting >= this.#options.flushAt ||
      this.state !== "up" ||
      left.length > 0;
    if (waiting > 0) this.#wakeAt(Date.now() + (soon ? 0 : this.#options.flushIntervalMs));
  }

  #settleIdle(): boolean {
    if (!this.#isEmpty()) return false;
    for (const settle of this.#idle) settle();
    return true;
  }

  /** The records that have to be sent again. Splits what the server cannot take, down to the guilty record. */
  async #send(records: readonly StoredRecord[]): Promise<readonly StoredRecord[]> {
    if (this.#stop.signal.aborted) return records;
    for (const record of records) {
      if (this.#tried.has(record)) this.#retried += 1;
      else this.#tried.add(record);
    }
    const answer = await this.#options.transport(
      this.#options.encode(records.map((record) => record.bytes)),
      this.#stop.signal,
    );
    switch (answer.kind) {
      case "delivered":
        if (answer.rejected >= records.length && records.length > 0) {
          return this.#buryAll(records, answer.message);
        }
        this.#onDelivered(records.length, answer);
        return [];
      case "retry":
        if (!this.#stop.signal.aborted) this.#onRetry(answer);
        return records;
      case "unacceptable":
        return this.#split(records, answer.message);
    }
  }

  async #split(
    records: readonly StoredRecord[],
    message: string,
  ): Promise<readonly StoredRecord[]> {
    const [only] = records;
    if (only === undefined) return [];
    if (records.length === 1) return this.#refuse(only, message);
    const middle = Math.ceil(records.length / 2);
    const left = await this.#send(records.slice(0, middle));
    // Where one half has to wait the other half waits too: it would only fail as well.
    return left.length > 0
      ? [...left, ...records.slice(middle)]
      : this.#send(records.slice(middle));
  }

  async #refuse(record: StoredRecord, message: string): Promise<readonly StoredRecord[]> {
    this.#fail(message);
    this.#refusedOnEnd += 1;
    if (this.#refusedOnEnd > REFUSED_ON_END) {
      this.#refusedOnEnd = 0;
      this.#onRetry({ kind: "retry", afterMs: undefined, refused: false, message });
      return [record];
    }
    const kept = await this.#bury(record, message);
    this.#options.onRefused(record, message, kept);
    return [];
  }

  /** An answer that accepts the request and not one record of it: here there is telling which. */
  async #buryAll(records: readonly StoredRecord[], reason: string): Promise<readonly []> {
    this.#onAnswered();
    const message = `left out of an accepted request${reason === "" ? "" : `: ${reason}`}`;
    this.#fail(message);
    let kept = true;
    for (const record of records) kept = (await this.#bury(record, message)) && kept;
    this.#options.onPartial(records.length, reason, kept);
    return [];
  }

  async #bury(record: StoredRecord, message: string): Promise<boolean> {
    const kept = await this.store.bury(record, message);
    this.#refused += 1;
    if (kept) this.#deadLettered += 1;
    return kept;
  }

  #onDelivered(records: number, answer: Extract<Delivery, { kind: "delivered" }>): void {
    const { rejected } = answer;
    this.#sent += records - rejected;
    this.#refused += rejected;
    if (rejected > 0) this.#options.onPartial(rejected, answer.message, false);
    this.#lastSuccessAt = Date.now();
    this.#onAnswered();
  }

  #onAnswered(): void {
    this.#failures = 0;
    this.#refusedOnEnd = 0;
    this.#notBefore = 0;
    const recovers = this.state !== "idle" && this.state !== "up";
    this.#change(recovers ? "recovering" : "up", "");
  }

  #onRetry(answer: Extract<Delivery, { kind: "retry" }>): void {
    this.#fail(answer.message);
    // Requests that were under way together fail together: that is one failure.
    if (Date.now() >= this.#notBefore) this.#failures += 1;
    const longest = Math.min(
      this.#backoff.longest,
      this.#backoff.first * 2 ** Math.min(Math.max(0, this.#failures - 1), 20),
    );
    // Half of the wait is random, so that many servers do not return at the same moment.
    const jittered = longest / 2 + Math.random() * (longest / 2);
    this.#askedToWaitUntil = answer.afterMs === undefined ? 0 : Date.now() + answer.afterMs;
    this.#notBefore = Math.max(Date.now() + jittered, this.#askedToWaitUntil);
    this.#change(answer.refused ? "refused" : "down", answer.message);
  }

  #fail(message: string): void {
    this.lastError = message;
    this.#lastErrorAt = Date.now();
  }

  #change(state: DeliveryState, message: string): void {
    if (this.state === state) return;
    this.state = state;
    this.#options.onState(state, message);
  }
}
