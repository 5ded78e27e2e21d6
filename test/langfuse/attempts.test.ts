import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { attemptSpanIdOf } from "../../src/observability/trace/identity.ts";
import { createTestDatabases } from "../support/databases.ts";
import { createGate, five, registryOf } from "../support/graphs.ts";
import type { ReceivedSpan } from "../support/langfuse-receiver.ts";
import { startServer, type TestServer } from "../support/server.ts";
import { single } from "./graphs.ts";
import { observedRun, openBench, runObserved, type TraceBench } from "./harness.ts";

let bench: TraceBench;
beforeAll(async () => {
  bench = await openBench();
});
afterAll(() => bench.close());

const told = (span: ReceivedSpan | undefined) => ({
  level: span?.attributes["langfuse.observation.level"],
  message: span?.attributes["langfuse.observation.status_message"],
});
const millis = (nanos: bigint | undefined): number => Number((nanos ?? 0n) / 1_000_000n);

describe("attempts that did not end their run", () => {
  const created = new Date(Date.now() - 60_000);
  const at = (ms: number) => new Date(created.getTime() + ms);
  const left = [
    { attempt: 1, started_at: at(1_000), ended_at: at(11_000), lost: true },
    { attempt: 2, started_at: at(12_000), ended_at: at(20_000), lost: false },
  ];

  it("are told by each that follows, when they were and how they were left, in the same bytes", async () => {
    bench.receiver.clear();
    const run = observedRun({ created_at: created, input: { count: 0 } });
    const graph = single(() => ({ count: 1 }));
    const before = { ...run, attempt: 2, started_at: at(12_000), left_attempts: left.slice(0, 1) };
    const second = bench.observer.startRun(before);
    await graph.invoke({ count: 0 }, { callbacks: second.callbacks, runId: run.run_id });
    second.end({ status: "lost" });
    const { traceId } = await runObserved(bench.observer, graph, {
      input: { count: 0 },
      run: { ...run, attempt: 3, left_attempts: left },
    });
    await bench.observer.flush(20_000);

    const spans = bench.receiver.trace(traceId);
    const of = (name: string) => spans.filter((span) => span.name === name);
    expect(of("attempt 1 lost")).toHaveLength(2);
    expect(of("attempt 2 handed back")).toHaveLength(1);
    expect(of("attempt 2")).toEqual([]);
    expect(told(of("attempt 1 lost")[0])).toMatchObject({ level: "WARNING" });
    expect(told(of("attempt 2 handed back")[0]).level ?? "DEFAULT").toBe("DEFAULT");
    const [handedBack] = of("attempt 2 handed back");
    expect(handedBack?.spanId).toBe(attemptSpanIdOf(run.run_id, 2));
    expect(millis(handedBack?.startNs)).toBe(at(12_000).getTime());
    expect(millis(handedBack?.endNs)).toBe(at(20_000).getTime());
    // What the second attempt did hangs under it, though it never wrote its own end.
    expect(of("work").map(({ parentSpanId }) => parentSpanId)).toEqual(
      expect.arrayContaining([handedBack?.spanId, of("attempt 3")[0]?.spanId]),
    );
    expect(bench.receiver.violations()).toEqual([]);
  });
});

describe("runs that end in the queue", () => {
  const databases = createTestDatabases("pglite");
  const gate = createGate();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five, gate: gate.graph }), {
      config: {
        langfuse: {
          enabled: true,
          publicKey: bench.receiver.publicKey,
          secretKey: bench.receiver.secretKey,
          host: bench.receiver.url,
          sampleRate: 1,
          timeoutMs: 5_000,
          flushAt: 64,
          flushIntervalMs: 20,
          headers: {},
          environment: "test",
          release: undefined,
          mask: undefined,
        },
      },
    });
    await server.server.observer.ready();
  });

  const rootOf = async (runId: string): Promise<ReceivedSpan> => {
    const spans = await bench.receiver.waitForTrace(runId.replaceAll("-", ""));
    expect(spans).toHaveLength(1);
    return spans[0]!;
  };

  it("have a trace that says so: cancelled, or rolled back, before they started", async () => {
    const { client } = server;
    const { thread_id: threadId } = await client.threads.create();
    const running = await client.runs.create(threadId, "gate", { input: { input: "x" } });
    await gate.entered;
    const queue = async () =>
      client.runs.create(threadId, "five", {
        input: { input: "y" },
        multitaskStrategy: "enqueue",
      });
    const cancelled = await queue();
    const rolledBack = await queue();
    const late = await client.runs.create(null, "five", {
      input: { input: "z" },
      afterSeconds: 100,
      ...({ onCompletion: "keep" } as object),
    });
    await client.runs.cancel(threadId, cancelled.run_id, true);
    await client.runs.cancel(threadId, rolledBack.run_id, true, "rollback");
    await client.runs.cancel(late.thread_id, late.run_id, true);

    const root = await rootOf(cancelled.run_id);
    expect(root).toMatchObject({ name: "five", parentSpanId: undefined });
    expect(told(root)).toEqual({ level: "WARNING", message: "cancelled before it started" });
    expect(root.attributes).toMatchObject({
      "session.id": threadId,
      "langfuse.observation.input": JSON.stringify({ input: "y" }),
      "langfuse.observation.metadata.attempt": "0",
    });
    const rolled = await rootOf(rolledBack.run_id);
    expect(told(rolled)).toEqual({ level: "WARNING", message: "rolled back before it started" });
    expect(told(await rootOf(late.run_id)).message).toBe("cancelled before it started");
    gate.release();
    await client.runs.join(threadId, running.run_id);
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).not.toMatch(/aegra_runs_total\{[^}]*graph="five"/u);
  });
});
