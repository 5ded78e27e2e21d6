import { expect, test, vi } from "vitest";
import { createSpanEncoder, type OtlpSpan } from "../otlp-protobuf.ts";
import { encodeToFit } from "./fit-span.ts";

const encode = createSpanEncoder();

function span(overrides: Partial<OtlpSpan>): OtlpSpan {
  return {
    traceId: "0".repeat(31) + "1",
    spanId: "0".repeat(15) + "1",
    parentSpanId: undefined,
    name: "run",
    kind: 1,
    start: [1, 0],
    end: [2, 0],
    attributes: {},
    statusCode: 0,
    ...overrides,
  };
}

test("the longest text is cut first, and one that was cut before keeps its mark", () => {
  const onCut = vi.fn();
  const attributes = {
    long: "a".repeat(50_000),
    cut: `${"b".repeat(20_000)}… <cut, 900000 characters in all>`,
    short: "c".repeat(2_000),
    count: 3,
  };
  const bytes = encodeToFit(span({ attributes }), { encode, maxBytes: 10_000, onCut });
  expect(bytes.length).toBeLessThanOrEqual(10_000);
  expect(bytes.length).toBeGreaterThan(6_000);
  const text = bytes.toString();
  expect(text).toContain("a… <cut, 50000 characters in all>");
  expect(text).toContain("b… <cut, 900000 characters in all>");
  expect(text).toContain(attributes.short);
  expect(onCut).toHaveBeenCalledOnce();
});

test("errors and events are cut too", () => {
  const long = "e".repeat(20_000);
  const event = { name: "exception", time: [1, 0] as const, attributes: { stack: long } };
  const given = span({ statusCode: 2, statusMessage: long, events: [event] });
  const bytes = encodeToFit(given, { encode, maxBytes: 5_000, onCut: () => {} });
  expect(bytes.length).toBeLessThanOrEqual(5_000);
});

test("what cannot be cut is given as it is", () => {
  const onCut = vi.fn();
  const attributes = Object.fromEntries(
    Array.from({ length: 100 }, (_entry, index) => [`key-${index}`, "x".repeat(400)]),
  );
  const given = span({ attributes });
  const bytes = encodeToFit(given, { encode, maxBytes: 5_000, onCut });
  expect(bytes.equals(encode(given))).toBe(true);
  expect(onCut).not.toHaveBeenCalled();
});
