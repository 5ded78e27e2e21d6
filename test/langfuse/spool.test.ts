import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { appendFile, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, test, vi } from "vitest";
import type { DiskStoreOptions } from "../../src/observability/delivery/disk-store.ts";
import type { RecordStore, StoredRecord } from "../../src/observability/delivery/record.ts";
import { nameOf, span, takeAll, until, useSpool } from "./spool-bench.ts";

const spool = useSpool();
const { open, segments } = spool;

/** What a process leaves that ends without sending anything. */
async function leaveBehind(
  count: number,
  overrides: Partial<DiskStoreOptions> = {},
): Promise<void> {
  const { store } = open(overrides);
  for (let index = 0; index < count; index += 1) store.add(span(index, "A"));
  await store.recorded();
  await store.close();
}

describe("the spool", () => {
  test("gives records out in order, and leaves nothing on disk when they are settled", async () => {
    const { store } = open();
    const names = ["a", "b", "A"];
    for (const name of names) store.add(span(1, name));
    await store.recorded();
    expect(await segments()).toHaveLength(1);
    expect(store.pending).toMatchObject({ records: 3, bytes: 300 });
    expect(store.pending.oldest).toBeGreaterThan(Date.now() - 60_000);
    expect(await takeAll(store)).toEqual(["1a", "1b", "1A"]);
    expect(store.pending).toEqual({ records: 0, bytes: 0, oldest: undefined });
    await until(async () => (await segments()).length === 0);
    await store.close();
    expect(await readdir(join(spool.base, "spans"))).toEqual([]);
  });

  test("keeps what is under way until it is settled, and gives it out again first", async () => {
    const { store } = open();
    for (const name of ["a", "b", "c"]) store.add(span(1, name));
    await store.recorded();
    const first = await store.take({ maxRecords: 2, maxBytes: 1_000 });
    expect(store.pending.records).toBe(3);
    first?.settle(first.records.slice(0, 1));
    expect(store.pending.records).toBe(2);
    expect(await takeAll(store)).toEqual(["1a", "1c"]);
  });

  test("records larger than a read are whole", async () => {
    const { store } = open();
    store.add(span(1, "a", 3_000_000));
    store.add(span(1, "b"));
    expect(await takeAll(store)).toEqual(["1a", "1b"]);
  });

  test("can wait for the disk itself", async () => {
    const { store, events } = open({ fsync: true });
    store.add(span(1, "a"));
    await store.recorded();
    store.add(span(1, "A"));
    expect(await takeAll(store)).toEqual(["1a", "1A"]);
    expect(events).toEqual([]);
  });

  test("is for its owner's eyes only", async () => {
    const { store } = open();
    store.add(span(1, "a"));
    await store.recorded();
    const [file] = await segments();
    expect((await stat(file!)).mode & 0o777).toBe(0o600);
    expect((await stat(join(file!, ".."))).mode & 0o777).toBe(0o700);
    expect((await stat(join(spool.base, "spans"))).mode & 0o777).toBe(0o700);
    expect(await store.bury({ ...span(1, "a"), time: 1 }, "HTTP 400")).toBe(true);
    const letters = await readdir(join(spool.base, "dead-letters"));
    expect(letters).toHaveLength(1);
    expect((await stat(join(spool.base, "dead-letters", letters[0]!))).mode & 0o777).toBe(0o600);
    expect((await stat(join(spool.base, "dead-letters"))).mode & 0o777).toBe(0o700);
  });
});

