import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createLogCapture } from "../langfuse/harness.ts";
import { describeDatabases } from "../support/databases.ts";
import { createGate, failing, five, registryOf } from "../support/graphs.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { openOtlpReceiver, type OtlpReceiver } from "../support/otlp-receiver.ts";
import {
  createClient,
  eventually,
  request,
  startServer,
  testConfig,
  type TestServer,
} from "../support/server.ts";

const ROUTE = `export const choose = ({ metadata, graph_id, user_id, thread_id }) => {
  if (metadata.tenant === "broken") throw new Error("no such tenant");
  return graph_id && thread_id ? metadata.tenant : undefined;
};`;

const caller = { trace_id: "4bf92f3577b34da6a3ce929d0e0e4736", span_id: "00f067aa0ba902b7" };

describeDatabases("tracing targets through the server", (databases) => {
  let langfuse: LangfuseReceiver;
  let acme: LangfuseReceiver;
  let otlp: OtlpReceiver;
  let server: TestServer;
  const capture = createLogCapture();
  const gate = createGate();

  beforeAll(async () => {
    langfuse = await openLangfuseReceiver();
    acme = await openLangfuseReceiver({ publicKey: "pk-acme", secretKey: "sk-acme" });
    otlp = await openOtlpReceiver();
    const place = await databases.configure();
    const base = testConfig(place);
    await writeFile(join(place.dataDir, "route.mjs"), ROUTE);
    server = await startServer(databases, registryOf({ five, failing, gate: gate.graph }), {
      log: capture.log,
      config: {
        langfuse: {
          ...base.langfuse,
          enabled: true,
          publicKey: langfuse.publicKey,
          secretKey: langfuse.secretKey,
          host: langfuse.url,
          flushIntervalMs: 20,
          route: { path: join(place.dataDir, "route.mjs"), exportName: "choose" },
          projects: {
            acme: { publicKey: acme.publicKey, secretKey: acme.secretKey, host: acme.url },
          },
        },
        otlp: {
          url: `${otlp.url}/v1/traces`,
          protocol: "http/json",
          headers: {},
          resource: { "service.name": "shop" },
          timeoutMs: 60_000,
        },
        tracing: { ...base.tracing, traceparent: "parent" },
      },
    });
    await server.server.observer.ready();
  });
  afterAll(() => Promise.all([langfuse.close(), acme.close(), otlp.close()]));

  const bare = (runId: string): string => runId.replaceAll("-", "");

  /** Runs to the end, and gives the run as the API shows it. */
  const run = async (
    payload: Record<string, unknown> = {},
    options: { graph?: string; headers?: Record<string, string> } = {},
  ) => {
    const client = createClient(server.url, options.headers);
    const { thread_id: threadId } = await client.threads.create();
    let runId = "";
    await client.runs.wait(threadId, options.graph ?? "five", {
      input: { input: "x" },
      ...payload,
      raiseError: false,
      onRunCreated: (created) => (runId = created.run_id),
    });
    const shown = (await client.runs.get(threadId, runId)) as unknown as Record<string, string>;
    return { runId, threadId, shown };
  };
  const nothingOf = async (runId: string): Promise<void> => {
    // A later run's trace is in: what was made before it would be too.
    const later = await run();
    await langfuse.waitForTrace(bare(later.runId));
    await otlp.until(() => otlp.trace(bare(later.runId)).length > 0);
    expect(
      [...langfuse.spans, ...acme.spans, ...otlp.spans].map(({ traceId }) => traceId),
    ).not.toContain(bare(runId));
  };

  it("sends a run to every target, and shows each of them", async () => {
    const { runId, shown } = await run();
    await langfuse.waitForTrace(bare(runId));
    await otlp.until(() => otlp.trace(bare(runId)).length === 6);
    expect(shown["trace_id"]).toBe(bare(runId));
    expect(shown["trace_url"]).toContain(`${langfuse.url}/project/`);
    const info = await request(server.url, "/info");
    const targets = (info.json as { tracing: { name: string; state: string }[] }).tracing;
    expect(targets.map(({ name, state }) => [name, state])).toEqual([
      ["langfuse", "on"],
      ["langfuse:acme", "on"],
      ["otlp", "on"],
    ]);
  });

  it("never traces a run, or an assistant's runs, that opt out", async () => {
    const byMetadata = await run({ metadata: { aegra_trace: false } });
    const byHeader = await run({}, { headers: { "x-aegra-trace": "off" } });
    const assistant = await server.client.assistants.create({
      graphId: "five",
      metadata: { aegra_trace: false },
    });
    const byAssistant = await run({}, { graph: assistant.assistant_id });
    for (const { runId, shown } of [byMetadata, byHeader, byAssistant]) {
      expect(shown).not.toHaveProperty("trace_id");
      expect(shown).not.toHaveProperty("trace_url");
      await nothingOf(runId);
      const judged = await request(server.url, `/runs/${runId}/feedback`, {
        json: { key: "stars", score: 1 },
      });
      expect(judged).toMatchObject({ status: 409, json: { code: "conflict" } });
    }
  });

  it("routes a run to its project, with its link and its scores", async () => {
    const { runId, shown } = await run({ metadata: { tenant: "acme" } });
    await acme.waitForTrace(bare(runId));
    expect(shown["trace_url"]).toContain(acme.url);
    await request(server.url, `/runs/${runId}/feedback`, { json: { key: "stars", score: 5 } });
    await acme.until(() => acme.scores.some(({ traceId }) => traceId === bare(runId)));
    expect(langfuse.scores).toEqual([]);
    const broken = await run({ metadata: { tenant: "broken" } });
    await langfuse.waitForTrace(bare(broken.runId));
    await run({ metadata: { tenant: "broken" } });
    expect(capture.lines.filter(({ msg }) => msg.includes("no such tenant"))).toHaveLength(1);
  });

  it("joins the trace of a traceparent, and says so on the run", async () => {
    const traceparent = `00-${caller.trace_id}-${caller.span_id}-01`;
    const { runId, threadId, shown } = await run({}, { headers: { traceparent } });
    expect(shown["trace_id"]).toBe(caller.trace_id);
    expect(shown["trace_url"]).toContain(`/traces/${caller.trace_id}`);
    await langfuse.until(() => langfuse.trace(caller.trace_id).length === 6);
    await otlp.until(() => otlp.trace(caller.trace_id).length === 6);
    for (const spans of [langfuse.trace(caller.trace_id), otlp.trace(caller.trace_id)]) {
      expect(spans.filter(({ parentSpanId }) => parentSpanId === caller.span_id)).toHaveLength(1);
    }
    const judged = await request(server.url, `/runs/${runId}/feedback`, {
      json: { key: "stars", score: 5 },
    });
    expect(judged.json).toMatchObject({ trace_id: caller.trace_id });
    await langfuse.until(() => langfuse.scores.some(({ traceId }) => traceId === caller.trace_id));
    const other = traceparent.replace(caller.trace_id, caller.trace_id.replace("4bf9", "aaaa"));
    const client = createClient(server.url, { traceparent: other });
    const parts = [];
    for await (const part of client.runs.stream(threadId, "five", { input: { input: "y" } }))
      parts.push(part);
    expect(parts[0]).toMatchObject({ event: "metadata", data: { trace_id: other.split("-")[1] } });
    const malformed = await run({}, { headers: { traceparent: "00-nonsense" } });
    expect(malformed.shown["trace_id"]).toBe(bare(malformed.runId));
    await langfuse.waitForTrace(bare(malformed.runId));
    await langfuse.until(() => langfuse.trace(other.split("-")[1]!).length === 6);
    expect(langfuse.violations()).toEqual([]);
  });

  it("puts the run's and the trace's id into every line about a run", async () => {
    const { runId } = await run({}, { graph: "failing" });
    const lines = await eventually(() => {
      const found = capture.lines.filter((line) => JSON.stringify(line).includes(runId));
      expect(found.map(({ msg }) => msg)).toEqual(expect.arrayContaining(["run", "run failed"]));
      return found;
    });
    for (const line of lines) {
      expect(line).toMatchObject({ run_id: runId, trace_id: bare(runId) });
    }
  });

  it("serves metrics to everybody: runs, queue and tracing", async () => {
    const before = await scrape();
    await run();
    await run({}, { graph: "failing" });
    const { thread_id: threadId } = await server.client.threads.create();
    const running = await server.client.runs.create(threadId, "gate", { input: { input: "x" } });
    await gate.entered;
    const queued = await server.client.runs.create(threadId, "five", {
      input: { input: "x" },
      multitaskStrategy: "enqueue",
    });
    // What only the database knows is left out where it takes its time.
    await eventually(async () => {
      const during = await scrape();
      expect(during.get('aegra_runs_active{graph="gate"}')).toBe(1);
      expect(during.get("aegra_runs_waiting")).toBe(1);
    });
    gate.release();
    await server.client.runs.join(threadId, running.run_id);
    await server.client.runs.join(threadId, queued.run_id);
    await eventually(async () => {
      const after = await scrape();
      const grown = (name: string): number => (after.get(name) ?? 0) - (before.get(name) ?? 0);
      expect(grown('aegra_runs_total{graph="five",status="success"}')).toBe(2);
      expect(grown('aegra_runs_total{graph="failing",status="error"}')).toBe(1);
      expect(grown('aegra_run_first_event_seconds_count{graph="five"}')).toBe(2);
      expect(grown('aegra_run_queue_wait_seconds_count{graph="five"}')).toBe(2);
      expect(after.get('aegra_runs_active{graph="gate"}')).toBe(0);
      expect(after.get("aegra_runs_waiting")).toBe(0);
      for (const target of ["langfuse", "otlp"]) {
        expect(grown(`aegra_trace_spans_exported_total{target="${target}"}`)).toBeGreaterThan(10);
        expect(after.get(`aegra_trace_spans_waiting{target="${target}"}`)).toBe(0);
        expect(after.get(`aegra_trace_spans_dropped_total{target="${target}"}`)).toBe(0);
      }
    });
  });

  const scrape = async (): Promise<Map<string, number>> => {
    const { status, headers, text } = await request(server.url, "/metrics");
    expect([status, headers.get("content-type")]).toEqual([
      200,
      expect.stringMatching(/^text\/plain; version=0\.0\.4/),
    ]);
    const samples = text.split("\n").filter((line) => /^[a-z]/.test(line));
    return new Map(
      samples.map((line) => {
        const at = line.lastIndexOf(" ");
        return [line.slice(0, at), Number(line.slice(at + 1))];
      }),
    );
  };

  it("has no metrics, and no scores, where there are none", async () => {
    const place = await databases.configure();
    const quiet = await startServer(databases, registryOf({ five }), {
      config: {
        metrics: { enabled: false },
        otlp: {
          url: `${otlp.url}/v1/traces`,
          protocol: "http/protobuf",
          headers: {},
          resource: {},
          timeoutMs: 60_000,
        },
        tracing: { ...testConfig(place).tracing, spool: "memory" },
      },
    });
    expect(await request(quiet.url, "/metrics")).toMatchObject({ status: 404 });
    const { thread_id: threadId } = await quiet.client.threads.create();
    const { run_id: runId } = await quiet.client.runs.create(threadId, "five", {
      input: { input: "x" },
    });
    await quiet.client.runs.join(threadId, runId);
    await otlp.until(() => otlp.trace(bare(runId)).length === 6);
    const judged = await request(quiet.url, `/runs/${runId}/feedback`, {
      json: { key: "stars", score: 1 },
    });
    expect(judged.status).toBe(409);
  });
});
