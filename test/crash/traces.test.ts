import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { inspect } from "node:util";
import { afterEach, describe, expect, it } from "vitest";
import { until, type ChildServer } from "../support/child-server.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";
import {
  openLangfuseReceiver,
  type LangfuseReceiver,
  type ReceivedSpan,
} from "../support/langfuse-receiver.ts";
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
): Promise<{ receiver: LangfuseReceiver; project: TracedProject; start: TracedProject["start"] }> {
  const receiver = await openLangfuseReceiver();
  cleanups.push(() => receiver.close());
  const project = await createTracedProject(receiver, env);
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

/** The spans that came more than once, and not the same. */
function changed(spans: readonly ReceivedSpan[]): ReceivedSpan[] {
  const seen = new Map<string, string>();
  return spans.filter((span) => {
    const text = inspect(span, { depth: null, sorted: true });
    const before = seen.get(span.spanId);
    seen.set(span.spanId, text);
    return before !== undefined && before !== text;
  });
}

function runMany(server: ChildServer, count: number): Promise<string[]> {
  return Promise.all(Array.from({ length: count }, () => runOnce(server, "quick")));
}

async function expectWhole(receiver: LangfuseReceiver, traceIds: readonly string[]): Promise<void> {
  await until(
    async () => (missing(receiver.spans, traceIds).length === 0 ? true : undefined),
    `every trace to be whole; missing: ${missing(receiver.spans, traceIds).join("; ")}`,
    30_000,
  );
}

describeDatabases("the traces of a killed process", (databases) => {
  it("arrive after the next start, the run's that was cut off among them", async () => {
    const { databaseUrl, dataDir } = await databases.configure();
    const { receiver, start } = await setUp({ DATABASE_URL: databaseUrl, AEGRA_DATA_DIR: dataDir });
    receiver.behave({ kind: "status", status: 500 });
    const first = await start();
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
    // A run that was cut off between its trace and its result runs again: its root, and nothing else of it, is sent
    // anew, and what its first attempt had not ended has no parent. Neither may happen to a run that was answered.
    const excused = /orphan|sent again, and not the same/u;
    expect(receiver.violations().filter((text) => !excused.test(text))).toEqual([]);
    for (const traceId of receiver.traceIds()) {
      const unexpected = changed(receiver.trace(traceId)).filter(
        (span) => answered.includes(traceId) || span.parentSpanId !== undefined,
      );
      expect(unexpected).toEqual([]);
    }
  });

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

describe("two processes with one spool", () => {
  const databases = createTestDatabases("postgres");

  it("do not touch each other's traces, until one of them is gone", async () => {
    const { databaseUrl, dataDir } = await databases.configure();
    const { receiver, start } = await setUp({ DATABASE_URL: databaseUrl, AEGRA_DATA_DIR: dataDir });
    receiver.behave({ kind: "status", status: 503 });
    const servers = await Promise.all([start(), start()]);
    const traceIds = (await Promise.all(servers.map((server) => runMany(server, 10)))).flat();
    await servers[0].kill();
    receiver.behave({ kind: "accept" });
    await expectWhole(receiver, traceIds);
    expect(receiver.violations()).toEqual([]);
    expect(await servers[1].kill("SIGTERM")).toBe(0);
  });
});
