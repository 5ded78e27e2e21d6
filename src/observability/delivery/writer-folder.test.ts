import { expect, test } from "vitest";
import { createSegmentNames } from "./writer-folder.ts";

test.each([
  ["a clock that stands still", () => 1_000],
  ["a clock that goes back", (step: number) => 100_000 - step * 7],
  ["a clock that goes on", (step: number) => 1_000 + step],
])("names sort in the order they were given, by %s", (_clock, timeAt) => {
  let step = 0;
  const nextName = createSegmentNames(() => timeAt((step += 1)));
  const names = Array.from({ length: 500 }, () => nextName());
  expect(names.toSorted()).toEqual(names);
  expect(new Set(names).size).toBe(500);
});

test("two writers never choose the same name", () => {
  const [one, other] = [createSegmentNames(() => 1_000), createSegmentNames(() => 1_000)];
  expect(one()).not.toBe(other());
});