describe("what another process left", () => {
  test("is adopted at the start, after which it is as one's own", async () => {
    await leaveBehind(5);
    const { store, events } = open();
    await until(() => store.counts.adopted === 5);
    expect(store.pending).toMatchObject({ records: 5, bytes: 500 });
    expect(events).toEqual([{ kind: "adopted", records: 5, torn: 0 }]);
    expect(await takeAll(store)).toEqual(["0A", "1A", "2A", "3A", "4A"]);
    await until(async () => (await segments()).length === 0);
  });

  test("is adopted once, by whoever comes first, while each keeps its own", async () => {
    for (let index = 0; index < 4; index += 1)
      await leaveBehind(25, { limits: { maxBytes: 16_000 } });
    const stores = Array.from({ length: 4 }, () => open().store);
    stores.forEach((store, index) => store.add(span(1_000 + index, "A")));
    const adopted = (): number => stores.reduce((sum, store) => sum + store.counts.adopted, 0);
    await until(() => adopted() === 100);
    const names = (await Promise.all(stores.map(takeAll))).flat();
    expect(names).toHaveLength(104);
    expect(names.filter((name) => name.startsWith("100"))).toHaveLength(4);
    expect(adopted()).toBe(100);
  });

  test("is adopted by a neighbour that lives on", async () => {
    const { store } = open();
    await leaveBehind(3);
    await until(() => store.counts.adopted === 3);
    expect(await takeAll(store)).toHaveLength(3);
  });

  test("a torn last record is skipped and counted", async () => {
    await leaveBehind(5);
    const [file] = await segments();
    await truncate(file!, (await stat(file!)).size - 10);
    const { store, events } = open();
    await until(() => store.counts.adopted === 4);
    expect(store.counts).toMatchObject({ torn: 1, dropped: 0 });
    expect(events).toEqual([{ kind: "adopted", records: 4, torn: 1 }]);
    expect(await takeAll(store)).toEqual(["0A", "1A", "2A", "3A"]);
  });

  test("zeros at the end, as after a power cut, are skipped and counted", async () => {
    await leaveBehind(2);
    const [file] = await segments();
    await appendFile(file!, Buffer.alloc(4_096));
    const { store } = open();
    await until(() => store.counts.torn === 1);
    expect(await takeAll(store)).toEqual(["0A", "1A"]);
  });

  test.each([
    ["a record", 60, "0A 1A 3A 4A", 1],
    ["a length that is too large by far", 3, "0A 1A 3A 4A", 1],
    ["a length that ends in another record", 0, "0A 1A 3A 4A", 1],
    ["the length of the last record but one", 131 + 3, "0A 1A 2A 4A", 1],
    ["a record and the one behind it", [60, 131 + 60], "0A 1A 4A", 2],
    // Nothing tells how many these were.
    ["a record and the length of the one behind it", [60, 131 + 1], "0A 1A 4A", 1],
    ["all that is left", [60, 131 + 60, 262 + 60], "0A 1A", 3],
  ])(
    "%s that is damaged is skipped, with a number and a word, and the rest is sent",
    async (_name, at, left, lost) => {
      await leaveBehind(5);
      const [file] = await segments();
      const bytes = await readFile(file!);
      for (const offset of [at].flat()) {
        const position = 8 + 2 * 131 + offset;
        bytes.writeUInt8(bytes.readUInt8(position) ^ 0x2d, position);
      }
      await writeFile(file!, bytes);
      const { store, events } = open();
      await until(() => store.counts.adopted > 0);
      expect((await takeAll(store)).join(" ")).toEqual(left);
      expect(store.counts.dropped).toBe(lost);
      const records = left.split(" ").length;
      expect(store.counts.adopted).toBe(records + lost);
      expect(store.pending).toEqual({ records: 0, bytes: 0, oldest: undefined });
      const said = events.filter((event) => event.kind === "unreadable");
      expect(said.reduce((sum, { records }) => sum + records, 0)).toBe(lost);
      expect(said.reduce((sum, event) => sum + event.bytes, 0)).toBe((5 - records) * 131);
      await until(async () => (await segments()).length === 0);
    },
  );

  test("a damaged part is skipped in large files too, whatever is in it", async () => {
    const { store: first } = open({ limits: { maxBytes: 1_000_000_000 } });
    for (let trace = 0; trace < 12; trace += 1) first.add(span(trace, "A", 300_000));
    await first.recorded();
    await first.close();
    const [file] = await segments();
    const bytes = await readFile(file!);
    // Two records and the beginning of a third.
    bytes.fill(0, 8 + 300_031 * 3 + 2, 8 + 300_031 * 5 + 50);
    await writeFile(file!, bytes);
    const { store } = open();
    await until(() => store.counts.adopted > 0);
    const names = await takeAll(store);
    expect(names).toEqual([0, 1, 2, 6, 7, 8, 9, 10, 11].map((trace) => `${trace}A`));
    expect(store.counts.dropped).toBeGreaterThanOrEqual(1);
    expect(store.pending).toEqual({ records: 0, bytes: 0, oldest: undefined });
  });

  test("a file that is none of ours is left aside", async () => {
    await leaveBehind(1);
    const [file] = await segments();
    await writeFile(file!, "from another version");
    const { store, events } = open();
    await until(() => events.some(({ kind }) => kind === "foreign"));
    const names = await readdir(join(spool.base, "spans"), { recursive: true });
    expect(names.some((name) => name.endsWith(".seg.unknown"))).toBe(true);
    store.add(span(1, "A"));
    expect(await takeAll(store)).toEqual(["1A"]);
  });

  test("what a process had in hand when it called process.exit() is there", async () => {
    const child = spawn(
      process.execPath,
      [
        "--input-type=module",
        "--eval",
        `import { createDiskStore } from ${JSON.stringify(dist("observability/delivery/disk-store.js"))};
         const store = createDiskStore({ folder: ${JSON.stringify(join(spool.base, "spans"))}, deadLetterFolder: "",
           fsync: false, onEvent() {}, onAdopted() {} });
         const add = (n) => store.add({ traceId: "0".repeat(31) + n, root: true, bytes: Buffer.from(n + "A") });
         add("1");
         await store.recorded();
         add("2");
         process.exit(0);`,
      ],
      { stdio: "inherit" },
    );
    await once(child, "exit");
    const { store } = open();
    await until(() => store.counts.adopted === 2);
    expect(await takeAll(store)).toEqual(["1A", "2A"]);
  });
});

