import type { EncodedSpan, SpanBatch, SpanCounts, SpanSink, SpanStore } from "./span-sink.ts";
import type { Delivery, Transport } from "./transport.ts";

/**
 * Delivery's states, as the log and `/info` tell them:
 *
 *   idle ──first answer 2xx──▶ up ──network error, 408, 429, 5xx──▶ down ──2xx──▶ up
 *                              └──401, 403──▶ refused ──2xx──▶ up
 *
 * In `down` and `refused` one request at a time probes, later and later; nothing is thrown away but by the store's
 * own bounds.
 */
export type DeliveryState = "idle" | "up" | "down" | "refused";

export interface SenderOptions {
  store: SpanStore;
  transport: Transport;
  /** Puts the protocol's frame around encoded spans. */
  encode: (spans: readonly Uint8Array[]) => Buffer;
  flushAt: number;
  flushIntervalMs: number;
  /** Uncompressed bytes of one request. Default 3 MB: proxies in front of self-hosts often allow 1 MB compressed. */
  maxBatchBytes?: number;
  /** Requests under way at once while up. Default 4. */
  maxInFlight?: number;
  /** First and longest wait between tries. Defaults 500 and 30,000. */
  backoffMs?: { first: number; longest: number };
  /** Heard once for every change of state. */
  onState: (state: DeliveryState, message: string) => void;
  /** A span the server will not take, whatever is around it. */
  onRefusedSpan: (span: EncodedSpan, message: string) => void;
  /** Spans the server says it left out of a request it accepted. */
  onPartial: (rejected: number, message: string) => void;
}

/** Sends what its store holds, in the background. */
export interface Sender extends SpanSink {
  readonly state: DeliveryState;
  readonly lastError: string | undefined;
}

export function createSender(options: SenderOptions): Sender {
  return new BackgroundSender(options);
}

const DEFAULT_BATCH_BYTES = 3 * 1_024 * 1_024;

class BackgroundSender implements Sender {
  readonly #options: SenderOptions;
  readonly #backoff: { first: number; longest: number };
  readonly #idle = new Set<() => void>();
  #timer: NodeJS.Timeout | undefined;
  #timerAt = Number.POSITIVE_INFINITY;
  #notBefore = 0;
  #askedToWaitUntil = 0;
  #failures = 0;
  #inFlight = 0;
  #made = 0;
  #sent = 0;
  #refused = 0;
  #closed = false;
  #flushing = 0;
  state: DeliveryState = "idle";
  lastError: string | undefined;

  constructor(options: SenderOptions) {
    this.#options = options;
    this.#backoff = options.backoffMs ?? { first: 500, longest: 30_000 };
  }

  put(span: EncodedSpan): void {
    this.#made += 1;
    if (this.#closed) {
      this.#refused += 1;
      return;
    }
    this.#options.store.add(span);
    const full = this.#options.store.waiting >= this.#options.flushAt;
    this.#wakeAt(Date.now() + (full ? 0 : this.#options.flushIntervalMs));
  }

  counts(): SpanCounts {
    const { pending, dropped } = this.#options.store;
    return { made: this.#made, sent: this.#sent, pending, dropped: dropped + this.#refused };
  }

  async flush(timeoutMs: number): Promise<boolean> {
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

  async close(timeoutMs: number): Promise<void> {
    if (this.#closed) return;
    await this.flush(timeoutMs);
    this.#closed = true;
    clearTimeout(this.#timer);
    const left = this.#options.store.pending;
    this.#refused += this.#giveUpRest();
    if (left > 0) this.lastError ??= "stopped before everything was sent";
  }

  /** Spans that were still waiting become losses with a number; those in flight may have arrived. */
  #giveUpRest(): number {
    let lost = 0;
    for (;;) {
      const batch = this.#options.store.take({
        maxSpans: 10_000,
        maxBytes: Number.POSITIVE_INFINITY,
      });
      if (batch === undefined) return lost;
      lost += batch.spans.length;
      batch.settle([]);
    }
  }

  #isEmpty(): boolean {
    return this.#options.store.pending === 0;
  }

