import { describe, expect, it } from "vitest";
import { ABSENT, compare, matches } from "./compare.ts";
import { normalise } from "./normalise.ts";

const event = (name: string, data: unknown) => ({ event: name, data });

describe("compare", () => {
  it("finds values that differ, and fields only one has, where they are", () => {
    const official = { body: { same: 1, list: [1, 2], gone: null } };
    const ours = { body: { same: 1, list: [1, 3, 4], new: {} } };
    expect(compare(official, ours, "case")).toEqual([
      { at: "case/body/list/1", official: 2, ours: 3 },
      { at: "case/body/list/2", official: ABSENT, ours: 4 },
      { at: "case/body/gone", official: null, ours: ABSENT },
      { at: "case/body/new", official: ABSENT, ours: {} },
    ]);
  });

  it("pairs events by name, so that one more event is one difference", () => {
    const official = [event("metadata", 0), event("values", 1), event("values", 2)];
    const ours = [
      event("metadata", 0),
      event("updates", 9),
      event("values", 1),
      event("values", 3),
    ];
    expect(compare(official, ours, "e")).toEqual([
      { at: "e/updates#1", official: ABSENT, ours: event("updates", 9) },
      { at: "e/values#2/data", official: 2, ours: 3 },
    ]);
  });
});

describe("matches", () => {
  it("takes * for one part or a piece of it, and ** for any number of parts", () => {
    expect(matches("case/label/body/x", "*/*/body/x")).toBe(true);
    expect(matches("case/label/more/body/x", "*/*/body/x")).toBe(false);
    expect(matches("case/a/b/c", "**/c")).toBe(true);
    expect(matches("case/a/b/c", "case/**")).toBe(true);
    expect(matches("case/a/b/c", "case/**/c")).toBe(true);
    expect(matches("case/c", "case/**/c")).toBe(true);
    expect(matches("case/values#1", "case/values*")).toBe(true);
    expect(matches("other/a", "case/**")).toBe(false);
  });
});

describe("normalise", () => {
  it("gives one id one name, and keeps different ids apart", () => {
    const [first, second] = [
      "0197e6a0-0000-7000-8000-000000000001",
      "0197e6a0-0000-7000-8000-000000000002",
    ];
    const recording = { get: { body: { run_id: first, also: `x:${first}`, thread_id: second } } };
    expect(normalise(recording, [], new Map([[second, "<thread>"]]))).toEqual({
      get: { body: { also: "x:<also 1>", run_id: "<also 1>", thread_id: "<thread>" } },
    });
  });
});
