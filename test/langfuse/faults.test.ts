import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { until, type ChildServer } from "../support/child-server.ts";
import {
  openLangfuseReceiver,
  type Behaviour,
  type LangfuseReceiver,
} from "../support/langfuse-receiver.ts";
import {
  createTracedProject,
  missing,
  runOnce,
  type TracedProject,
} from "../support/traced-project.ts";

/*
 * One real server under one fault of Langfuse after the other. During each, runs succeed and nobody waits; after
 * each, every trace is whole. The long form, with a table, is `npm run faults`.
 */

const RUNS = 8;

interface Tracing {
  state: string;
  spans: { made: number; sent: number; pending: number; dropped: number };
  delivery: { spool: string; retried: number; dead_lettered: number; pending_bytes: number };
}

let receiver: LangfuseReceiver;
let project: TracedProject;
let server: ChildServer;
beforeAll(async () => {
  receiver = await openLangfuseReceiver();
  // An answer that is merely late must not look like a fault of its own.
  project = await createTracedProject(receiver, { LANGFUSE_TIMEOUT: "2" });
  server = await project.start();
});
afterEach(() => receiver.behave({ kind: "accept" }));
afterAll(async () => {
  await server.kill();
  await receiver.close();
  await project.remove();
});

function runMany(count: number): Promise<string[]> {
  return Promise.all(Array.from({ length: count }, () => runOnce(server, "quick")));
}

async function tracing(): Promise<Tracing> {
  const info = (await (await fetch(`${server.url}/info`)).json()) as { tracing: Tracing[] };
  return info.tracing[0]!;
}

/** Everything arrived, nothing twice in two ways, nothing is left. */
async function expectWhole(traceIds: readonly string[], dropped = 0): Promise<void> {
  await until(
    async () => (missing(receiver.spans, traceIds).length === 0 ? true : undefined),
    "every trace to be whole",
  );
  await until(
    async () => ((await tracing()).spans.pending === 0 ? true : undefined),
    "nothing to be left",
  );
  expect((await tracing()).spans.dropped).toBe(dropped);
  expect(receiver.violations()).toEqual([]);
}

const FAULTS: [string, Behaviour][] = [
  ["a hang", { kind: "hang" }],
  ["an answer slower than the timeout", { kind: "slow", ms: 6_000 }],
  ["401", { kind: "status", status: 401 }],
  ["403", { kind: "status", status: 403 }],
  ["408", { kind: "status", status: 408 }],
  ["429", { kind: "status", status: 429 }],
  ["429 with Retry-After", { kind: "status", status: 429, retryAfter: "1" }],
  ["500", { kind: "status", status: 500 }],
  ["502 with a proxy's page", { kind: "status", status: 502, body: "<html>Bad gateway</html>" }],
  ["503 with Retry-After", { kind: "status", status: 503, retryAfter: "1" }],
  ["404, as from a wrong address", { kind: "status", status: 404 }],
  ["a login page instead of an answer", { kind: "page" }],
  ["a connection closed at once", { kind: "drop" }],
  ["a request read in half", { kind: "half-read" }],
  ["a 503 without reading the request", { kind: "unread", status: 503 }],
  ["an answer cut off after storing", { kind: "cut-answer" }],
  ["an answer lost after storing", { kind: "drop", after: "storing" }],
];

describe("Langfuse answers with", () => {
  test.each(FAULTS)("%s: no run notices, no trace is lost", async (_name, behaviour) => {
    receiver.behave(behaviour);
    const before = receiver.attempts();
    const traceIds = await runMany(RUNS);
    await until(
      async () => (receiver.attempts() >= before + 2 ? true : undefined),
      "the server to try twice",
    );
    expect((await tracing()).spans.pending).toBeGreaterThan(0);
    receiver.behave({ kind: "accept" });
    await expectWhole(traceIds);
  });

  test("413 for large requests: smaller ones arrive", async () => {
    receiver.behave({ kind: "limit", bytes: 20_000 });
    const traceIds = await runMany(RUNS * 2);
    await expectWhole(traceIds);
    expect(receiver.requests.some((request) => request.status === 413)).toBe(true);
  });

  test("now this, now that: no run notices, no trace is lost", async () => {
    const moods: Behaviour[] = [
      { kind: "drop" },
      { kind: "accept" },
      { kind: "status", status: 500 },
      { kind: "cut-answer" },
      { kind: "accept" },
      { kind: "half-read" },
    ];
    const traceIds: string[] = [];
    for (const mood of moods) {
      receiver.behave(mood);
      traceIds.push(...(await runMany(3)));
    }
    receiver.behave({ kind: "accept" });
    await expectWhole(traceIds);
  });
});

