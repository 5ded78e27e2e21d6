import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "vitest";
import { createDiskStore } from "../../src/observability/delivery/disk-store.ts";
import type { Limits, StoreEvent } from "../../src/observability/delivery/limits.ts";
import { createMemoryStore } from "../../src/observability/delivery/memory-store.ts";
import { Outbox } from "../../src/observability/delivery/outbox.ts";
import type { RecordStore, StoredRecord } from "../../src/observability/delivery/record.ts";
import type { Database } from "../../src/storage/database.ts";
import { createTraceOutbox } from "../../src/storage/trace-outbox.ts";
import { createTestDatabases, type TestDatabases } from "../support/databases.ts";

/* What a sender may rely on, wherever records wait. */

type Open = (limits?: Partial<Limits>) => Promise<{ store: RecordStore; events: StoreEvent[] }>;

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

/** Span `name` of trace number `trace`; a capital is a root. */
function span(trace: number, name: string, bytes = 100) {
  return {
    traceId: trace.toString(16).padStart(32, "0"),
    root: /^[A-Z]/.test(name),
    bytes: Buffer.from(`${trace}${name}`.padEnd(bytes, ".")),
  };
}

const nameOf = ({ bytes }: StoredRecord): string => bytes.toString().replace(/\.+$/, "");

/** Takes and settles until nothing is left. */
async function takeAll(store: RecordStore, most = 100): Promise<string[]> {
  await store.recorded();
  const names: string[] = [];
  for (;;) {
    const batch = await store.take({ maxRecords: most, maxBytes: 1_000_000 });
    if (batch === undefined) return names;
    names.push(...batch.records.map(nameOf));
    batch.settle([]);
  }
}

const attempt = (trace: number, number: number) => ({
  traceId: span(trace, "A").traceId,
  attempt: number,
});