  #wakeAt(time: number): void {
    const due = Math.max(time, this.#notBefore);
    if (this.#closed || due >= this.#timerAt) return;
    clearTimeout(this.#timer);
    this.#timerAt = due;
    this.#timer = setTimeout(
      () => {
        this.#timerAt = Number.POSITIVE_INFINITY;
        this.#pump();
      },
      Math.max(0, Math.ceil(due - Date.now())),
    );
    // A process with nothing else to do still delivers its spans, but does not live on for a dead server.
    if (this.state === "down" || this.state === "refused") this.#timer.unref();
  }

  #pump(): void {
    // Timers may fire a moment early.
    if (Date.now() < this.#notBefore) {
      this.#wakeAt(this.#notBefore);
      return;
    }
    const healthy = this.state === "up" || this.state === "idle";
    const most = healthy ? (this.#options.maxInFlight ?? 4) : 1;
    while (this.#inFlight < most && !this.#closed) {
      const batch = this.#options.store.take({
        maxSpans: this.#options.flushAt,
        maxBytes: this.#options.maxBatchBytes ?? DEFAULT_BATCH_BYTES,
      });
      if (batch === undefined) break;
      this.#inFlight += 1;
      void this.#deliver(batch);
    }
  }

  async #deliver(batch: SpanBatch): Promise<void> {
    const left = await this.#send(batch.spans);
    batch.settle(left);
    this.#inFlight -= 1;
    if (this.#isEmpty()) {
      for (const settle of this.#idle) settle();
      return;
    }
    const { waiting } = this.#options.store;
    const soon =
      this.#flushing > 0 ||
      waiting >= this.#options.flushAt ||
      this.state !== "up" ||
      left.length > 0;
    if (waiting > 0) this.#wakeAt(Date.now() + (soon ? 0 : this.#options.flushIntervalMs));
  }

  /** The spans that have to be sent again. Splits what the server cannot take, down to the guilty span. */
  async #send(spans: readonly EncodedSpan[]): Promise<readonly EncodedSpan[]> {
    const answer = await this.#options.transport(
      this.#options.encode(spans.map((span) => span.bytes)),
    );
    switch (answer.kind) {
      case "delivered":
        this.#onDelivered(spans.length, answer);
        return [];
      case "retry":
        this.#onRetry(answer);
        return spans;
      case "unacceptable":
        return this.#split(spans, answer.message);
    }
  }

  async #split(spans: readonly EncodedSpan[], message: string): Promise<readonly EncodedSpan[]> {
    const [only] = spans;
    if (only === undefined) return [];
    if (spans.length === 1) {
      this.#refused += 1;
      this.lastError = message;
      this.#options.onRefusedSpan(only, message);
      return [];
    }
    const middle = Math.ceil(spans.length / 2);
    const left = await this.#send(spans.slice(0, middle));
    // Where one half has to wait the other half waits too: it would only fail as well.
    return left.length > 0 ? [...left, ...spans.slice(middle)] : this.#send(spans.slice(middle));
  }

  #onDelivered(spans: number, answer: Extract<Delivery, { kind: "delivered" }>): void {
    const rejected = Math.min(answer.rejected, spans);
    this.#sent += spans - rejected;
    this.#refused += rejected;
    if (rejected > 0) this.#options.onPartial(rejected, answer.message);
    this.#failures = 0;
    this.#notBefore = 0;
    this.#change("up", "");
  }

  #onRetry(answer: Extract<Delivery, { kind: "retry" }>): void {
    this.lastError = answer.message;
    this.#failures += 1;
    const longest = Math.min(
      this.#backoff.longest,
      this.#backoff.first * 2 ** Math.min(this.#failures - 1, 20),
    );
    // Half of the wait is random, so that many servers do not return at the same moment.
    const jittered = longest / 2 + Math.random() * (longest / 2);
    this.#askedToWaitUntil = answer.afterMs === undefined ? 0 : Date.now() + answer.afterMs;
    this.#notBefore = Math.max(Date.now() + jittered, this.#askedToWaitUntil);
    this.#change(answer.refused ? "refused" : "down", answer.message);
  }

  #change(state: DeliveryState, message: string): void {
    if (this.state === state) return;
    this.state = state;
    this.#options.onState(state, message);
  }
}
