import { mkdtemp, readdir, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

import { createTypeSchemaCache, toCacheKey, toHash } from "./type-schema-cache.ts";

let dir: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "aegra-schemas-"));
});
afterEach(() => rm(dir, { recursive: true, force: true }));

const open = (cwd = dir) => createTypeSchemaCache(join(cwd, "data", "schemas"), cwd);
const graphIn = (cwd: string) => ({ path: join(cwd, "agent.ts"), exportName: "graph" });
const schemas = { graph: { input: { type: "object", properties: { city: {} } } } };

async function save(): Promise<void> {
  await writeFile(join(dir, "agent.ts"), "one");
  await writeFile(join(dir, "types.ts"), "types");
  const inputs = {
    [join(dir, "agent.ts")]: toHash("one"),
    [join(dir, "types.ts")]: toHash("types"),
  };
  await open().save(graphIn(dir), "extractor 1.5.1", { schemas, inputs });
}

test("holds while the files it comes from and the versions are the same", async () => {
  await save();
  const load = (versions?: string) => open().load(graphIn(dir), versions);
  expect(await load("extractor 1.5.1")).toEqual(schemas);
  expect(await load()).toEqual(schemas);
  expect(await load("extractor 1.5.2")).toBeUndefined();
  expect(await open().load({ ...graphIn(dir), exportName: "other" })).toBeUndefined();

  await writeFile(join(dir, "types.ts"), "other types");
  expect(await load()).toBeUndefined();
  await writeFile(join(dir, "types.ts"), "types");
  expect(await load()).toEqual(schemas);
  await rm(join(dir, "types.ts"));
  expect(await load()).toBeUndefined();
});

test("moves with its project, and is for nobody else", async () => {
  await save();
  const folder = join(dir, "data", "schemas");
  const [file = "", ...others] = await readdir(folder);
  expect(others).toEqual([]);
  expect((await stat(join(folder, file))).mode & 0o777).toBe(0o600);
  const moved = `${dir}-moved`;
  await rename(dir, moved);
  try {
    expect(await open(moved).load(graphIn(moved))).toEqual(schemas);
  } finally {
    await rename(moved, dir);
  }
});

test("a key is a graph's place in its project, and its export", () => {
  const key = toCacheKey(graphIn("/a"), "/a");
  expect(toCacheKey(graphIn("/b"), "/b")).toBe(key);
  expect(toCacheKey({ ...graphIn("/a"), exportName: "other" }, "/a")).not.toBe(key);
  expect(toCacheKey({ ...graphIn("/a"), path: "/a/lib/agent.ts" }, "/a")).not.toBe(key);
});

test("a damaged file is none", async () => {
  await save();
  const file = join(dir, "data", "schemas", `${toCacheKey(graphIn(dir), dir)}.json`);
  for (const content of ["", "{", "{}", '{"versions":"1","inputs":{},"schemas":{"graph":[]}}']) {
    await writeFile(file, content);
    expect(await open().load(graphIn(dir))).toBeUndefined();
  }
});

test("one process at a time extracts a graph, and one that was killed is waited for only so long", async () => {
  const release = await open().claim(graphIn(dir), 60_000);
  expect(await open().claim(graphIn(dir), 60_000)).toBeUndefined();
  await release?.();
  expect(await open().claim(graphIn(dir), 60_000)).toBeDefined();
  const path = join(dir, "data", "schemas", `${toCacheKey(graphIn(dir), dir)}.json.claim`);
  const longAgo = new Date(Date.now() - 61_000);
  await utimes(path, longAgo, longAgo);
  expect(await open().claim(graphIn(dir), 60_000)).toBeDefined();
});