function suite(open: Open): void {
  test("gives records out in order, counts them, and is empty when they are settled", async () => {
    const { store } = await open();
    for (const name of ["a", "b", "A"]) store.add(span(1, name));
    await store.recorded();
    expect(store.pending).toMatchObject({ records: 3, bytes: 300 });
    expect(store.pending.oldest).toBeGreaterThan(Date.now() - 60_000);
    expect(store.waiting).toBe(3);
    expect(await takeAll(store, 2)).toEqual(["1a", "1b", "1A"]);
    expect(store.pending).toEqual({ records: 0, bytes: 0, oldest: undefined });
    expect(store.counts).toMatchObject({ dropped: 0, superseded: 0 });
  });

  test("what a batch leaves comes again, before anything newer", async () => {
    const { store } = await open();
    for (const name of ["a", "b", "c"]) store.add(span(1, name));
    await store.recorded();
    const first = await store.take({ maxRecords: 2, maxBytes: 1_000 });
    expect(store.pending.records).toBe(3);
    first?.settle(first.records.slice(0, 1));
    expect(store.pending.records).toBe(2);
    expect(await takeAll(store)).toEqual(["1a", "1c"]);
  });

  test("bytes come out as they went in, whatever they are", async () => {
    const { store } = await open();
    const bytes = Buffer.from(Array.from({ length: 1_000 }, (_, index) => index % 256));
    store.add({ ...span(1, "A"), bytes });
    store.add({ ...span(2, "A"), bytes: Buffer.alloc(700_000, 7) });
    await store.recorded();
    const batch = await store.take({ maxRecords: 5, maxBytes: 5_000_000 });
    expect(batch?.records.map((record) => record.bytes.length)).toEqual([1_000, 700_000]);
    expect(Buffer.compare(batch?.records[0]?.bytes ?? Buffer.alloc(0), bytes)).toBe(0);
    batch?.settle([]);
  });

  test("a batch keeps to its limits, and one that is larger goes alone", async () => {
    const { store } = await open();
    for (const [name, bytes] of [
      ["a", 600],
      ["b", 600],
      ["c", 5_000],
      ["d", 100],
    ] as const)
      store.add(span(1, name, bytes));
    await store.recorded();
    const sizes: number[] = [];
    for (;;) {
      const batch = await store.take({ maxRecords: 10, maxBytes: 1_000 });
      if (batch === undefined) break;
      sizes.push(batch.records.length);
      batch.settle([]);
    }
    expect(sizes).toEqual([1, 1, 1, 1]);
  });

  test("a root waits for the rest of its trace that is under way", async () => {
    const { store } = await open();
    for (const name of ["a", "b"]) store.add(span(1, name));
    await store.recorded();
    const first = await store.take({ maxRecords: 2, maxBytes: 1_000 });
    store.add(span(1, "A"));
    store.add(span(2, "A"));
    await store.recorded();
    const second = await store.take({ maxRecords: 5, maxBytes: 1_000 });
    expect(second?.records.map(nameOf)).toEqual(["2A"]);
    first?.settle([]);
    second?.settle([]);
    expect(await takeAll(store)).toEqual(["1A"]);
  });

  test("a root whose run's result is not stored waits for it, and nothing waits with it", async () => {
    const { store } = await open();
    store.add(span(1, "a"));
    store.add({ ...span(1, "A"), attempt: 1 });
    store.add(span(2, "A"));
    expect(await takeAll(store)).toEqual(["1a", "2A"]);
    expect(store.pending.records).toBe(1);
    store.settle(attempt(1, 1), true);
    expect(await takeAll(store)).toEqual(["1A"]);
    expect(store.pending.records).toBe(0);
  });

  test("the result may be stored before anybody asks for the root", async () => {
    const { store } = await open();
    store.add({ ...span(1, "A"), attempt: 1 });
    store.settle(attempt(1, 1), true);
    expect(await takeAll(store)).toEqual(["1A"]);
  });

  test("a root that another attempt tells is forgotten, and no other is", async () => {
    const { store } = await open();
    for (const trace of [1, 2]) store.add({ ...span(trace, "A"), attempt: 1 });
    store.settle(attempt(1, 1), false);
    expect(await takeAll(store)).toEqual([]);
    store.settle(attempt(2, 1), false);
    store.add({ ...span(1, "B"), attempt: 2 });
    store.settle(attempt(1, 2), true);
    expect(await takeAll(store)).toEqual(["1B"]);
    expect(store.pending.records).toBe(0);
    expect(store.counts).toMatchObject({ superseded: 2, dropped: 0 });
  });
}

const memory: Open = async () => ({ store: createMemoryStore(() => {}), events: [] });

const disk: Open = async (limits) => {
  const base = await mkdtemp(join(tmpdir(), "aegra-store-"));
  cleanups.push(() => rm(base, { recursive: true, force: true }));
  const events: StoreEvent[] = [];
  const store = createDiskStore({
    folder: join(base, "spans"),
    deadLetterFolder: join(base, "dead-letters"),
    fsync: false,
    limits,
    onEvent: (event) => events.push(event),
    onAdopted: () => {},
  });
  cleanups.push(() => store.close());
  return { store, events };
};

function table(databases: TestDatabases): Open {
  let database: Promise<Database> | undefined;
  let queues = 0;
  return async (limits) => {
    database ??= databases.open();
    const outbox = new Outbox({ table: createTraceOutbox(await database), alone: false, limits });
    const events: StoreEvent[] = [];
    queues += 1;
    const store = outbox.openStore(`suite-${queues}/spans`, {
      onEvent: (event) => events.push(event),
      onAdopted: () => {},
    });
    cleanups.push(() => store.close());
    return { store, events };
  };
}

describe("records in memory", () => suite(memory));
describe("records on disk", () => suite(disk));
describe("records in PGlite", () => suite(table(createTestDatabases("pglite"))));
describe("records in PostgreSQL", () => suite(table(createTestDatabases("postgres"))));
