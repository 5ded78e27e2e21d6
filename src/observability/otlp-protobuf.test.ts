import { expect, test } from "vitest";
import { decodeTraces } from "../../test/support/langfuse-decode.ts";
import { createSpanEncoder, createRequestEncoder, type OtlpSpan } from "./otlp-protobuf.ts";

const origin = {
  resource: { "service.name": "aegra" },
  scope: { name: "langfuse-sdk", version: "1" },
};

function span(overrides: Partial<OtlpSpan> = {}): OtlpSpan {
  return {
    traceId: "0af7651916cd43dd8448eb211c80319c",
    spanId: "b7ad6b7169203331",
    parentSpanId: undefined,
    name: "näme 😀",
    kind: 1,
    start: [1_700_000_000, 5],
    end: [1_700_000_001, 999_999_999],
    attributes: {
      text: "ü".repeat(20_000),
      empty: "",
      yes: true,
      no: false,
      small: 7,
      negative: -12_345,
      large: Number.MAX_SAFE_INTEGER,
      fraction: 0.25,
      list: ["a", "b", 3],
      gone: undefined,
    },
    statusCode: 2,
    ...overrides,
  };
}

test("what is encoded is decoded the same", () => {
  const encode = createSpanEncoder();
  const spans = [
    span(),
    span({ spanId: "00000000000000aa", parentSpanId: "b7ad6b7169203331", statusCode: 0 }),
  ];
  const bytes = spans.map(encode);
  const decoded = decodeTraces(createRequestEncoder(origin)(bytes), "application/x-protobuf");
  expect(decoded).toHaveLength(2);
  const { gone: _gone, ...attributes } = span().attributes;
  expect(decoded[0]).toEqual({
    traceId: span().traceId,
    spanId: span().spanId,
    parentSpanId: undefined,
    name: "näme 😀",
    startNs: 1_700_000_000_000_000_005n,
    endNs: 1_700_000_001_999_999_999n,
    attributes,
    statusCode: 2,
    scope: origin.scope,
    resource: origin.resource,
  });
  expect(decoded[1]).toMatchObject({ parentSpanId: "b7ad6b7169203331", statusCode: 0 });
});

test("the same span is the same bytes, and later spans leave earlier ones alone", () => {
  const encode = createSpanEncoder();
  const first = encode(span());
  const copy = Buffer.from(first);
  encode(span({ name: "x".repeat(100_000) }));
  expect(first.equals(copy)).toBe(true);
  expect(encode(span()).equals(first)).toBe(true);
});

test("an empty batch and ten thousand spans", () => {
  const encode = createSpanEncoder();
  expect(decodeTraces(createRequestEncoder(origin)([]), "application/x-protobuf")).toEqual([]);
  const bytes = encode(span());
  const many = createRequestEncoder(origin)(Array.from({ length: 10_000 }, () => bytes));
  expect(decodeTraces(many, "application/x-protobuf")).toHaveLength(10_000);
});

test("a span that outgrows its slab is whole, wherever the slab ends", () => {
  const encode = createSpanEncoder();
  const spans = Array.from({ length: 400 }, (_, index) =>
    span({
      spanId: String(index + 1).padStart(16, "0"),
      attributes: { text: "x".repeat(index * 7), list: ["a", "b"], more: "y".repeat(3_000) },
    }),
  );
  const request = createRequestEncoder(origin)(spans.map(encode));
  const decoded = decodeTraces(request, "application/x-protobuf");
  expect(decoded.map(({ attributes }) => attributes)).toEqual(
    spans.map(({ attributes }) => attributes),
  );
});