describe("bounds", () => {
  test("past the bytes allowed the oldest whole traces go, and are counted", async () => {
    const { store, events } = open({ limits: { maxBytes: 64_000 } });
    // Two spans of each trace, the second long after the first.
    for (let round = 0; round < 2; round += 1) {
      for (let trace = 0; trace < 200; trace += 1) {
        store.add(span(trace, round === 0 ? "a" : "A", 300));
        if (trace % 20 === 0) await store.recorded();
      }
    }
    await store.recorded();
    store.add(span(999, "A"));
    await store.recorded();
    const names = await takeAll(store);
    expect(names.at(-1)).toBe("999A");
    expect(store.counts.dropped).toBe(401 - names.length);
    expect(store.counts.dropped).toBeGreaterThan(100);
    const roots = names.filter((name) => name.endsWith("A")).map((name) => name.slice(0, -1));
    const children = names.filter((name) => name.endsWith("a")).map((name) => name.slice(0, -1));
    // A trace is there as a whole or not at all.
    expect(children.toSorted()).toEqual(roots.filter((root) => root !== "999").toSorted());
    expect(events.filter(({ kind }) => kind === "dropped")).toHaveLength(
      new Set(events.map((event) => ("why" in event ? event.why : ""))).size,
    );
  });

  test("disk use stays within the limit while nothing is sent", async () => {
    const { store } = open({ limits: { maxBytes: 320_000 } });
    let most = 0;
    for (let trace = 0; trace < 1_500; trace += 1) {
      store.add(span(trace, "A", 1_000));
      if (trace % 25 !== 0) continue;
      await store.recorded();
      const sizes = await Promise.all((await segments()).map((file) => sizeOf(file)));
      most = Math.max(
        most,
        sizes.reduce((sum, size) => sum + size, 0),
      );
    }
    // One file more than the limit, while the oldest is being removed.
    expect(most).toBeLessThan(320_000 * 1.25);
    expect((await takeAll(store)).at(-1)).toBe("1499A");
  });

  test("what is too old goes", async () => {
    const { store } = open({ limits: { maxAgeMs: 600_000 } });
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() - 3_600_000 });
    store.add(span(1, "A"));
    vi.useRealTimers();
    store.add(span(2, "A"));
    expect(await takeAll(store)).toEqual(["2A"]);
    expect(store.counts.dropped).toBe(1);
  });

  test("a record that is too large goes, and no other", async () => {
    const { store, events } = open({ limits: { maxRecordBytes: 1_000 } });
    store.add(span(1, "a", 1_001));
    store.add(span(1, "A", 1_000));
    expect(await takeAll(store)).toEqual(["1A"]);
    expect(events).toMatchObject([{ kind: "dropped", records: 1 }]);
  });
});

