import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadGraphs } from "../../src/graphs/load.ts";
import { createGraphRegistry } from "../../src/graphs/registry.ts";
import { createTestDatabases } from "../support/databases.ts";
import { startServer } from "../support/server.ts";
import { GRAPHS, differences, openGraphs, record } from "./both.ts";
import { introspectionCases } from "./cases/introspection.ts";
import { protocolCases } from "./cases/protocol.ts";
import { refusalCases } from "./cases/refusals.ts";
import { resourceCases } from "./cases/resources.ts";
import { runCases } from "./cases/runs.ts";
import { statelessCases } from "./cases/stateless.ts";
import { streamCases } from "./cases/streams.ts";
import { matches, type Difference } from "./compare.ts";
import { INTENDED } from "./intended.ts";
import { ORACLE_MODULES, installOracle, startOracle } from "./oracle.ts";

const OUR_MODULES = fileURLToPath(new URL("../../node_modules", import.meta.url));
const INSTALL_MS = 600_000;
/** Enough for every run of the suite that waits for another. */
const RUNS_AT_ONCE = 40;

/** What was opened, to be closed last first. A hook that is registered while another runs would never run. */
const opened: { close(): Promise<void> }[] = [];
afterAll(async () => {
  for (const one of opened.splice(0).toReversed()) await one.close();
});

describe("the official dev server and this one", () => {
  const databases = createTestDatabases("pglite");
  let found: Difference[] = [];

  beforeAll(async () => {
    await installOracle();
    const [official, ours] = await Promise.all([startOfficial(), startOurs()]);
    // The official server changes a graph in place for a run without a thread, under the feet of others.
    const threaded = {
      ...streamCases,
      ...runCases,
      ...resourceCases,
      ...refusalCases,
      ...introspectionCases,
      ...protocolCases,
    };
    for (const cases of [threaded, statelessCases]) {
      const [theirs, own] = await Promise.all([record(official, cases), record(ours, cases)]);
      found = [...found, ...differences(theirs, own)];
    }
  }, INSTALL_MS);

  async function startOurs(): Promise<string> {
    const project = await openGraphs(OUR_MODULES);
    opened.push(project);
    const specs = GRAPHS.map((name) => ({
      id: name,
      path: `${project.dir}/graphs.ts`,
      exportName: name,
    }));
    const graphs = createGraphRegistry(await loadGraphs(specs, { cwd: project.dir }));
    expect(graphs.failures()).toEqual([]);
    const { url } = await startServer(databases, graphs, {
      config: { workers: { concurrency: RUNS_AT_ONCE, graceMs: 0 } },
    });
    return url;
  }

  it("answer the same, but for what is intended", () => {
    expect(found.filter(({ at }) => at.endsWith("(the case failed)"))).toEqual([]);
    const unintended = found.filter(
      (difference) => !INTENDED.some((entry) => covers(entry, difference)),
    );
    expect(unintended.map(describeDifference).join("\n")).toBe("");
  });

  it.each(INTENDED)("differ in $id, as intended", (entry) => {
    expect(found.filter((difference) => covers(entry, difference))).not.toEqual([]);
  });
});

async function startOfficial(): Promise<string> {
  const project = await openGraphs(ORACLE_MODULES);
  opened.push(project);
  const oracle = await startOracle({
    cwd: project.dir,
    graphs: Object.fromEntries(GRAPHS.map((name) => [name, `./graphs.ts:${name}`])),
    workers: RUNS_AT_ONCE,
  });
  opened.push(oracle);
  return oracle.url;
}

it("docs/compatibility.md lists what is intended, and nothing else", async () => {
  const page = await readFile(new URL("../../docs/compatibility.md", import.meta.url), "utf8");
  const listed = [...page.matchAll(/^\| `([a-z0-9-]+)` +\|/gm)].map(([, id]) => id);
  expect(new Set(listed)).toEqual(new Set(INTENDED.map(({ id }) => id)));
});

function covers(entry: (typeof INTENDED)[number], difference: Difference): boolean {
  return (
    entry.at.some((pattern) => matches(difference.at, pattern)) &&
    (entry.when?.(difference) ?? true)
  );
}

function describeDifference({ at, official, ours }: Difference): string {
  return `${at}\n    official: ${shorten(official)}\n    ours:     ${shorten(ours)}`;
}

function shorten(value: unknown): string {
  return JSON.stringify(value).slice(0, 400);
}
