import { readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { until, type ChildServer } from "../support/child-server.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import {
  createTracedProject,
  missing,
  runOnce,
  type TracedProject,
} from "../support/traced-project.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

async function setUp(
  env: Record<string, string | undefined>,
  settings: Record<string, unknown> = {},
): Promise<{ receiver: LangfuseReceiver; project: TracedProject; start: TracedProject["start"] }> {
  const receiver = await openLangfuseReceiver();
  cleanups.push(() => receiver.close());
  const project = await createTracedProject(receiver, env, settings);
  cleanups.push(() => project.remove());
  return {
    receiver,
    project,
    async start(overrides) {
      const server = await project.start(overrides);
      cleanups.push(() => server.kill());
      return server;
    },
  };
}

function runMany(server: ChildServer, count: number): Promise<string[]> {
  return Promise.all(Array.from({ length: count }, () => runOnce(server, "quick")));
}

async function expectWhole(receiver: LangfuseReceiver, traceIds: readonly string[]): Promise<void> {
  await until(
    async () => (missing(receiver.spans, traceIds).length === 0 ? true : undefined),
    `every trace to be whole; missing: ${missing(receiver.spans, traceIds).join("; ")}`,
    100_000,
  );
}

describeDatabases("the traces of a killed process", (databases) => {
  it("arrive after the next start, the run's that was cut off among them", async () => {
    const { databaseUrl, dataDir } = await databases.configure();
    const { receiver, start } = await setUp({ DATABASE_URL: databaseUrl, AEGRA_DATA_DIR: dataDir });
    receiver.behave({ kind: "status", status: 500 });
    const first = await start({ HOLD: "two" });
    const done = await runMany(first, 8);
    const { thread_id: threadId } = await first.client.threads.create();
    const { run_id: runId } = await first.client.runs.create(threadId, "slow", {
      input: { input: "x" },
    });
    await until(async () => {
      const state = await first.client.threads.getState<{ trail?: string[] }>(threadId);
      return (state.values.trail ?? []).length > 0 ? true : undefined;
    }, "the first node");
    await first.kill();
    expect(receiver.spans).toEqual([]);

    receiver.behave({ kind: "accept" });
    const second = await start();
    const ended = await until(async () => {
      const run = await second.client.runs.get(threadId, runId);
      return run.status === "success" ? run : undefined;
    }, "the run to end");
    expect(ended.status).toBe("success");
    const traceId = runId.replaceAll("-", "");
    await expectWhole(receiver, [...done, traceId]);
    expect(receiver.violations()).toEqual([]);
    const names = receiver.trace(traceId).map((span) => span.name);
    expect(names).toEqual(expect.arrayContaining(["attempt 1 lost", "attempt 2"]));
    expect(second.output()).toContain("that another process left are being sent");
    await until(async () => {
      const left = await readdir(join(dataDir, "traces", "langfuse", "spans"), { recursive: true });
      return left.some((name) => name.endsWith(".seg")) ? undefined : true;
    }, "the spool to be empty");
  });
});

describe("a process that is killed under load", () => {
  const databases = createTestDatabases("pglite");

  it("leaves the whole trace of every run it answered", async () => {
    const { dataDir } = await databases.configure();
    const { receiver, start } = await setUp({ AEGRA_DATA_DIR: dataDir });
    const answered: string[] = [];
    for (const behaviour of [{ kind: "accept" }, { kind: "hang" }] as const) {
      receiver.behave(behaviour);
      const server = await start();
      const before = answered.length;
      const load = Promise.allSettled(
        Array.from({ length: 6 }, async () => {
          for (;;) answered.push(await runOnce(server, "quick"));
        }),
      );
      await until(async () => (answered.length > before + 60 ? true : undefined), "some runs");
      await server.kill();
      await load;
    }
    receiver.behave({ kind: "accept" });
    await start();
    await expectWhole(receiver, answered);
    // What the first attempt of a run that was cut off had not ended has no parent. A root that was written and whose
    // result was not is never sent: the next attempt sends its own.
    const unexpected = () => receiver.violations().filter((text) => !text.includes("orphan"));
    // Runs that were not answered are still to be ended.
    await until(async () => (unexpected().includes("no root") ? undefined : true), "every root");
    expect(unexpected()).toEqual([]);
  }, 240_000);

  it("ends on time with a Langfuse that hangs, and leaves the rest for the next", async () => {
    const { dataDir } = await databases.configure();
    const { receiver, start } = await setUp({
      AEGRA_DATA_DIR: dataDir,
      BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS: "1",
      LANGFUSE_TIMEOUT: "60",
    });
    receiver.behave({ kind: "hang" });
    const first = await start();
    const traceIds = await runMany(first, 5);
    expect(await first.kill("SIGTERM")).toBe(0);
    expect(first.output()).toContain("wait on disk for the next start");
    expect(receiver.spans).toEqual([]);
    receiver.behave({ kind: "accept" });
    await start();
    await expectWhole(receiver, traceIds);
    expect(receiver.violations()).toEqual([]);
  });
});

describe("a process whose disk comes and goes, with a Langfuse that is down", () => {
  const databases = createTestDatabases("pglite");

  it("leaves all its traces to the next: those tried before the disk was back too", async () => {
    const { dataDir } = await databases.configure();
    const { receiver, start } = await setUp({
      AEGRA_DATA_DIR: dataDir,
      BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS: "1",
    });
    receiver.behave({ kind: "status", status: 503 });
    const folder = join(dataDir, "traces");
    await writeFile(folder, "a file in the way");
    const first = await start();
    const traceIds = await runMany(first, 5);
    await until(async () => (receiver.requests.length > 0 ? true : undefined), "a request");
    await rm(folder);
    const says = (text: string) => async () => (first.output().includes(text) ? true : undefined);
    await until(says("are written to"), "the disk to be back", 30_000);
    traceIds.push(await runOnce(first, "quick"));
    await rm(folder, { recursive: true });
    await until(says("its files were removed"), "the loss to be noticed", 30_000);
    traceIds.push(await runOnce(first, "quick"));
    expect(await first.kill("SIGTERM")).toBe(0);
    expect(first.output()).toContain("wait on disk for the next start");
    expect(first.output()).not.toContain("were not delivered");
    receiver.behave({ kind: "accept" });
    await start();
    await expectWhole(receiver, traceIds);
    expect(receiver.violations()).toEqual([]);
  }, 120_000);
});

