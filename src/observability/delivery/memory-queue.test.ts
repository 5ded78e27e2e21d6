import { expect, test } from "vitest";
import { MemoryQueue } from "./memory-queue.ts";
import type { StoredRecord } from "./record.ts";

const record = (traceId: string, size = 1): StoredRecord => ({
  traceId,
  root: false,
  time: 0,
  bytes: Buffer.alloc(size),
});

function openQueue(limits: { maxRecords?: number; maxBytes?: number }) {
  const dropped: string[][] = [];
  const queue = new MemoryQueue<StoredRecord>(
    { maxRecords: 1_000, maxBytes: 1_000_000, ...limits },
    (records) => dropped.push(records.map(({ traceId }) => traceId)),
  );
  const rest = (): string[] => queue.takeAll().map(({ traceId }) => traceId);
  return { queue, dropped, rest };
}

test("records come out in the order they came", () => {
  const { queue, dropped } = openQueue({});
  for (const traceId of ["a", "b", "a", "c"]) queue.add(record(traceId));
  expect(queue.length).toBe(4);
  const out = [queue.shift(), queue.shift(), queue.shift(), queue.shift(), queue.shift()];
  expect(out.map((one) => one?.traceId)).toEqual(["a", "b", "a", "c", undefined]);
  expect([queue.length, queue.bytes, queue.peek()]).toEqual([0, 0, undefined]);
  expect(dropped).toEqual([]);
});

test("past the number of records the oldest trace goes whole, wherever its records are", () => {
  const { queue, dropped, rest } = openQueue({ maxRecords: 4 });
  for (const traceId of ["a", "b", "a", "c", "d"]) queue.add(record(traceId));
  expect(dropped).toEqual([["a", "a"]]);
  expect(queue.length).toBe(3);
  expect(rest()).toEqual(["b", "c", "d"]);
});

test("past the bytes as many traces go as have to", () => {
  const { queue, dropped, rest } = openQueue({ maxBytes: 10 });
  for (const traceId of ["a", "b", "c"]) queue.add(record(traceId, 3));
  queue.add(record("d", 6));
  expect(dropped).toEqual([["a"], ["b"]]);
  expect(queue.bytes).toBe(9);
  expect(rest()).toEqual(["c", "d"]);
});

test("a record that has no room at all is given up, and the queue goes on", () => {
  const { queue, dropped, rest } = openQueue({ maxBytes: 10 });
  queue.add(record("a", 3));
  queue.add(record("b", 11));
  expect(dropped).toEqual([["a"], ["b"]]);
  queue.add(record("c"));
  expect(rest()).toEqual(["c"]);
});

test("a trace whose first records are out is as old as those that are left", () => {
  const { queue, dropped, rest } = openQueue({ maxRecords: 3 });
  for (const traceId of ["a", "b", "a"]) queue.add(record(traceId));
  expect(queue.shift()?.traceId).toBe("a");
  queue.add(record("c"));
  queue.add(record("c"));
  expect(dropped).toEqual([["b"]]);
  expect(rest()).toEqual(["a", "c", "c"]);
});

test("an emptied queue is as good as new", () => {
  const { queue, dropped, rest } = openQueue({ maxRecords: 2 });
  queue.add(record("a"));
  queue.add(record("b"));
  expect(rest()).toEqual(["a", "b"]);
  for (const traceId of ["a", "c", "d"]) queue.add(record(traceId));
  expect(dropped).toEqual([["a"]]);
  expect(rest()).toEqual(["c", "d"]);
});
