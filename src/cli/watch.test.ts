import { mkdir, mkdtemp, realpath, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

import { eventually } from "../../test/fixtures/cli.ts";
import { watchTree } from "./watch.ts";
import type { TreeWatcher } from "./watch.ts";

let root: string;
let watcher: TreeWatcher;
let seen: Set<string>;

beforeEach(async () => {
  root = await realpath(await mkdtemp(join(tmpdir(), "aegra-watch-")));
  seen = new Set();
});

afterEach(async () => {
  watcher.close();
  await rm(root, { recursive: true, force: true });
});

function start(): void {
  watcher = watchTree(root, {
    quietMs: 20,
    onChange: (paths) => {
      for (const path of paths) seen.add(path.slice(root.length + 1));
    },
    onProblem: (_, error) => {
      throw error;
    },
  });
}

function arrival(path: string): Promise<true> {
  return eventually(`a report of ${path}`, () => (seen.has(path) ? true : undefined));
}

test("reports files in folders that were there, and in folders that come", async () => {
  await mkdir(join(root, "a/b"), { recursive: true });
  start();
  await writeFile(join(root, "a/b/old.ts"), "1");
  await arrival("a/b/old.ts");
  // The file may be there before the new folder can be watched.
  for (let i = 0; i < 20; i++) {
    await mkdir(join(root, `new${i}/deep/deeper`), { recursive: true });
    await writeFile(join(root, `new${i}/deep/deeper/file.ts`), "1");
  }
  for (let i = 0; i < 20; i++) await arrival(`new${i}/deep/deeper/file.ts`);
  seen.clear();
  await writeFile(join(root, "new7/deep/deeper/file.ts"), "2");
  await arrival("new7/deep/deeper/file.ts");
});

test("a folder that is deleted and comes back is watched again", async () => {
  await mkdir(join(root, "a"));
  start();
  for (let i = 0; i < 3; i++) {
    await rm(join(root, "a"), { recursive: true });
    await mkdir(join(root, "a"));
    seen.clear();
    await writeFile(join(root, "a/file.ts"), "1");
    await arrival("a/file.ts");
  }
});

test("packages, build output and hidden folders are not looked into", async () => {
  const hidden = ["node_modules", "dist", ".aegra", ".git", "a/node_modules"];
  for (const name of hidden) await mkdir(join(root, name), { recursive: true });
  start();
  for (const name of hidden) await writeFile(join(root, name, "file.ts"), "1");
  await mkdir(join(root, "build"));
  await writeFile(join(root, "build/file.ts"), "1");
  // Changes are reported in their order, so after this one the others would have been there.
  await writeFile(join(root, "a/last.ts"), "1");
  await arrival("a/last.ts");
  expect([...seen].filter((path) => path.endsWith("file.ts"))).toEqual([]);
  await writeFile(join(root, ".env"), "A=1");
  await arrival(".env");
});

test("a file that never stops changing does not keep the others back", async () => {
  start();
  let writing = Promise.resolve();
  const noise = setInterval(() => {
    writing = writing.then(() => writeFile(join(root, "noise.log"), "x"));
  }, 5);
  await writeFile(join(root, "file.ts"), "1");
  await arrival("file.ts").finally(() => clearInterval(noise));
  // Or it would write into the folder that is being removed.
  await writing;
});
