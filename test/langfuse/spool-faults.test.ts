import { execFileSync } from "node:child_process";
import { closeSync, constants, openSync } from "node:fs";
import { open as openFile, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, test, vi } from "vitest";
import { nameOf, span, takeAll, until, useSpool } from "./spool-bench.ts";

/* What a disk may do to the spool that it should not. */

const spool = useSpool();
const { cleanups, open, segments } = spool;

/** The names of the records in all files, oldest file first. */
async function onDisk(): Promise<string[]> {
  const names: string[] = [];
  for (const path of await segments()) {
    const text = await readFile(path, "latin1").catch(() => "");
    for (const [, name] of text.matchAll(/(\d+[a-zA-Z]+)\.{20}/gu)) names.push(name!);
  }
  return names;
}

const sorted = (names: readonly string[]): string[] => names.toSorted();

describe("records that had to wait in memory and have been taken", () => {
  /** One batch that came back, one under way, a root that waits for them, and one that waits for its run. */
  async function takeSome() {
    await writeFile(join(spool.base, "spans"), "a file in the way");
    const { store, events } = open();
    await until(() => events.length > 0);
    for (const name of ["a", "b", "c", "A"]) store.add(span(1, name));
    store.add({ ...span(2, "A"), attempt: 1 });
    const failed = await store.take({ maxRecords: 2, maxBytes: 1_000 });
    const underWay = await store.take({ maxRecords: 4, maxBytes: 1_000 });
    expect([failed, underWay].map((batch) => batch?.records.map(nameOf))).toEqual([
      ["1a", "1b"],
      ["1c"],
    ]);
    failed?.settle(failed.records);
    return { store, events, underWay };
  }
  const all = ["1a", "1b", "1c", "1A", "2A"];

  test("go to the disk with the others when it is back, and are sent from where they are", async () => {
    const { store, events, underWay } = await takeSome();
    store.add(span(3, "A"));
    await rm(join(spool.base, "spans"));
    await until(() => events.some(({ kind }) => kind === "back"));
    expect(sorted(await onDisk())).toEqual(sorted([...all, "3A"]));
    // What came later is in a later file.
    expect((await onDisk()).at(-1)).toBe("3A");
    expect(await takeAll(store)).toEqual(["1a", "1b", "3A"]);
    underWay?.settle([]);
    expect(await takeAll(store)).toEqual(["1A"]);
    store.settle({ traceId: span(2, "A").traceId, attempt: 1 }, true);
    expect(await takeAll(store)).toEqual(["2A"]);
    expect(store.pending).toEqual({ records: 0, bytes: 0, oldest: undefined });
    await until(async () => (await segments()).length === 0);
  });

  test("are there for the next process once the disk was back", async () => {
    const { store, events } = await takeSome();
    await rm(join(spool.base, "spans"));
    await until(() => events.some(({ kind }) => kind === "back"));
    await store.close();
    expect(store.counts).toMatchObject({ left: 5, dropped: 0 });
    const next = open();
    await until(() => next.store.counts.adopted === 5);
    expect(sorted(await takeAll(next.store))).toEqual(sorted(all));
  });

  test("are written at the end, where the disk is not tried before", async () => {
    await writeFile(join(spool.base, "spans"), "a file in the way");
    const { store, events } = open({ retryMs: 600_000 });
    await until(() => events.length > 0);
    for (const name of ["a", "b", "A"]) store.add(span(1, name));
    const failed = await store.take({ maxRecords: 1, maxBytes: 1_000 });
    await store.take({ maxRecords: 1, maxBytes: 1_000 });
    failed?.settle(failed.records);
    await rm(join(spool.base, "spans"));
    await store.close();
    expect(store.counts).toMatchObject({ left: 3, dropped: 0 });
    expect(sorted(await onDisk())).toEqual(["1A", "1a", "1b"]);
  });

  test("are not written again where they were sent meanwhile", async () => {
    const { store, events, underWay } = await takeSome();
    await rm(join(spool.base, "spans"));
    underWay?.settle([]);
    await until(() => events.some(({ kind }) => kind === "back"));
    expect(sorted(await onDisk())).toEqual(sorted(all.filter((name) => name !== "1c")));
    expect(await takeAll(store)).toEqual(["1a", "1b", "1A"]);
    expect(store.pending.records).toBe(1);
  });
});

