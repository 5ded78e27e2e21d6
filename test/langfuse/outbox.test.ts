import { randomUUID } from "node:crypto";
import { afterEach, beforeAll, expect, it, vi } from "vitest";
import type { StoreEvent } from "../../src/observability/delivery/limits.ts";
import { Outbox, type OutboxOptions } from "../../src/observability/delivery/outbox.ts";
import type { RecordStore, StoredRecord } from "../../src/observability/delivery/record.ts";
import type { Database } from "../../src/storage/database.ts";
import { createTraceOutbox, type TraceOutbox } from "../../src/storage/trace-outbox.ts";
import { describeDatabases } from "../support/databases.ts";

/** Of processes that live: what is slow is not to be taken for dead. */
const LEASE_MS = 3_000;
/** Of one that is dead. */
const LEFT_MS = 300;

/** Span `name` of a trace; a capital is a root. */
function span(traceId: string, name: string, bytes = 100) {
  return { traceId, root: /^[A-Z]/.test(name), bytes: Buffer.from(name.padEnd(bytes, ".")) };
}

const newTraceId = (): string => randomUUID().replaceAll("-", "");
const nameOf = ({ bytes }: StoredRecord): string => bytes.toString().replace(/\.+$/, "");

async function takeAll(store: RecordStore): Promise<string[]> {
  await store.recorded();
  const names: string[] = [];
  for (;;) {
    const batch = await store.take({ maxRecords: 100, maxBytes: 1_000_000 });
    if (batch === undefined) return names;
    names.push(...batch.records.map(nameOf));
    batch.settle([]);
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 3_000; tries += 1) {
    if (await condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error("waited in vain");
}

describeDatabases("the outbox", (databases) => {
  let database: Database;
  let table: TraceOutbox;
  let queues = 0;
  let queue = "";
  const cleanups: (() => Promise<unknown>)[] = [];
  beforeAll(async () => {
    database = await databases.open();
    table = createTraceOutbox(database);
  });
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
    await database.query("DELETE FROM trace_outbox");
    await database.query("DELETE FROM trace_senders");
    await database.query("DELETE FROM trace_dead_letters");
  });

  /** One process's store of this test's queue. */
  function open(options: Partial<OutboxOptions> = {}, own = true) {
    if (own) queue = `test-${(queues += 1)}/spans`;
    const outbox = new Outbox({ table, alone: false, leaseMs: LEASE_MS, retryMs: 20, ...options });
    const events: StoreEvent[] = [];
    const store = outbox.openStore(queue, {
      onEvent: (event) => events.push(event),
      onAdopted: () => {},
    });
    cleanups.push(() => store.close());
    return { store, events, outbox };
  }

  /** What a process leaves that is killed: rows, and a lease that nobody prolongs. */
  async function leaveBehind(
    rows: (ReturnType<typeof span> & { attempt?: number })[],
    leaseMs = LEFT_MS,
  ): Promise<void> {
    const sender = randomUUID();
    await table.renew(sender, leaseMs);
    await table.add(
      queue,
      rows.map(({ traceId, attempt, ...row }) => ({
        ...row,
        record_id: randomUUID(),
        trace_id: traceId,
        attempt,
        time: Date.now(),
      })),
      sender,
    );
  }

  async function createRun(traceId: string, status: string, attempt: number): Promise<void> {
    await database.query(
      `INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, kwargs, multitask_strategy, attempt)
       VALUES ($1::uuid, gen_random_uuid(), gen_random_uuid(), 'g', $2, '{}', 'reject', $3)`,
      [traceId, status, attempt],
    );
  }

  async function count(): Promise<number> {
    const { rows } = await database.query<{ n: number }>(
      "SELECT count(*)::int AS n FROM trace_outbox WHERE queue = $1",
      [queue],
    );
    return rows[0]?.n ?? 0;
  }

  it("has a record before anybody waits for it, and not after it is settled", async () => {
    const { store } = open();
    for (const name of ["a", "A"]) store.add(span(newTraceId(), name));
    await store.recorded();
    expect(await count()).toBe(2);
    expect(await takeAll(store)).toEqual(["a", "A"]);
    await until(async () => (await count()) === 0);
  });

  it("gives what a process left to its neighbour when the lease has run out, and once", async () => {
    const first = open();
    const second = open({}, false);
    const trace = newTraceId();
    await leaveBehind(["a", "b", "A"].map((name) => span(trace, name)));
    first.store.add(span(newTraceId(), "own"));
    const names: string[] = [];
    await until(async () => {
      const taken = await Promise.all([takeAll(first.store), takeAll(second.store)]);
      names.push(...taken.flat());
      return names.length >= 4;
    });
    expect(names.toSorted()).toEqual(["A", "a", "b", "own"]);
    expect(first.store.counts.adopted + second.store.counts.adopted).toBe(3);
    await until(async () => (await count()) === 0);
  });

  it("does not touch what a living process holds", async () => {
    const { store } = open({ leaseMs: LEFT_MS });
    await leaveBehind([span(newTraceId(), "A")], 600_000);
    await new Promise((resolve) => setTimeout(resolve, LEFT_MS * 2));
    expect(await takeAll(store)).toEqual([]);
    expect(await count()).toBe(1);
  });

  it("leaves everything to the next at an orderly end", async () => {
    const { store } = open();
    for (const name of ["a", "A"]) store.add(span(newTraceId(), name));
    await store.close();
    expect(store.counts).toMatchObject({ left: 2, dropped: 0 });
    const next = open({}, false);
    expect(await takeAll(next.store)).toEqual(["a", "A"]);
  });

  it("keeps no more in a process than it may, and all come out in order", async () => {
    const { store } = open({ inHand: { records: 10, bytes: 1_000_000 }, leaseMs: 600_000 });
    const names = Array.from({ length: 200 }, (_, index) => `n${index}`);
    for (const [index, name] of names.entries()) {
      store.add(span(newTraceId(), name));
      if (index % 7 === 0) await store.recorded();
    }
    await store.recorded();
    expect(store.pending.records).toBe(200);
    const { rows } = await database.query<{ n: number }>(
      "SELECT count(*)::int AS n FROM trace_outbox WHERE sender_id IS NOT NULL AND queue = $1",
      [queue],
    );
    expect(rows[0]?.n).toBeLessThan(30);
    expect(await takeAll(store)).toEqual(names);
    expect(store.pending.records).toBe(0);
    store.add(span(newTraceId(), "A"));
    expect(await takeAll(store)).toEqual(["A"]);
    expect(store.counts).toMatchObject({ adopted: 0, foreign: 0, dropped: 0 });
  });

  it("sends a dead process's root if its run ended with that attempt, and drops it if not", async () => {
    const { store } = open();
    const [ended, waiting, retried, running, gone] = Array.from({ length: 5 }, newTraceId);
    await createRun(ended!, "success", 1);
    await createRun(waiting!, "pending", 1);
    await createRun(retried!, "error", 2);
    await createRun(running!, "running", 1);
    const root = (traceId: string, name: string) => ({ ...span(traceId, name), attempt: 1 });
    await leaveBehind([
      root(ended!, "Ended"),
      root(waiting!, "Waiting"),
      root(retried!, "Retried"),
      root(running!, "Running"),
      root(gone!, "Gone"),
      span(waiting!, "child"),
    ]);
    const names: string[] = [];
    await until(async () => {
      names.push(...(await takeAll(store)));
      return names.length === 3 && (await count()) === 1;
    });
    expect(names.toSorted()).toEqual(["Ended", "Gone", "child"]);
    await database.query("UPDATE runs SET status = 'success' WHERE run_id = $1::uuid", [running]);
    await until(async () => (await takeAll(store)).includes("Running"));
  });

  it("knows which roots another attempt tells", async () => {
    const [ended, retried, running, gone] = Array.from({ length: 4 }, newTraceId);
    await createRun(ended!, "success", 1);
    await createRun(retried!, "success", 2);
    await createRun(running!, "running", 1);
    const asked = [ended!, retried!, running!, gone!].map((traceId) => ({ traceId, attempt: 1 }));
    expect(await table.superseded(asked)).toEqual(new Set([retried, running]));
  });

  it("past the bytes allowed the oldest whole traces go, and are counted", async () => {
    const { store, events, outbox } = open({
      inHand: { records: 0, bytes: 0 },
      limits: { maxBytes: 20_000 },
      // So that it looks when it is told to.
      leaseMs: 600_000,
    });
    await outbox.probe();
    const traces = Array.from({ length: 50 }, newTraceId);
    for (const name of ["a", "A"]) {
      for (const [index, traceId] of traces.entries()) {
        store.add(span(traceId, `${name}${index}`, 400));
        if (index % 5 === 0) await store.recorded();
      }
    }
    await store.recorded();
    await outbox.probe();
    const names = await takeAll(store);
    expect(store.counts.dropped).toBe(100 - names.length);
    expect(names.length).toBeGreaterThan(30);
    expect(names.length).toBeLessThanOrEqual(50);
    const numbers = (letter: string) =>
      names.filter((name) => name.startsWith(letter)).map((name) => name.slice(1));
    expect(numbers("a").toSorted()).toEqual(numbers("A").toSorted());
    expect(numbers("A")).toContain("49");
    expect(events.filter(({ kind }) => kind === "dropped")).toHaveLength(1);
  });

  it("what the process itself holds counts too: its oldest whole traces go, but for what is under way", async () => {
    const { store, events, outbox } = open({ limits: { maxBytes: 20_000 }, leaseMs: 600_000 });
    await outbox.probe();
    const traces = Array.from({ length: 50 }, newTraceId);
    for (const name of ["a", "b", "A"]) {
      for (const [index, traceId] of traces.entries()) {
        store.add(span(traceId, `${name}${index}`, 400));
        if (index % 5 === 0) await store.recorded();
      }
    }
    await store.recorded();
    // Of the oldest two, one batch came back, and one is under way.
    const failed = await store.take({ maxRecords: 1, maxBytes: 1_000 });
    const underWay = await store.take({ maxRecords: 1, maxBytes: 1_000 });
    failed?.settle(failed.records);
    await outbox.probe();
    await until(() => store.counts.dropped > 0);
    await until(async () => (await count()) === store.pending.records);
    expect(store.pending.bytes).toBeLessThanOrEqual(20_000 + 3 * 400);
    // What comes later of a trace that had to go, goes.
    store.add(span(traces[0]!, "late"));
    underWay?.settle(underWay.records);
    const names = await takeAll(store);
    expect(names.length + store.counts.dropped).toBe(151);
    const numbers = (letter: string) =>
      names.filter((name) => name.startsWith(letter)).map((name) => name.slice(1));
    expect(numbers("A").toSorted()).toEqual(numbers("a").toSorted());
    expect(numbers("A").toSorted()).toEqual(numbers("b").toSorted());
    expect(numbers("A")).toEqual(expect.arrayContaining(["1", "49"]));
    expect(numbers("A")).not.toContain("0");
    expect(numbers("A").length).toBeGreaterThan(10);
    expect(names).not.toContain("late");
    expect(events.filter(({ kind }) => kind === "dropped").length).toBeGreaterThan(0);
    await until(async () => (await count()) === 0);
  });

  it("a trace of which a record is too old goes whole, wherever its records are", async () => {
    const { store, outbox } = open({ limits: { maxAgeMs: 3_600_000 }, leaseMs: 600_000 });
    await outbox.probe();
    const [old, young] = [newTraceId(), newTraceId()];
    for (const name of ["a", "b", "A"]) store.add(span(old, name));
    await store.recorded();
    const failed = await store.take({ maxRecords: 1, maxBytes: 1_000 });
    failed?.settle(failed.records);
    for (const name of ["c", "C"]) store.add(span(young, name));
    await store.recorded();
    await database.query(
      "UPDATE trace_outbox SET taken_in_at = now() - interval '2 hours' WHERE trace_id = $1::uuid AND NOT root",
      [old],
    );
    await outbox.probe();
    await until(() => store.counts.dropped === 3);
    expect(await takeAll(store)).toEqual(["c", "C"]);
    await until(async () => (await count()) === 0);
  });

  it("a trace that grew too old in the process's hands goes whole", async () => {
    const { store } = open({ limits: { maxAgeMs: 3_600_000 }, leaseMs: 600_000 });
    const trace = newTraceId();
    store.add(span(trace, "a"));
    await store.recorded();
    const now = Date.now();
    vi.useFakeTimers({ toFake: ["Date"], now: now + 3_000_000 });
    cleanups.push(async () => vi.useRealTimers());
    store.add(span(trace, "A"));
    store.add(span(newTraceId(), "B"));
    await store.recorded();
    vi.setSystemTime(now + 4_000_000);
    expect(await takeAll(store)).toEqual(["B"]);
    expect(store.counts.dropped).toBe(2);
    await until(async () => (await count()) === 0);
  });

  it("what is too old goes", async () => {
    const { store } = open({ limits: { maxAgeMs: 60_000 } });
    await leaveBehind([span(newTraceId(), "Old")], 1);
    await database.query("UPDATE trace_outbox SET taken_in_at = now() - interval '2 minutes'");
    store.add(span(newTraceId(), "New"));
    await until(() => store.counts.dropped === 1);
    expect(await takeAll(store)).toEqual(["New"]);
  });

  it("a record that is too large goes, and no other", async () => {
    const { store, events } = open({ limits: { maxRecordBytes: 1_000 } });
    store.add(span(newTraceId(), "a", 1_001));
    store.add(span(newTraceId(), "A", 1_000));
    expect(await takeAll(store)).toEqual(["A"]);
    expect(events).toMatchObject([{ kind: "dropped", records: 1 }]);
  });

  it("a database that takes nothing: said once; records are sent from memory, or written when it is back", async () => {
    let away = true;
    // The real table, behind a connection that is down.
    const down: TraceOutbox = new Proxy(table, {
      get: (target, key: keyof TraceOutbox) =>
        away ? () => Promise.reject(new Error("connection refused")) : target[key],
    });
    const { store, events } = open({ table: down });
    for (const name of ["a", "b", "c"]) store.add(span(newTraceId(), name));
    await until(() => events.length > 0);
    store.add(span(newTraceId(), "d"));
    expect(store.pending.records).toBe(4);
    const batch = await store.take({ maxRecords: 2, maxBytes: 1_000 });
    expect(batch?.records.map(nameOf)).toEqual(["a", "b"]);
    expect(await count()).toBe(0);
    away = false;
    await until(async () => (await count()) === 2);
    batch?.settle(batch.records);
    expect(events).toEqual([{ kind: "away", error: "connection refused" }, { kind: "back" }]);
    expect(await takeAll(store)).toEqual(["a", "b", "c", "d"]);
    await until(async () => (await count()) === 0);
    expect(store.counts.dropped).toBe(0);
  });

  it.each([0, 1, 2, 3, 4, 5, 6])(
    "what is added %i moments after the database is back is written, and all that follows",
    async (moments) => {
      let away = true;
      const down: TraceOutbox = new Proxy(table, {
        get: (target, key: keyof TraceOutbox) =>
          away ? () => Promise.reject(new Error("connection refused")) : target[key],
      });
      const { store, events } = open({ table: down });
      store.add(span(newTraceId(), "a"));
      await until(() => events.length > 0);
      // Nothing waits when it is back.
      expect(await takeAll(store)).toEqual(["a"]);
      const { push } = events;
      events.push = (...told) => {
        const addLater = async (): Promise<void> => {
          for (let moment = 0; moment < moments; moment += 1) await Promise.resolve();
          store.add(span(newTraceId(), "b"));
        };
        void addLater();
        return push.apply(events, told);
      };
      away = false;
      await until(() => events.some(({ kind }) => kind === "back"));
      await until(async () => (await count()) === 1);
      store.add(span(newTraceId(), "c"));
      await until(async () => (await count()) === 2);
    },
  );

  it("a database that is slow for a while: what did not fit into its queue is written in the end", async () => {
    let release = (): void => {};
    const held = new Promise<void>((resolve) => (release = resolve));
    // The real table, whose first statement takes long.
    let statements = 0;
    const slow: TraceOutbox = new Proxy(table, {
      get: (target, key: keyof TraceOutbox) =>
        key === "add"
          ? async (...args: Parameters<TraceOutbox["add"]>) => {
              if ((statements += 1) === 1) await held;
              await target.add(...args);
            }
          : target[key],
    });
    const { store, events } = open({ table: slow });
    for (let index = 0; index < 40; index += 1) store.add(span(newTraceId(), "A", 1_000_000));
    await until(() => statements === 1);
    for (let index = 0; index < 20; index += 1) store.add(span(newTraceId(), "B", 1_000_000));
    release();
    await until(async () => (await count()) === 60);
    expect(events).toEqual([]);
    expect(store.counts.dropped).toBe(0);
  });

  it("a process that was silent for too long lets go of what it held, and begins anew", async () => {
    const { store } = open();
    store.add(span(newTraceId(), "A"));
    await store.recorded();
    await database.query("UPDATE trace_senders SET lease_expires_at = now() - interval '1 hour'");
    const neighbour = open({}, false);
    await until(async () => (await takeAll(neighbour.store)).includes("A"));
    await until(() => store.pending.records === 0);
    expect(await takeAll(store)).toEqual([]);
    store.add(span(newTraceId(), "B"));
    expect(await takeAll(store)).toEqual(["B"]);
  });

  it("keeps what a target refuses, with the answer, until it is put back", async () => {
    const { store } = open({ limits: { maxDeadLetters: 1 } });
    const trace = newTraceId();
    store.add(span(trace, "A"));
    store.add(span(trace, "B"));
    await store.recorded();
    const batch = await store.take({ maxRecords: 5, maxBytes: 1_000 });
    const [one, two] = batch?.records ?? [];
    expect(await store.bury(one!, "HTTP 400")).toBe(true);
    expect(await store.bury(two!, "HTTP 400")).toBe(false);
    batch?.settle([]);
    await until(async () => (await count()) === 0);
    expect(await table.deadLetters()).toMatchObject([
      { queue, trace_id: trace, bytes: 100, answer: "HTTP 400" },
    ]);
    expect(await table.report()).toMatchObject([{ queue, records: 0, dead_letters: 1 }]);
    expect(await table.replay()).toBe(1);
    expect(await table.deadLetters()).toEqual([]);
    await until(async () => (await takeAll(store)).includes("A"));
  });
});