test("a refused connection: no run notices, no trace is lost", async () => {
  const { port } = receiver;
  await expectWhole([]);
  await receiver.close();
  const traceIds = await runMany(RUNS);
  await until(
    async () => ((await tracing()).state === "unreachable" ? true : undefined),
    "/info to say so",
  );
  receiver = await openLangfuseReceiver({ port });
  await expectWhole(traceIds);
});

test("a span Langfuse will not take goes to a file, with the answer, and no other does", async () => {
  receiver.behave({ kind: "refuse-span", name: "two" });
  const traceIds = await runMany(3);
  await until(
    async () => ((await tracing()).spans.pending === 0 ? true : undefined),
    "everything to be settled",
  );
  expect(new Set(missing(receiver.spans, traceIds))).toEqual(
    new Set(traceIds.map((traceId) => `${traceId}: no two`)),
  );
  expect((await tracing()).delivery).toMatchObject({ spool: "disk", dead_lettered: 3 });
  const folder = join(project.folder, ".aegra", "traces", "langfuse", "spans-dead-letters");
  expect(await readdir(folder)).toHaveLength(3);

  const listed = await project.traces("dead-letters");
  expect(listed.code).toBe(0);
  for (const traceId of traceIds) expect(listed.output).toContain(traceId);
  expect(listed.output).toContain("HTTP 400");
  receiver.behave({ kind: "accept" });
  expect((await project.traces("replay")).output).toContain(
    "3 dead letters are in the spool again",
  );
  expect(await readdir(folder)).toEqual([]);
  expect(await project.traces("flush")).toMatchObject({ code: 0 });
  // For this process they were given up.
  await expectWhole(traceIds, 3);
});

test("one line in the log for each change, not for each batch", () => {
  const lines = server.output().split("\n");
  const down = lines.filter((line) => /does not accept traces|refuses the traces/.test(line));
  const up = lines.filter((line) => /accepts traces again|is back/.test(line));
  // The mood test may change a few times; everything else is one change there and one back.
  expect(down.length).toBeGreaterThan(10);
  expect(down.length).toBeLessThan(FAULTS.length + 12);
  expect(Math.abs(down.length - up.length)).toBeLessThan(4);
});

test("the command line tells what waits, and sends it where no server does", async () => {
  expect((await project.traces("status")).output).toContain(`of process ${server.process.pid}`);
  receiver.behave({ kind: "status", status: 503 });
  const traceIds = await runMany(3);
  await server.kill();
  expect((await project.traces("status")).output).toMatch(/12 wait .* of a process that is gone/su);
  expect(await project.traces("flush", "--timeout", "5")).toMatchObject({
    code: 1,
    output: expect.stringContaining("0 sent, 12 left") as string,
  });
  receiver.behave({ kind: "accept" });
  expect(await project.traces("flush")).toMatchObject({
    code: 0,
    output: expect.stringContaining("12 sent, 0 left") as string,
  });
  expect(missing(receiver.spans, traceIds)).toEqual([]);
  expect((await project.traces("status")).output).toContain("nothing waits");
  expect(await project.traces("dead-letters", "--json")).toMatchObject({ code: 0, output: "[]\n" });
  server = await project.start();
});

test("addresses that cannot work, killed processes, then the right address: all is there", async () => {
  await server.kill("SIGTERM");
  const traceIds: string[] = [];
  const addresses = {
    "a name nobody knows": "http://langfuse.invalid",
    "no TLS where it should be": receiver.url.replace("http:", "https:"),
  };
  for (const address of Object.values(addresses)) {
    server = await project.start({ LANGFUSE_HOST: address });
    traceIds.push(...(await runMany(4)));
    await until(
      async () => ((await tracing()).state === "unreachable" ? true : undefined),
      "/info to say so",
    );
    await server.kill();
  }
  server = await project.start({ LANGFUSE_SECRET_KEY: "wrong" });
  traceIds.push(...(await runMany(4)));
  await until(
    async () => ((await tracing()).state === "misconfigured" ? true : undefined),
    "/info to say so",
  );
  await server.kill();
  server = await project.start();
  await expectWhole(traceIds);
});

test("a spool that cannot be written: runs go on, traces arrive, the log says so", async () => {
  await server.kill("SIGTERM");
  const file = join(project.folder, "in-the-way");
  await writeFile(file, "");
  server = await project.start({ AEGRA_TRACES_DIR: file });
  const traceIds = await runMany(RUNS);
  await expectWhole(traceIds);
  expect(server.output()).toContain("cannot be written");
});