describe("a disk that takes nothing", () => {
  test("said once; records wait in memory, and go to the disk when it is back", async () => {
    await writeFile(join(spool.base, "spans"), "a file in the way");
    const { store, events } = open();
    for (const name of ["a", "b", "A"]) store.add(span(1, name));
    await until(() => events.length > 0);
    store.add(span(2, "A"));
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(events).toMatchObject([{ kind: "away" }]);
    expect(store.pending.records).toBe(4);
    const batch = await store.take({ maxRecords: 2, maxBytes: 1_000 });
    expect(batch?.records.map(nameOf)).toEqual(["1a", "1b"]);
    await rm(join(spool.base, "spans"));
    await until(() => events.some(({ kind }) => kind === "back"));
    // One file of what is under way, and one of what waits.
    await until(async () => (await segments()).length === 2);
    batch?.settle(batch.records);
    expect(await takeAll(store)).toEqual(["1a", "1b", "1A", "2A"]);
    expect(store.counts.dropped).toBe(0);
  });

  test("what waited goes to the disk in the order it came, with what comes meanwhile behind it", async () => {
    await writeFile(join(spool.base, "spans"), "a file in the way");
    const { store, events } = open();
    await until(() => events.length > 0);
    let count = 0;
    const addSome = (records: number): void => {
      for (let end = count + records; count < end; count += 1) store.add(span(count, "A", 1_000));
    };
    addSome(10_000);
    await rm(join(spool.base, "spans"));
    while (!events.some(({ kind }) => kind === "back")) {
      addSome(10);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    addSome(10);
    await store.recorded();
    expect(events.map(({ kind }) => kind)).toEqual(["away", "back"]);
    const onDisk = (await Promise.all((await segments()).map((file) => sizeOf(file)))).reduce(
      (sum, size) => sum + size,
      0,
    );
    expect(onDisk).toBeGreaterThan(count * 1_000);
    const names = await takeAll(store);
    expect(names).toEqual(Array.from({ length: count }, (_, trace) => `${trace}A`));
  });

  test("a store that is closed with very much in memory leaves all of it on disk", async () => {
    await writeFile(join(spool.base, "spans"), "a file in the way");
    const { store, events } = open({ retryMs: 60_000 });
    await until(() => events.length > 0);
    const count = 180_000;
    for (let trace = 0; trace < count; trace += 1) store.add(span(trace, "A"));
    await rm(join(spool.base, "spans"));
    await store.close();
    expect(store.counts).toMatchObject({ left: count, dropped: 0 });
  });

  test("a disk that cannot keep up: what did not fit into its queue is written in the end", async () => {
    const { store, events } = open();
    await store.recorded();
    // More than may be on its way to the disk, in one go.
    for (let trace = 0; trace < 45; trace += 1) store.add(span(trace, "A", 1_000_000));
    await until(async () => {
      const sizes = await Promise.all((await segments()).map((file) => sizeOf(file)));
      return sizes.reduce((sum, size) => sum + size, 0) > 45_000_000;
    });
    expect(events).toEqual([]);
    expect(await takeAll(store)).toEqual(Array.from({ length: 45 }, (_, trace) => `${trace}A`));
  });

  test("memory is bounded too: the oldest whole traces go", async () => {
    await writeFile(join(spool.base, "spans"), "a file in the way");
    const { store, events } = open({ limits: { memory: { maxRecords: 20, maxBytes: 10_000 } } });
    await until(() => events.length > 0);
    for (let trace = 0; trace < 100; trace += 1) {
      store.add(span(trace, "a"));
      store.add(span(trace, "A"));
    }
    const names = await takeAll(store);
    expect(names.length).toBeLessThanOrEqual(20);
    expect(names.slice(-2)).toEqual(["99a", "99A"]);
    expect(names.length % 2).toBe(0);
    expect(store.counts.dropped).toBe(200 - names.length);
  });

  test("a folder that is taken away is made again, and what it held is counted", async () => {
    const { store, events } = open();
    store.add(span(1, "A"));
    await store.recorded();
    const first = await store.take({ maxRecords: 1, maxBytes: 1_000 });
    first?.settle([]);
    await until(async () => (await segments()).length === 0);
    await rm(join(spool.base, "spans"), { recursive: true });
    store.add(span(2, "A"));
    await until(() => events.some(({ kind }) => kind === "back"));
    expect(await takeAll(store)).toEqual(["2A"]);
    store.add(span(3, "A"));
    await store.recorded();
    await until(async () => (await segments()).length === 1);
    expect(await takeAll(store)).toEqual(["3A"]);
  });

  test("a file system that is full: what fits is on disk, the rest in memory, nothing is lost", async () => {
    // A limit on the size of files stands for a full disk: a write is cut short, the next one fails.
    const script = `
      import { createDiskStore } from ${JSON.stringify(dist("observability/delivery/disk-store.js"))};
      const events = [];
      const store = createDiskStore({ folder: ${JSON.stringify(join(spool.base, "spans"))}, deadLetterFolder: "",
        fsync: false, retryMs: 20, onEvent: (event) => events.push(event.kind), onAdopted() {} });
      for (let n = 0; n < 200; n += 1) {
        store.add({ traceId: String(n).padStart(32, "0"), root: true, bytes: Buffer.alloc(1000, n) });
        if (n % 7 === 0) await store.recorded();
      }
      while (events.length === 0) await new Promise((resolve) => setTimeout(resolve, 20));
      await new Promise((resolve) => setTimeout(resolve, 100));
      let taken = 0;
      const first = await store.take({ maxRecords: 1000, maxBytes: 1e9 });
      for (let n = 0; n < first.records.length; n += 1) taken += first.records[n].bytes.every((b) => b === n % 256);
      first.settle([]);
      console.log(JSON.stringify({ taken, events, pending: store.pending.records, dropped: store.counts.dropped }));
      process.exit(0);`;
    const child = spawn(
      "sh",
      ["-c", 'ulimit -f 128; exec "$0" --input-type=module --eval "$1"', process.execPath, script],
      { stdio: ["ignore", "pipe", "inherit"] },
    );
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    await once(child, "close");
    expect(JSON.parse(output)).toEqual({
      taken: 200,
      events: ["away"],
      pending: 0,
      dropped: 0,
    });
  });
});

test.each([1, 2, 3, 4])(
  "whatever happens in whatever order, all comes out (seed %i)",
  async (seed) => {
    let state = seed;
    const random = (below: number): number => {
      state = (state * 1_103_515_245 + 12_345) % 0x8000_0000;
      return Math.floor((state / 0x8000_0000) * below);
    };
    let { store } = open({ limits: { maxBytes: 10_000_000 } });
    const put = new Set<string>();
    const out = new Set<string>();
    const batches: NonNullable<Awaited<ReturnType<RecordStore["take"]>>>[] = [];
    const settle = (batch: (typeof batches)[number], left: readonly StoredRecord[]): void => {
      const again = new Set(left);
      for (const record of batch.records) if (!again.has(record)) out.add(nameOf(record));
      batch.settle(left);
    };
    const steps: (() => void | Promise<void>)[] = [
      () => {
        for (let count = random(40); count > 0; count -= 1) {
          const name = `${String.fromCodePoint(97 + random(26))}${put.size}`;
          const record = span(
            random(9),
            random(5) === 0 ? name.toUpperCase() : name,
            50 + random(3_000),
          );
          put.add(nameOf({ ...record, time: 0 }));
          store.add(record);
        }
      },
      async () => {
        const batch = await store.take({ maxRecords: 1 + random(30), maxBytes: 20_000 });
        if (batch !== undefined) batches.push(batch);
      },
      () => {
        const [batch] = batches.splice(random(batches.length), 1);
        if (batch !== undefined)
          settle(batch, batch.records.slice(0, random(batch.records.length + 1)));
      },
      () => {
        const [batch] = batches.splice(random(batches.length), 1);
        if (batch !== undefined) settle(batch, []);
      },
      async () => {
        if (random(8) > 0) return;
        batches.length = 0;
        await store.close();
        ({ store } = open({ limits: { maxBytes: 10_000_000 } }));
      },
    ];
    for (let step = 0; step < 300; step += 1) await steps[random(steps.length)]?.();
    for (const batch of batches) settle(batch, []);
    await until(async () => {
      for (const name of await takeAll(store)) out.add(name);
      return out.size === put.size;
    });
    expect(put.size).toBeGreaterThan(500);
    expect(store.pending).toEqual({ records: 0, bytes: 0, oldest: undefined });
    await until(async () => (await segments()).length === 0);
  },
);

test("a store that is closed before it is open leaves nothing", async () => {
  const { store } = open();
  await store.close();
  await store.close();
  expect(
    existsSync(join(spool.base, "spans")) ? await readdir(join(spool.base, "spans")) : [],
  ).toEqual([]);
});

function dist(path: string): string {
  return fileURLToPath(new URL(`../../dist/${path}`, import.meta.url));
}

async function sizeOf(path: string): Promise<number> {
  return stat(path).then(
    ({ size }) => size,
    () => 0,
  );
}
