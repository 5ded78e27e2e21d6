import { copyFile, mkdtemp, realpath, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { compare, type Difference } from "./compare.ts";
import { normalise } from "./normalise.ts";
import { Probe } from "./probe.ts";
import type { Cases } from "./cases/case.ts";

/** The graphs both servers serve, by the name under which they are exported. */
export const GRAPHS = [
  "steps",
  "chat",
  "delegate",
  "approval",
  "nested",
  "failing",
  "endless",
  "slow",
  "custom",
  "routed",
  "inspect",
  "memory",
  "factory",
  "tools",
  "typed",
] as const;

/** How many cases are under way at the same time. */
const AT_ONCE = 24;

const SOURCE = fileURLToPath(new URL("graphs/graphs.ts", import.meta.url));

/** A folder with a copy of the graphs, which resolves packages from `modules`. Whoever opened it closes it. */
export async function openGraphs(
  modules: string,
): Promise<{ dir: string; close: () => Promise<void> }> {
  const dir = await realpath(await mkdtemp(join(tmpdir(), "aegra-differential-")));
  await symlink(modules, join(dir, "node_modules"), "dir");
  await writeFile(join(dir, "package.json"), JSON.stringify({ name: "graphs", type: "module" }));
  await copyFile(SOURCE, join(dir, "graphs.ts"));
  return { dir, close: () => rm(dir, { recursive: true, force: true }) };
}

/** What each case recorded on the server at `url`; a case that threw has its error instead. */
export async function record(url: string, cases: Cases): Promise<Map<string, unknown>> {
  const recordings = new Map<string, unknown>();
  const waiting = Object.entries(cases);
  const work = async (): Promise<void> => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      const [name, run] = next;
      const probe = new Probe(url);
      try {
        await run(probe);
      } catch (error) {
        probe.record("(the case failed)", String(error));
      }
      recordings.set(name, normalise(probe.recording, GRAPHS, probe.known));
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return recordings;
}

/** All differences between what two servers answered. */
export function differences(
  official: Map<string, unknown>,
  ours: Map<string, unknown>,
): Difference[] {
  return [...official].flatMap(([name, recording]) => compare(recording, ours.get(name), name));
}