describe("two processes of which one is killed", () => {
  const databases = createTestDatabases("postgres");

  /** One folder for both, or the database and a folder each that is as good as gone. */
  async function killOne(spool: "disk" | "database"): Promise<void> {
    const { databaseUrl, dataDir } = await databases.configure();
    const { receiver, project, start } = await setUp({
      DATABASE_URL: databaseUrl,
      AEGRA_TRACES_SPOOL: spool,
    });
    receiver.behave({ kind: "status", status: 503 });
    const folders = spool === "disk" ? [dataDir, dataDir] : [dataDir, project.folder];
    const [first, second] = await Promise.all(
      folders.map((folder, index) =>
        start({ AEGRA_DATA_DIR: folder, HOLD: index === 0 ? "two" : undefined }),
      ),
    );
    const traceIds = (
      await Promise.all([first!, second!].map((server) => runMany(server, 10)))
    ).flat();
    const { thread_id: threadId } = await first!.client.threads.create();
    const { run_id: runId } = await first!.client.runs.create(threadId, "slow", {
      input: { input: "x" },
    });
    await until(async () => {
      const state = await first!.client.threads.getState<{ trail?: string[] }>(threadId);
      return (state.values.trail ?? []).length > 0 ? true : undefined;
    }, "the first node");
    await first!.kill();
    receiver.behave({ kind: "accept" });
    await expectWhole(receiver, [...traceIds, runId.replaceAll("-", "")]);
    expect(receiver.violations().filter((text) => !text.includes("orphan"))).toEqual([]);
    const names = receiver.trace(runId.replaceAll("-", "")).map((span) => span.name);
    expect(names).toEqual(expect.arrayContaining(["attempt 1 lost", "attempt 2"]));
    const delivery = await until(async () => {
      const info = (await (await fetch(`${second!.url}/info`)).json()) as {
        tracing: { spans: { pending: number; dropped: number }; delivery: { spool: string } }[];
      };
      return info.tracing[0]?.spans.pending === 0 ? info.tracing[0] : undefined;
    }, "nothing to be left");
    expect(delivery).toMatchObject({ spans: { dropped: 0 }, delivery: { spool } });
    expect(await second!.kill("SIGTERM")).toBe(0);
  }

  it("leave no trace behind: the neighbour sends what waited, and ends what ran", async () => {
    await Promise.all([killOne("disk"), killOne("database")]);
  }, 240_000);
});

async function expectGivenUp(receiver: LangfuseReceiver, runId: string): Promise<void> {
  const traceId = runId.replaceAll("-", "");
  const root = await until(
    async () => receiver.trace(traceId).find((span) => span.parentSpanId === undefined),
    "the root",
    100_000,
  );
  expect(root.attributes).toMatchObject({
    "langfuse.observation.level": "ERROR",
    "langfuse.observation.status_message": expect.stringContaining("lost 3 times") as string,
  });
  const names = receiver.trace(traceId).map((span) => span.name);
  for (const attempt of [1, 2, 3]) expect(names).toContain(`attempt ${attempt} lost`);
  expect(names).toContain("one");
  expect(receiver.trace(traceId).filter((span) => span.parentSpanId === undefined)).toHaveLength(1);
}

async function startPoison(server: ChildServer): Promise<{ threadId: string; runId: string }> {
  const { thread_id: threadId } = await server.client.threads.create();
  const { run_id: runId } = await server.client.runs.create(threadId, "poison", {
    input: { input: "x" },
  });
  return { threadId, runId };
}

describe("a run that kills its process", () => {
  const embedded = createTestDatabases("pglite");
  const shared = createTestDatabases("postgres");

  it("has a root that says so, once it is given up", async () => {
    const { dataDir } = await embedded.configure();
    const { receiver, start } = await setUp({
      AEGRA_DATA_DIR: dataDir,
      AEGRA_TRACES_SPOOL: "database",
    });
    let server = await start();
    const { threadId, runId } = await startPoison(server);
    for (let attempt = 1; attempt <= 3; attempt += 1) {
      if (attempt > 1) server = await start();
      await until(async () => (server.process.signalCode ? true : undefined), "it to die");
    }
    server = await start();
    await expectGivenUp(receiver, runId);
    expect(await server.client.runs.get(threadId, runId)).toMatchObject({ status: "error" });
  }, 240_000);

  it("kills three neighbours and no more, and the fourth sends its trace", async () => {
    const { databaseUrl, dataDir } = await shared.configure();
    const { receiver, start } = await setUp(
      { DATABASE_URL: databaseUrl, AEGRA_DATA_DIR: dataDir },
      { workers: { lease_seconds: 6 } },
    );
    const servers = await Promise.all(Array.from({ length: 4 }, () => start()));
    const { threadId, runId } = await startPoison(servers[0]!);
    await expectGivenUp(receiver, runId);
    const living = servers.filter(({ process: child }) => child.signalCode === null);
    expect(living).toHaveLength(1);
    expect(await living[0]!.client.runs.get(threadId, runId)).toMatchObject({ status: "error" });
  }, 240_000);
});
