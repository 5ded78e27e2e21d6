import type { EncodedSpan, SpanBatch, SpanStore } from "./span-sink.ts";

export interface MemoryLimits {
  maxSpans: number;
  maxBytes: number;
}

const DEFAULT_LIMITS: MemoryLimits = { maxSpans: 200_000, maxBytes: 128 * 1_024 * 1_024 };

/** How far below the limit room is made, so that it is not made again for every span. */
const AFTER_DROP = 0.9;

/** A bounded queue in memory. Past its bounds the oldest whole traces go, since half a trace helps nobody. */
export function createMemoryStore(
  onDrop: (spans: number) => void,
  limits: MemoryLimits = DEFAULT_LIMITS,
): SpanStore {
  return new MemoryStore(onDrop, limits);
}

class MemoryStore implements SpanStore {
  #queue: EncodedSpan[] = [];
  #head = 0;
  #returned: EncodedSpan[][] = [];
  #returnedSpans = 0;
  #bytes = 0;
  #inFlight = 0;
  #dropped = 0;
  readonly #limits: MemoryLimits;
  readonly #onDrop: (spans: number) => void;

  constructor(onDrop: (spans: number) => void, limits: MemoryLimits) {
    this.#onDrop = onDrop;
    this.#limits = limits;
  }

  get pending(): number {
    return this.waiting + this.#inFlight;
  }

  get waiting(): number {
    return this.#queue.length - this.#head + this.#returnedSpans;
  }

  get dropped(): number {
    return this.#dropped;
  }

  add(span: EncodedSpan): void {
    this.#queue.push(span);
    this.#bytes += span.bytes.length;
    if (this.pending > this.#limits.maxSpans || this.#bytes > this.#limits.maxBytes)
      this.#makeRoom();
  }

  take(limit: { maxSpans: number; maxBytes: number }): SpanBatch | undefined {
    const returned = this.#returned.shift();
    if (returned !== undefined) {
      this.#returnedSpans -= returned.length;
      return this.#batch(returned);
    }
    const spans: EncodedSpan[] = [];
    let bytes = 0;
    while (this.#head < this.#queue.length) {
      const next = this.#queue[this.#head] as EncodedSpan;
      if (spans.length > 0 && bytes + next.bytes.length > limit.maxBytes) break;
      // A trace's root comes last and belongs with its children's last batch.
      if (spans.length >= limit.maxSpans && !(next.root && next.traceId === spans.at(-1)?.traceId))
        break;
      spans.push(next);
      bytes += next.bytes.length;
      this.#head += 1;
    }
    this.#compact();
    return spans.length === 0 ? undefined : this.#batch(spans);
  }

  #batch(spans: EncodedSpan[]): SpanBatch {
    this.#inFlight += spans.length;
    let open = true;
    return {
      spans,
      settle: (left) => {
        if (!open) return;
        open = false;
        this.#inFlight -= spans.length;
        this.#bytes -= bytesOf(spans) - bytesOf(left);
        if (left.length === 0) return;
        this.#returned.push([...left]);
        this.#returnedSpans += left.length;
      },
    };
  }

  #makeRoom(): void {
    const before = this.#dropped;
    const spans = [...this.#returned.flat(), ...this.#queue.slice(this.#head)];
    const victims = new Set<string>();
    let count = this.pending;
    let bytes = this.#bytes;
    const perTrace = new Map<string, { spans: number; bytes: number }>();
    for (const span of spans) {
      const trace = perTrace.get(span.traceId) ?? { spans: 0, bytes: 0 };
      perTrace.set(span.traceId, {
        spans: trace.spans + 1,
        bytes: trace.bytes + span.bytes.length,
      });
    }
    for (const [traceId, trace] of perTrace) {
      if (
        count <= this.#limits.maxSpans * AFTER_DROP &&
        bytes <= this.#limits.maxBytes * AFTER_DROP
      )
        break;
      victims.add(traceId);
      count -= trace.spans;
      bytes -= trace.bytes;
    }
    this.#queue = spans.filter((span) => !victims.has(span.traceId));
    this.#head = 0;
    this.#returned = [];
    this.#returnedSpans = 0;
    this.#bytes = bytes;
    this.#dropped += spans.length - this.#queue.length;
    this.#onDrop(this.#dropped - before);
  }

  #compact(): void {
    if (this.#head < 1_024 || this.#head * 2 < this.#queue.length) return;
    this.#queue = this.#queue.slice(this.#head);
    this.#head = 0;
  }
}

function bytesOf(spans: readonly EncodedSpan[]): number {
  return spans.reduce((total, span) => total + span.bytes.length, 0);
}
