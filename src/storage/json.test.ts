import { AIMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { expect, test } from "vitest";
import { toJson } from "./json.ts";

const roundTrip = (value: unknown): unknown => JSON.parse(toJson(value));

test("writes JSON as JSON.stringify does", () => {
  const values = [
    null,
    0,
    -1.5,
    true,
    "text",
    "",
    [],
    {},
    [1, [2, [3]]],
    { a: { b: [{ c: null }] }, "": 1 },
    [undefined, () => 1, Number.NaN],
    { gone: undefined, also: () => 1, kept: 1 },
    { at: new Date("2026-01-02T03:04:05.678Z") },
    { toJSON: () => ({ own: "form" }) },
    'quotes " and \\ and \n and \u2028 and é and 🌍',
    { __proto__: null, key: "value" },
    JSON.parse('{"__proto__": {"polluted": true}}'),
  ];
  for (const value of values) expect(toJson(value)).toBe(JSON.stringify(value));
});

test("gives null for what JSON cannot say at all", () => {
  expect(toJson(undefined)).toBe("null");
  expect(toJson(() => 1)).toBe("null");
  expect(toJson(new Date(Number.NaN))).toBe("null");
});

test("flattens LangChain messages wherever they are", () => {
  const human = new HumanMessage({ content: "hi", id: "1", name: "ann" });
  const ai = new AIMessage({
    content: [{ type: "text", text: "hello" }],
    id: "2",
    tool_calls: [{ name: "search", args: { q: "x" }, id: "call-1" }],
  });
  const tool = new ToolMessage({ content: "found", tool_call_id: "call-1", id: "3" });
  const value = roundTrip({ messages: [human, ai], nested: { tool }, list: [[human]] });
  expect(value).toMatchObject({
    messages: [
      { type: "human", content: "hi", id: "1", name: "ann", additional_kwargs: {} },
      {
        type: "ai",
        content: [{ type: "text", text: "hello" }],
        id: "2",
        tool_calls: [{ name: "search", args: { q: "x" }, id: "call-1" }],
      },
    ],
    nested: { tool: { type: "tool", content: "found", tool_call_id: "call-1", id: "3" } },
    list: [[{ type: "human", content: "hi" }]],
  });
  expect(JSON.stringify(value)).not.toContain('"lc"');
});

test("a message made of content blocks has its content too", () => {
  const blocks = [{ type: "text" as const, text: "hello" }];
  expect(roundTrip(new AIMessage({ contentBlocks: blocks, id: "1" }))).toMatchObject({
    type: "ai",
    id: "1",
    content: blocks,
  });
});

test("writes BigInt, Map, Set, Error and bytes so that they can be read", () => {
  const cause = new TypeError("no such thing");
  expect(
    roundTrip({
      big: 12_345_678_901_234_567_890n,
      map: new Map<string, unknown>([["a", new Set([1, 2n])]]),
      pairs: new Map([[1, "one"]]),
      error: cause,
      buffer: Buffer.from("hello"),
      bytes: new Uint8Array([104, 105]),
      raw: new Uint8Array([104, 105]).buffer,
    }),
  ).toEqual({
    big: "12345678901234567890",
    map: { a: [1, "2"] },
    pairs: [[1, "one"]],
    error: { error: "TypeError", message: "no such thing" },
    buffer: "aGVsbG8=",
    bytes: "aGk=",
    raw: "aGk=",
  });
});

test("writes a cycle as text, and a repeated value twice", () => {
  const shared = { n: 1 };
  const cyclic: Record<string, unknown> = { first: shared, second: shared };
  cyclic["self"] = cyclic;
  cyclic["list"] = [cyclic];
  expect(roundTrip(cyclic)).toEqual({
    first: { n: 1 },
    second: { n: 1 },
    self: "[Circular]",
    list: ["[Circular]"],
  });
});

test("replaces what jsonb refuses, and nothing else", () => {
  expect(roundTrip("a\u0000b")).toBe("a\ufffdb");
  expect(roundTrip({ "key\u0000": ["\ud83d", "\udf0d", "\ud83d\ud83d"] })).toEqual({
    "key\ufffd": ["\ufffd", "\ufffd", "\ufffd\ufffd"],
  });
  for (const text of [
    String.raw`\u0000`,
    String.raw`\\u0000`,
    String.raw`\ud83d`,
    "🌍",
    "\u0001\u001f",
    "\ud7ff\ue000",
  ]) {
    expect(roundTrip(text)).toBe(text);
  }
  expect(roundTrip("\\\u0000\\\\\u0000")).toBe("\\\ufffd\\\\\ufffd");
});

test("does not change what it is given", () => {
  const given = { big: 1n, list: [new Set([1])], inner: { map: new Map([["a", 1]]) } };
  toJson(given);
  expect(given).toEqual({ big: 1n, list: [new Set([1])], inner: { map: new Map([["a", 1]]) } });
});

test("refuses what is nested too deep to be stored", () => {
  let deep: unknown[] = [];
  for (let level = 0; level < 1000; level += 1) deep = [deep];
  expect(() => toJson(deep)).toThrow("deeper than 1000 levels");
});