describe("a disk that does not answer", () => {
  /**
   * Holds all of libuv's threads, each by opening a pipe that has no other end: what is asked of a disk after that is
   * answered as late as by one that hangs.
   */
  function hang(): () => Promise<void> {
    const pipe = join(spool.base, "pipe");
    execFileSync("sh", ["-c", 'mkfifo "$0"', pipe]);
    const threads = Number(process.env["UV_THREADPOOL_SIZE"] ?? 4);
    const opened = Array.from({ length: threads }, () => openFile(pipe, "r"));
    let released: Promise<void> | undefined;
    const release = (): Promise<void> => {
      released ??= (async () => {
        const other = openSync(pipe, constants.O_RDWR | constants.O_NONBLOCK);
        for (const handle of await Promise.all(opened)) await handle.close();
        closeSync(other);
      })();
      return released;
    };
    cleanups.push(release);
    return release;
  }

  const soon = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

  test("keeps a run waiting once, and no other", async () => {
    const { store } = open({ answerMs: 600_000 });
    hang();
    store.add(span(1, "A"));
    await Promise.race([store.recorded(), soon(store.patienceMs * 2)]);
    for (let run = 0; run < 100; run += 1) {
      store.add(span(2 + run, "A"));
      await store.recorded();
    }
    expect(store.pending.records).toBe(101);
  });

  test("at the opening: said once, sent from memory, and written when it answers", async () => {
    const release = hang();
    const { store, events } = open({ answerMs: 200 });
    for (const name of ["a", "b", "A"]) store.add(span(1, name));
    await until(() => events.length > 0);
    const batch = await store.take({ maxRecords: 2, maxBytes: 1_000 });
    expect(batch?.records.map(nameOf)).toEqual(["1a", "1b"]);
    batch?.settle([]);
    await soon(500);
    expect(events).toEqual([
      { kind: "away", error: expect.stringMatching(/^no answer within \d+ ms$/u) as string },
    ]);
    await release();
    await until(() => events.some(({ kind }) => kind === "back"));
    expect(await onDisk()).toEqual(["1A"]);
    expect(await takeAll(store)).toEqual(["1A"]);
    expect(store.pending.records + store.counts.dropped).toBe(0);
  });

  test("in the middle: what it has is sent later, what comes is sent at once, and nothing twice", async () => {
    const { store, events } = open({ answerMs: 2_000, fsync: true });
    store.add(span(1, "a"));
    await store.recorded();
    expect(await onDisk()).toEqual(["1a"]);
    const release = hang();
    store.add(span(2, "A"));
    await until(() => events.length > 0);
    store.add(span(3, "A"));
    // The file cannot be read either.
    const batch = await store.take({ maxRecords: 1, maxBytes: 1_000 });
    expect(batch?.records.map(nameOf)).toEqual(["2A"]);
    expect(store.pending.records).toBe(3);
    await release();
    await until(() => events.some(({ kind }) => kind === "back"));
    expect(sorted(await onDisk())).toEqual(["1a", "2A", "3A"]);
    expect(await takeAll(store)).toEqual(["1a", "3A"]);
    batch?.settle(batch.records);
    expect(await takeAll(store)).toEqual(["2A"]);
    expect(store.pending).toEqual({ records: 0, bytes: 0, oldest: undefined });
    expect(events.map(({ kind }) => kind)).toEqual(["away", "back"]);
    await until(async () => (await segments()).length === 0);
  });

  test("does not keep the end waiting: what is in memory alone is counted", async () => {
    const { store } = open({ answerMs: 600_000, fsync: true });
    store.add(span(1, "a"));
    await store.recorded();
    const release = hang();
    store.add(span(1, "A"));
    await store.close();
    expect(store.counts).toMatchObject({ left: 1, dropped: 1 });
    await release();
  });

  test.runIf(process.platform === "linux")(
    "a folder that cannot be made is one that takes nothing",
    async () => {
      const folder = "/proc/nope/spans";
      const { store, events } = open({ folder, deadLetterFolder: "/proc/nope/dead-letters" });
      store.add(span(1, "A"));
      await until(() => events.length > 0);
      expect(events).toMatchObject([{ kind: "away", error: expect.stringContaining("ENOENT") }]);
      expect(await store.bury({ ...span(1, "a"), time: 1 }, "HTTP 400")).toBe(false);
      expect(await takeAll(store)).toEqual(["1A"]);
    },
  );
});

