import { describe, expect, it } from "vitest";
import { mergeRows, toJsonbText } from "./checkpoint-rows.ts";
import type { SaveRows, WriteRow } from "./checkpoint-rows.ts";

describe("toJsonbText", () => {
  it.each([
    ["leaves ordinary text alone", '{"a":"b\\n\\\\ 😀"}', '{"a":"b\\n\\\\ 😀"}'],
    ["drops NUL escapes", '"a\\u0000b"', '"ab"'],
    ["keeps what only looks like one", '"\\\\u0000 \\\\\\\\u0000"', '"\\\\u0000 \\\\\\\\u0000"'],
    ["drops one behind an escaped backslash", '"\\\\\\u0000"', '"\\\\"'],
    ["replaces lone surrogates", '"\\ud800 \\uDFFF"', '"\\ufffd \\ufffd"'],
    ["keeps pairs", '"\\ud83d\\ude00"', '"\\ud83d\\ude00"'],
  ])("%s", (_, text, expected) => {
    expect(toJsonbText(text)).toBe(expected);
    expect(() => JSON.parse(toJsonbText(text))).not.toThrow();
  });
});

describe("mergeRows", () => {
  const write = (value: string, replaces: boolean): SaveRows => {
    const row: WriteRow = {
      threadId: "thread",
      namespace: "",
      checkpointId: "checkpoint",
      taskId: "task",
      idx: 0,
      channel: "channel",
      type: "json",
      bytes: new TextEncoder().encode(value),
      taskPath: "",
      replaces,
    };
    return { checkpoints: [], blobs: [], writes: [row], byteCount: row.bytes.byteLength };
  };
  const merged = (...saves: SaveRows[]): string[] =>
    mergeRows(saves).writes.map(({ bytes }) => new TextDecoder().decode(bytes));

  it("leaves of one row what the saves would leave one after another", () => {
    expect(merged(write("kept", false), write("late", false))).toEqual(["kept"]);
    expect(merged(write("old", true), write("new", true))).toEqual(["new"]);
    expect(merged(write("old", false), write("new", true))).toEqual(["new"]);
    expect(merged(write("kept", true), write("late", false))).toEqual(["kept"]);
  });

  it("does not take different keys for one", () => {
    const at = (threadId: string, namespace: string): SaveRows => ({
      checkpoints: [],
      blobs: [
        { threadId, namespace, channel: "c", version: "1", type: "json", bytes: new Uint8Array() },
      ],
      writes: [],
      byteCount: 0,
    });
    expect(mergeRows([at("a,1:b", ""), at("a", "1:b"), at("a", "1:b")]).blobs).toHaveLength(2);
  });
});
