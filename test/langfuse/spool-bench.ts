import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect } from "vitest";
import {
  createDiskStore,
  type DiskStoreOptions,
} from "../../src/observability/delivery/disk-store.ts";
import type { StoreEvent } from "../../src/observability/delivery/limits.ts";
import type { RecordStore, StoredRecord } from "../../src/observability/delivery/record.ts";

/** A folder for every test, with stores in it that are closed after the test. To be called once, at the top of a file. */
export function useSpool() {
  const cleanups: (() => Promise<unknown>)[] = [];
  let base = "";
  beforeEach(async () => {
    base = await mkdtemp(join(tmpdir(), "aegra-spool-"));
  });
  afterEach(async () => {
    for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
    await rm(base, { recursive: true, force: true });
  });
  return {
    /** Run after the test, the last one first. */
    cleanups,
    get base() {
      return base;
    },
    open: (
      overrides: Partial<DiskStoreOptions> = {},
    ): { store: RecordStore; events: StoreEvent[] } => {
      const events: StoreEvent[] = [];
      const store = createDiskStore({
        folder: join(base, "spans"),
        deadLetterFolder: join(base, "dead-letters"),
        fsync: false,
        retryMs: 20,
        adoptMs: 50,
        onEvent: (event) => events.push(event),
        onAdopted: () => {},
        ...overrides,
      });
      cleanups.push(() => store.close());
      return { store, events };
    },
    /** The paths of the files, oldest first. */
    segments: async (): Promise<string[]> => {
      const names = await readdir(join(base, "spans"), { recursive: true }).catch(() => []);
      return names
        .filter((name) => name.endsWith(".seg"))
        .toSorted()
        .map((name) => join(base, "spans", name));
    },
  };
}

/** Span `name` of trace number `trace`; a capital is a root. */
export function span(trace: number, name: string, bytes = 100) {
  return {
    traceId: trace.toString(16).padStart(32, "0"),
    root: /^[A-Z]/.test(name),
    bytes: Buffer.from(`${trace}${name}`.padEnd(bytes, ".")),
  };
}

export const nameOf = ({ bytes }: StoredRecord): string => bytes.toString().replace(/\.+$/, "");

/** Takes and settles until nothing is left. */
export async function takeAll(store: RecordStore): Promise<string[]> {
  await store.recorded();
  const names: string[] = [];
  for (;;) {
    const batch = await store.take({ maxRecords: 100, maxBytes: 1_000_000 });
    if (batch === undefined) return names;
    names.push(...batch.records.map(nameOf));
    batch.settle([]);
  }
}

export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 6_000 && !(await condition()); tries += 1)
    await new Promise((resolve) => setTimeout(resolve, 10));
  expect(await condition()).toBe(true);
}
