import { expect, test } from "vitest";
import { createMetrics, type Metrics } from "../../src/observability/metrics.ts";
import type { ObserverStatus } from "../../src/observability/observer.ts";
import { observedRun } from "../langfuse/harness.ts";

const target: ObserverStatus = {
  name: "langfuse",
  state: "on",
  message: "Traces go somewhere.",
  host: undefined,
  spans: { made: 10, sent: 6, pending: 3, dropped: 1 },
  last_error: undefined,
  delivery: {
    spool: "disk",
    pending_bytes: 4_096,
    oldest_ms: 2_500,
    last_success_at: "2026-11-26T08:00:00.500Z",
    last_error_at: undefined,
    retried: 4,
    dead_lettered: 1,
    adopted: 5,
    torn: 2,
  },
};

function open(overrides: Partial<Parameters<typeof createMetrics>[0]> = {}): Metrics {
  return createMetrics({
    queueDepth: async () => ({ waiting: 5, oldest_seconds: 12 }),
    targets: () => [target],
    webhooks: {
      depth: async () => ({ waiting: 3, oldest_seconds: 90 }),
      done: () => ({ delivered: 7, failed: 1 }),
    },
    ...overrides,
  });
}

/** The samples of the text format: `name{labels}` to value. */
async function samples(metrics: Metrics): Promise<Map<string, number>> {
  const { text } = await metrics.render();
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(" ");
      return [line.slice(0, at), Number(line.slice(at + 1))];
    }),
  );
}

test("runs are counted and timed by graph and by how they ended", async () => {
  const metrics = open();
  const now = Date.now();
  const run = observedRun({ created_at: new Date(now - 2_000), started_at: new Date(now) });
  const first = metrics.observer.startRun(run);
  const second = metrics.observer.startRun(observedRun({ graph_id: "other", attempt: 2 }));
  expect((await samples(metrics)).get('aegra_runs_active{graph="agent"}')).toBe(1);
  first.firstEvent?.();
  first.firstEvent?.();
  first.end({ status: "success" });
  first.end({ status: "error" });
  second.end({ status: "lost" });
  const found = await samples(metrics);
  expect(Object.fromEntries(found)).toMatchObject({
    'aegra_runs_total{graph="agent",status="success"}': 1,
    'aegra_runs_total{graph="other",status="lost"}': 1,
    'aegra_runs_active{graph="agent"}': 0,
    'aegra_runs_active{graph="other"}': 0,
    'aegra_run_queue_wait_seconds_count{graph="agent"}': 1,
    'aegra_run_first_event_seconds_count{graph="agent"}': 1,
    'aegra_run_duration_seconds_count{graph="agent",status="success"}': 1,
  });
  expect(found.get('aegra_run_queue_wait_seconds_sum{graph="agent"}')).toBe(2);
  // The wait of a further attempt is the time of the one before.
  expect(found.has('aegra_run_queue_wait_seconds_count{graph="other"}')).toBe(false);
  expect(found.has('aegra_runs_total{graph="agent",status="error"}')).toBe(false);
});

test("tracing shows its spans by target, as they are at the scrape", async () => {
  let sent = 6;
  const metrics = open({
    targets: () => [{ ...target, spans: { ...target.spans, sent } }],
  });
  expect(Object.fromEntries(await samples(metrics))).toMatchObject({
    'aegra_trace_spans_made_total{target="langfuse"}': 10,
    'aegra_trace_spans_exported_total{target="langfuse"}': 6,
    'aegra_trace_spans_waiting{target="langfuse"}': 3,
    'aegra_trace_spans_dropped_total{target="langfuse"}': 1,
    'aegra_trace_spans_failed_total{target="langfuse"}': 1,
    'aegra_trace_spans_retried_total{target="langfuse"}': 4,
    'aegra_trace_bytes_waiting{target="langfuse"}': 4_096,
    'aegra_trace_oldest_waiting_seconds{target="langfuse"}': 2.5,
    'aegra_trace_target_up{target="langfuse"}': 1,
    aegra_runs_waiting: 5,
    aegra_run_oldest_waiting_seconds: 12,
    aegra_webhooks_waiting: 3,
    aegra_webhook_oldest_waiting_seconds: 90,
    aegra_webhooks_delivered_total: 7,
    aegra_webhooks_failed_total: 1,
  });
  sent = 9;
  const later = await samples(metrics);
  expect(later.get('aegra_trace_spans_exported_total{target="langfuse"}')).toBe(9);
});

