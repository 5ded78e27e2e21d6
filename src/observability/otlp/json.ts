import type { OtlpOrigin, OtlpSpan, OtlpValue } from "../otlp-protobuf.ts";

/*
 * The JSON form of OTLP: ids in hex, 64-bit numbers as strings, names in camel case.
 * https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
 */

/** The JSON of one span, an entry of `ScopeSpans.spans`. */
export function encodeJsonSpan(span: OtlpSpan): Buffer {
  return Buffer.from(
    JSON.stringify({
      traceId: span.traceId,
      spanId: span.spanId,
      ...(span.parentSpanId === undefined ? {} : { parentSpanId: span.parentSpanId }),
      name: span.name,
      kind: span.kind,
      startTimeUnixNano: nanoseconds(span.start),
      endTimeUnixNano: nanoseconds(span.end),
      attributes: toAttributes(span.attributes),
      events: (span.events ?? []).map((event) => ({
        timeUnixNano: nanoseconds(event.time),
        name: event.name,
        attributes: toAttributes(event.attributes),
      })),
      links: (span.links ?? []).map(({ traceId, spanId }) => ({ traceId, spanId })),
      status: {
        ...(span.statusCode === 0 ? {} : { code: span.statusCode }),
        ...(span.statusMessage === undefined ? {} : { message: span.statusMessage }),
      },
    }),
  );
}

/** An encoder of whole requests around spans that are JSON already. */
export function createJsonRequestEncoder(
  origin: OtlpOrigin,
): (spans: readonly Uint8Array[]) => Buffer {
  const resource = JSON.stringify({ attributes: toAttributes(origin.resource) });
  const head = Buffer.from(
    `{"resourceSpans":[{"resource":${resource},"scopeSpans":[{"scope":${JSON.stringify(origin.scope)},"spans":[`,
  );
  const comma = Buffer.from(",");
  const tail = Buffer.from("]}]}]}");
  return (spans) =>
    Buffer.concat([
      head,
      ...spans.flatMap((span, index) => (index === 0 ? [span] : [comma, span])),
      tail,
    ]);
}

function nanoseconds([seconds, rest]: readonly [number, number]): string {
  return String(BigInt(seconds) * 1_000_000_000n + BigInt(Math.round(rest)));
}

function toAttributes(attributes: Readonly<Record<string, OtlpValue | undefined>>): object[] {
  return Object.entries(attributes).flatMap(([key, value]) =>
    value === undefined ? [] : [{ key, value: toValue(value) }],
  );
}

function toValue(value: OtlpValue): object {
  if (typeof value === "string") return { stringValue: value };
  if (typeof value === "boolean") return { boolValue: value };
  if (typeof value !== "number") return { arrayValue: { values: value.map(toValue) } };
  return Number.isSafeInteger(value) ? { intValue: String(value) } : { doubleValue: value };
}