describe("files that somebody removes while they are in use", () => {
  const removed = "its files were removed";

  test("are noticed soon and said once; what can be is written again, in order", async () => {
    const { store, events } = open();
    for (const name of ["a", "b", "A"]) store.add(span(1, name));
    await store.recorded();
    const batch = await store.take({ maxRecords: 1, maxBytes: 1_000 });
    await rm(join(spool.base, "spans"), { recursive: true });
    for (const name of ["a", "A"]) store.add(span(2, name));
    await until(() => events.some(({ kind }) => kind === "back"));
    expect(events).toEqual([{ kind: "away", error: removed }, { kind: "back" }]);
    expect(await onDisk()).toEqual(["1a", "1b", "1A", "2a", "2A"]);
    batch?.settle(batch.records);
    expect(await takeAll(store)).toEqual(["1a", "1b", "1A", "2a", "2A"]);
    expect(store.pending.records + store.counts.dropped).toBe(0);
    await until(async () => (await segments()).length === 0);
  });

  test("are noticed where the folder stays", async () => {
    const { store, events } = open();
    store.add(span(1, "A"));
    await store.recorded();
    for (const path of await segments()) await rm(path);
    store.add(span(2, "A"));
    await until(() => events.some(({ kind }) => kind === "back"));
    expect(events).toEqual([{ kind: "away", error: removed }, { kind: "back" }]);
    expect(await onDisk()).toEqual(["1A", "2A"]);
    expect(await takeAll(store)).toEqual(["1A", "2A"]);
  });

  test("are noticed at the end at the latest", async () => {
    const { store, events } = open();
    for (const name of ["a", "b", "A"]) store.add(span(1, name));
    await store.recorded();
    await store.take({ maxRecords: 1, maxBytes: 1_000 });
    await rm(join(spool.base, "spans"), { recursive: true });
    await store.close();
    expect(events).toEqual([{ kind: "away", error: removed }]);
    expect(store.counts).toMatchObject({ left: 3, dropped: 0 });
    expect(await onDisk()).toEqual(["1a", "1b", "1A"]);
    const next = open();
    await until(() => next.store.counts.adopted === 3);
  });

  test("what cannot be read any more is counted, and said", async () => {
    const { store, events } = open({ limits: { maxBytes: 16_000 } });
    // More than one file; those that are full are closed.
    for (let trace = 0; trace < 20; trace += 1) {
      store.add(span(trace, "A"));
      await store.recorded();
    }
    await until(async () => (await segments()).length > 2);
    await rm(join(spool.base, "spans"), { recursive: true });
    await until(() => events.some(({ kind }) => kind === "back"));
    const names = await takeAll(store);
    expect(names.at(-1)).toBe("19A");
    expect(store.counts.dropped).toBe(20 - names.length);
    expect(store.pending.records).toBe(0);
    expect(events.find(({ kind }) => kind === "dropped")).toEqual({
      kind: "dropped",
      records: store.counts.dropped,
      why: "their files were removed",
    });
  });

  test("what is sealed in the meantime can be read all the same", async () => {
    const { store } = open({ limits: { maxBytes: 16_000 } });
    store.add(span(0, "A"));
    await store.recorded();
    await rm(join(spool.base, "spans"), { recursive: true });
    for (let trace = 1; trace < 40; trace += 1) {
      store.add(span(trace, "A"));
      await store.recorded();
    }
    const names: string[] = [];
    await until(async () => {
      names.push(...(await takeAll(store)));
      return names.length === 40;
    });
    expect(store.counts.dropped).toBe(0);
  });
});

describe("a trace of which a record is too old", () => {
  const HOUR = 3_600_000;

  function waitHours(hours: number): void {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() + hours * HOUR });
    cleanups.push(async () => vi.useRealTimers());
  }

  test("goes whole, with what comes later, and no other goes", async () => {
    const { store, events } = open({ limits: { maxAgeMs: 2 * HOUR } });
    store.add(span(1, "a"));
    await store.recorded();
    waitHours(1.5);
    store.add(span(2, "a"));
    store.add(span(1, "A"));
    await store.recorded();
    waitHours(1);
    store.add(span(2, "A"));
    expect(await takeAll(store)).toEqual(["2a", "2A"]);
    store.add(span(1, "b"));
    store.add(span(3, "A"));
    expect(await takeAll(store)).toEqual(["3A"]);
    expect(store.counts.dropped).toBe(3);
    expect(store.pending.records).toBe(0);
    expect(events).toContainEqual({ kind: "dropped", records: 1, why: "they are too old" });
  });

  test("goes with what came back from a target that is away, and the root that waits for it", async () => {
    const { store } = open({ limits: { maxAgeMs: 2 * HOUR } });
    for (const name of ["a", "b", "A"]) store.add(span(1, name));
    store.add(span(2, "a"));
    await store.recorded();
    const failed = await store.take({ maxRecords: 2, maxBytes: 1_000 });
    const underWay = await store.take({ maxRecords: 1, maxBytes: 1_000 });
    expect(underWay?.records.map(nameOf)).toEqual(["2a"]);
    failed?.settle(failed.records);
    waitHours(3);
    store.add(span(3, "A"));
    expect(await takeAll(store)).toEqual(["3A"]);
    underWay?.settle(underWay.records);
    expect(await takeAll(store)).toEqual([]);
    expect(store.counts.dropped).toBe(4);
    expect(store.pending).toEqual({ records: 0, bytes: 0, oldest: undefined });
    await until(async () => (await segments()).length === 0);
  });

  test("goes from memory too, where the disk takes nothing", async () => {
    await writeFile(join(spool.base, "spans"), "a file in the way");
    const { store, events } = open({ limits: { maxAgeMs: 2 * HOUR } });
    await until(() => events.length > 0);
    store.add(span(1, "a"));
    waitHours(1.5);
    for (const name of ["1A", "2A"]) store.add(span(Number(name[0]), "A"));
    waitHours(1);
    expect(await takeAll(store)).toEqual(["2A"]);
    expect(store.counts.dropped).toBe(2);
  });
});
