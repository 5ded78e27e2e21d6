/** A finished span, encoded once. */
export interface EncodedSpan {
  traceId: string;
  /** True for the span without a parent: the trace is complete once it is in. */
  root: boolean;
  bytes: Buffer;
}

/** Spans taken in, delivered, waiting and given up since the start. `made` is the sum of the others. */
export interface SpanCounts {
  made: number;
  sent: number;
  pending: number;
  dropped: number;
}

/**
 * Where finished spans go. `put` takes the span over at once and never throws, blocks or waits for the network;
 * from then on the sink answers for it, with a number for every span it could not deliver.
 */
export interface SpanSink {
  put(span: EncodedSpan): void;
  counts(): SpanCounts;
  /** True if nothing is left after at most `timeoutMs`. */
  flush(timeoutMs: number): Promise<boolean>;
  /** Flushes for at most `timeoutMs`, then lets go of everything. */
  close(timeoutMs: number): Promise<void>;
}

/**
 * What a sender takes its batches from: memory, or segment files. `take` hides the spans it returns until their
 * batch is settled.
 */
export interface SpanStore {
  add(span: EncodedSpan): void;
  /** Up to `maxSpans` spans and `maxBytes` bytes in order of arrival; never cuts off a trace's last spans needlessly. */
  take(limit: { maxSpans: number; maxBytes: number }): SpanBatch | undefined;
  /** Spans neither delivered nor given up, those in flight included. */
  readonly pending: number;
  /** Spans that can be taken now. */
  readonly waiting: number;
  /** Spans given up because there was no room. */
  readonly dropped: number;
}

export interface SpanBatch {
  spans: readonly EncodedSpan[];
  /** Ends the batch: spans in `left` will be taken again before anything newer, the others are gone for good. */
  settle(left: readonly EncodedSpan[]): void;
}
