import type { Span, SpanContext, SpanKind, Tracer } from "@opentelemetry/api";
import type { IdGenerator, ReadableSpan, SpanProcessor } from "@opentelemetry/sdk-trace-base";
import { randomBytes } from "node:crypto";
import { DEFAULT_LIMITS } from "../delivery/limits.ts";
import type { DeliveryRecord } from "../delivery/record.ts";
import { createSpanEncoder, type OtlpSpan, type OtlpValue } from "../otlp-protobuf.ts";
import type { OtelPackages } from "../trace/otel.ts";
import { encodeToFit, type FitOptions } from "./fit-span.ts";

/** More than any observation of ours carries; the SDK's 128 would drop the last ones, the output included. */
const ATTRIBUTE_COUNT_LIMIT = 4_096;

const ID_POOL_BYTES = 4_096;

/** How to begin a span. Without a parent it is a root with exactly the trace id given. */
export interface SpanStart {
  name: string;
  traceId: string;
  /** Random where left out. */
  spanId?: string;
  /** A parent with `isRemote` is a span of somebody else's: the run is a root below it. */
  parent: SpanContext | undefined;
  startTime: HrTime;
  /** Internal where left out. */
  kind?: SpanKind;
  /** Spans of other traces this one has to do with. */
  links?: readonly SpanContext[];
  /** Of a root whose run's result has to be stored before it is sent. */
  attempt?: number | undefined;
}

/** Seconds and nanoseconds since 1970. */
export type HrTime = [seconds: number, nanoseconds: number];

/** Makes spans, and hands each one to `onSpan` encoded when it ends. */
export interface SpanFactory {
  start(options: SpanStart): Span;
}

/**
 * Spans from a tracer provider of our own: not the global one, no environment variables, no ambient context. The
 * ids of a span are set through the id generator right before the (synchronous) start, which gives a root
 * with a chosen trace id and no phantom parent.
 */
export function createSpanFactory(
  packages: OtelPackages,
  options: {
    scope: { name: string; version: string };
    onSpan: (span: DeliveryRecord) => void;
    /** How a finished span is written; protobuf where left out. */
    encode?: (span: OtlpSpan) => Buffer;
    /** The most a span may have; what is larger is cut. 16 MB where left out. */
    maxBytes?: number | undefined;
    onCut?: (what: string) => void;
  },
): SpanFactory {
  const { otel, sdk } = packages;
  const ids = new ChosenIds();
  const attempts = new WeakMap<object, number>();
  const provider = new sdk.BasicTracerProvider({
    sampler: new sdk.AlwaysOnSampler(),
    idGenerator: ids,
    spanLimits: {
      attributeCountLimit: ATTRIBUTE_COUNT_LIMIT,
      attributeValueLengthLimit: Number.POSITIVE_INFINITY,
    },
    spanProcessors: [
      new EncodingProcessor({
        onSpan: options.onSpan,
        encode: options.encode ?? createSpanEncoder(),
        maxBytes: options.maxBytes ?? DEFAULT_LIMITS.maxRecordBytes,
        onCut: options.onCut ?? (() => {}),
        attemptOf: (span) => attempts.get(span),
      }),
    ],
  });
  const tracer: Tracer = provider.getTracer(options.scope.name, options.scope.version);
  return {
    start({ name, traceId, spanId, parent, startTime, kind, links, attempt }) {
      ids.next = { traceId, spanId };
      try {
        const context =
          parent === undefined
            ? otel.ROOT_CONTEXT
            : otel.trace.setSpanContext(otel.ROOT_CONTEXT, parent);
        const span = tracer.startSpan(
          name,
          {
            startTime,
            ...(kind === undefined ? {} : { kind }),
            ...(links === undefined ? {} : { links: links.map((link) => ({ context: link })) }),
          },
          context,
        );
        if (attempt !== undefined) attempts.set(span, attempt);
        return span;
      } finally {
        ids.next = undefined;
      }
    },
  };
}

class ChosenIds implements IdGenerator {
  next: { traceId: string; spanId: string | undefined } | undefined;
  #pool = Buffer.alloc(0);
  #at = 0;

  readonly generateTraceId = (): string => this.next?.traceId ?? this.#random(16);

  readonly generateSpanId = (): string => this.next?.spanId ?? this.#random(8);

  /** Random bytes are drawn many at a time: one draw costs 40 microseconds, whatever its size. */
  #random(bytes: number): string {
    for (;;) {
      if (this.#at + bytes > this.#pool.length) {
        this.#pool = randomBytes(ID_POOL_BYTES);
        this.#at = 0;
      }
      const id = this.#pool.toString("hex", this.#at, this.#at + bytes);
      this.#at += bytes;
      if (!/^0+$/.test(id)) return id;
    }
  }
}

interface EncodingOptions extends FitOptions {
  onSpan: (span: DeliveryRecord) => void;
  attemptOf: (span: ReadableSpan) => number | undefined;
}

/** Encodes each span as it ends: from then on it is bytes that nothing changes. */
class EncodingProcessor implements SpanProcessor {
  readonly #options: EncodingOptions;

  constructor(options: EncodingOptions) {
    this.#options = options;
  }

  onStart(): void {}

  onEnd(span: ReadableSpan): void {
    const { traceId, spanId } = span.spanContext();
    const parentSpanId = span.parentSpanContext?.spanId;
    const { onSpan, attemptOf } = this.#options;
    const told: OtlpSpan = {
      traceId,
      spanId,
      parentSpanId,
      name: span.name,
      // The API counts kinds from 0, the wire from 1.
      kind: span.kind + 1,
      start: span.startTime,
      end: span.endTime,
      attributes: span.attributes as Record<string, OtlpValue>,
      statusCode: span.status.code,
      ...(span.status.message === undefined ? {} : { statusMessage: span.status.message }),
      events: span.events.map((event) => ({
        name: event.name,
        time: event.time,
        attributes: (event.attributes ?? {}) as Record<string, OtlpValue>,
      })),
      links: span.links.map((link) => link.context),
    };
    const bytes = encodeToFit(told, this.#options);
    const root = parentSpanId === undefined || span.parentSpanContext?.isRemote === true;
    onSpan({ traceId, root, attempt: attemptOf(span), bytes });
  }

  async forceFlush(): Promise<void> {}

  async shutdown(): Promise<void> {}
}
