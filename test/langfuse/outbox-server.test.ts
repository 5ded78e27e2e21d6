import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { until, type ChildServer } from "../support/child-server.ts";
import { createTestDatabases } from "../support/databases.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { openOtlpReceiver, type OtlpReceiver } from "../support/otlp-receiver.ts";
import {
  createTracedProject,
  missing,
  runOnce,
  type TracedProject,
} from "../support/traced-project.ts";

/* A real server whose traces wait in PostgreSQL, with two targets, and the command line beside it. */

interface Target {
  name: string;
  spans: { made: number; sent: number; pending: number; dropped: number };
  delivery: {
    spool: string;
    dead_lettered: number;
    scores?: { sent: number; pending: number };
  };
}

describe("traces in the database", () => {
  const databases = createTestDatabases("postgres");
  let receiver: LangfuseReceiver;
  let otlp: OtlpReceiver;
  let project: TracedProject;
  let server: ChildServer;
  let env: Record<string, string>;
  beforeAll(async () => {
    [receiver, otlp] = await Promise.all([openLangfuseReceiver(), openOtlpReceiver()]);
    const { databaseUrl, dataDir } = await databases.configure();
    env = {
      DATABASE_URL: databaseUrl!,
      AEGRA_DATA_DIR: dataDir,
      AEGRA_TRACES_SPOOL: "database",
      OTEL_TARGETS: "langfuse,otlp",
      OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url,
    };
    project = await createTracedProject(receiver, env);
    server = await project.start();
  });
  afterAll(async () => {
    await server.kill();
    await Promise.all([receiver.close(), otlp.close(), project.remove()]);
  });

  async function targets(): Promise<{ langfuse: Target; otlp: Target }> {
    const info = (await (await fetch(`${server.url}/info`)).json()) as { tracing: Target[] };
    const find = (name: string): Target => info.tracing.find((target) => target.name === name)!;
    return { langfuse: find("langfuse"), otlp: find("otlp") };
  }

  const runMany = (count: number): Promise<string[]> =>
    Promise.all(Array.from({ length: count }, () => runOnce(server, "quick")));

  const whole = (traceIds: readonly string[]): Promise<true> =>
    until(
      async () => (missing(receiver.spans, traceIds).length === 0 ? true : undefined),
      "every trace to be whole",
    );

  it("a target that is down holds up no other, and gets its own when it is back", async () => {
    otlp.status = 503;
    const traceIds = await runMany(5);
    await whole(traceIds);
    await until(
      async () => ((await targets()).langfuse.spans.pending === 0 ? true : undefined),
      "Langfuse to have everything",
    );
    expect((await targets()).otlp).toMatchObject({
      spans: { sent: 0, pending: 20, dropped: 0 },
      delivery: { spool: "database" },
    });
    const { output } = await project.traces("status");
    expect(output).toMatch(/otlp spans: 20 wait/u);
    expect(output).toContain("20 in the hands of processes that live");
    expect(output).not.toContain("langfuse spans");
    const metrics = await (await fetch(`${server.url}/metrics`)).text();
    expect(metrics).toContain('aegra_trace_spans_waiting{target="otlp"} 20');
    expect(metrics).toContain('aegra_trace_spans_waiting{target="langfuse"} 0');
    otlp.status = 200;
    await until(
      async () =>
        missing(otlp.spans, []).length === 0 && otlp.spans.length >= 20 ? true : undefined,
      "the other target to have everything",
    );
    expect(receiver.violations()).toEqual([]);
  });

  it("scores wait there too", async () => {
    receiver.behave({ kind: "status", status: 503 }, "/api/public/scores");
    const [traceId = ""] = await runMany(1);
    const runId = traceId.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/u, "$1-$2-$3-$4-$5");
    const response = await fetch(`${server.url}/runs/${runId}/feedback`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ key: "helpful", score: true }),
    });
    expect(response.ok).toBe(true);
    expect((await project.traces("status")).output).toMatch(/langfuse scores: 1 wait/u);
    receiver.behave({ kind: "accept" }, "/api/public/scores");
    await until(async () => (receiver.scores.length === 1 ? true : undefined), "the score");
  });

  it("what a target refuses is kept with its answer, and sent when it is put back", async () => {
    receiver.behave({ kind: "refuse-span", name: "two" });
    const traceIds = await runMany(3);
    await until(
      async () => ((await targets()).langfuse.delivery.dead_lettered === 3 ? true : undefined),
      "three dead letters",
    );
    const letters = await project.traces("dead-letters", "--json");
    expect(JSON.parse(letters.output)).toMatchObject(
      traceIds.map(() => ({
        target: "langfuse",
        stream: "spans",
        answer: expect.stringContaining("HTTP 400") as string,
      })),
    );
    receiver.behave({ kind: "accept" });
    expect((await project.traces("replay")).output).toContain(
      "3 dead letters are in the spool again",
    );
    await whole(traceIds);
    expect((await project.traces("dead-letters")).output).toContain("There are no dead letters");
  });

  it("what a killed process left is sent by the command line where no server does", async () => {
    receiver.behave({ kind: "status", status: 503 });
    const traceIds = await runMany(3);
    await server.kill();
    receiver.behave({ kind: "accept" });
    const flushed = await project.traces("flush");
    expect(flushed).toMatchObject({ code: 0 });
    // The other target had perhaps not got its own yet, or not all of it.
    expect(flushed.output).toMatch(/(1[2-9]|2[0-4]) sent, 0 left/u);
    expect(missing(receiver.spans, traceIds)).toEqual([]);
    expect((await project.traces("status")).output).toContain("nothing waits");
  });
});