test("last success and last error are seconds since 1970; what never was is not there", async () => {
  const found = await samples(open());
  const success = 'aegra_trace_spans_last_success_timestamp_seconds{target="langfuse"}';
  expect(found.get(success)).toBe(Date.parse("2026-11-26T08:00:00.500Z") / 1_000);
  expect([...found.keys()].filter((name) => name.includes("last_error"))).toEqual([]);
  expect(found.get('aegra_trace_spans_adopted_total{target="langfuse"}')).toBe(5);
  expect(found.get('aegra_trace_spans_torn_files_total{target="langfuse"}')).toBe(2);
});

test("scores have the same figures as spans", async () => {
  const scores = {
    made: 9,
    sent: 5,
    pending: 3,
    dropped: 1,
    pending_bytes: 600,
    oldest_ms: 1_500,
    last_success_at: "2026-11-26T08:00:00.000Z",
    last_error: "HTTP 503",
    last_error_at: "2026-11-26T08:01:00.000Z",
    retried: 2,
    dead_lettered: 1,
    adopted: 4,
    torn: 0,
  };
  const delivery = target.delivery && { ...target.delivery, scores };
  const found = await samples(open({ targets: () => [{ ...target, delivery }] }));
  const read = (name: string): number | undefined =>
    found.get(`aegra_trace_scores_${name}{target="langfuse"}`);
  expect(
    Object.fromEntries(
      [...found.keys()]
        .map((key) => /^aegra_trace_scores_(\w+)\{/.exec(key)?.[1])
        .filter((name) => name !== undefined)
        .map((name) => [name, read(name)]),
    ),
  ).toEqual({
    made_total: 9,
    exported_total: 5,
    waiting: 3,
    dropped_total: 1,
    failed_total: 1,
    retried_total: 2,
    adopted_total: 4,
    torn_files_total: 0,
    bytes_waiting: 600,
    oldest_waiting_seconds: 1.5,
    last_success_timestamp_seconds: 1_795_680_000,
    last_error_timestamp_seconds: 1_795_680_060,
  });
  const spans = [...found.keys()].map((key) => /^aegra_trace_spans_(\w+)\{/.exec(key)?.[1]);
  for (const name of spans.filter((name) => name !== undefined && name !== "last_error"))
    expect(read(name as string), name).toBeDefined();
});

test.each([
  ["refuses", () => Promise.reject(new Error("away"))],
  ["says nothing", () => new Promise<never>(() => {})],
])("a database that %s leaves its numbers out, not the others", async (_how, depth) => {
  const metrics = open({
    queueDepth: depth,
    webhooks: { depth, done: () => ({ delivered: 7, failed: 1 }) },
  });
  const found = await samples(metrics);
  expect([...found.keys()].filter((name) => name.includes("waiting"))).toEqual([
    expect.stringContaining("aegra_trace"),
    expect.stringContaining("aegra_trace"),
    expect.stringContaining("aegra_trace"),
  ]);
  expect(found.get("aegra_webhooks_delivered_total")).toBe(7);
  expect(found.get("process_resident_memory_bytes")).toBeGreaterThan(1e6);
});

test("a database that says nothing is asked no second time, and heard when it speaks", async () => {
  let asked = 0;
  let answer = (_depth: { waiting: number; oldest_seconds: number }): void => {};
  const metrics = open({
    queueDepth: () => {
      asked += 1;
      return new Promise((resolve) => (answer = resolve));
    },
  });
  expect((await samples(metrics)).has("aegra_runs_waiting")).toBe(false);
  const second = samples(metrics);
  answer({ waiting: 2, oldest_seconds: 4 });
  expect((await second).get("aegra_runs_waiting")).toBe(2);
  expect((await second).get("aegra_run_oldest_waiting_seconds")).toBe(4);
  expect(asked).toBe(1);
});

test("two servers in one process have numbers of their own", async () => {
  const [left, right] = [open(), open()];
  left.observer.startRun(observedRun()).end({ status: "success" });
  const name = 'aegra_runs_total{graph="agent",status="success"}';
  expect((await samples(left)).get(name)).toBe(1);
  expect((await samples(right)).has(name)).toBe(false);
});

test("the text is what Prometheus reads: a type and a help for each metric", async () => {
  const { text, contentType } = await open().render();
  expect(contentType).toMatch(/^text\/plain; version=0\.0\.4/);
  for (const line of text.split("\n").filter((entry) => entry.startsWith("# TYPE"))) {
    const [, , name] = line.split(" ");
    expect(text).toContain(`# HELP ${name} `);
  }
});
