import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { loadConfig } from "../../src/config/load.ts";
import { loadConfiguredTracing } from "../../src/observability/configured.ts";
import type { Observer } from "../../src/observability/observer.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { openOtlpReceiver, type OtlpReceiver } from "../support/otlp-receiver.ts";
import { single } from "./graphs.ts";
import { createLogCapture, runObserved, type LogLine } from "./harness.ts";

const LIMIT = 100_000;

let receiver: LangfuseReceiver;
let otlp: OtlpReceiver;
let folder: string;
const open: Observer[] = [];
beforeEach(async () => {
  receiver = await openLangfuseReceiver();
  otlp = await openOtlpReceiver();
  folder = await mkdtemp(join(tmpdir(), "aegra-large-"));
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((observer) => observer.shutdown(0)));
  await receiver.close();
  await otlp.close();
  await rm(folder, { recursive: true, force: true });
});

/** As a server of a project would trace. */
async function observe(
  variables: Record<string, string>,
): Promise<{ observer: Observer; lines: LogLine[] }> {
  const loaded = await loadConfig({
    cwd: folder,
    mode: "dev",
    needsGraphs: false,
    env: {
      LANGFUSE_LOGGING: "true",
      LANGFUSE_HOST: receiver.url,
      LANGFUSE_PUBLIC_KEY: receiver.publicKey,
      LANGFUSE_SECRET_KEY: receiver.secretKey,
      OTEL_TARGETS: "otlp",
      OTEL_EXPORTER_OTLP_ENDPOINT: otlp.url,
      ...variables,
    },
  });
  const config = { ...loaded, tracing: { ...loaded.tracing, maxRecordBytes: LIMIT } };
  const { log, lines } = createLogCapture();
  const observer = await loadConfiguredTracing(config, { log, version: "1" });
  open.push(observer);
  return { observer, lines };
}

test.each([
  ["plain", "http/protobuf", "word "],
  ["of several bytes a character", "http/protobuf", "Wörter 😀 "],
  ["that JSON escapes", "http/json", '\u0001"\\'],
])("a root that is too large is cut, not dropped: a text %s", async (_what, protocol, word) => {
  const { observer, lines } = await observe({ OTEL_EXPORTER_OTLP_PROTOCOL: protocol });
  const text = word.repeat(Math.ceil(90_000 / word.length));
  const { traceId } = await runObserved(
    observer,
    single(() => ({ notes: [text] })),
    { input: { notes: [text] }, run: { metadata: { note: text, short: "kept" } } },
  );
  expect(await observer.flush(60_000)).toBe(true);
  for (const status of observer.status())
    expect(status.spans, status.name).toMatchObject({ pending: 0, dropped: 0 });

  for (const spans of [await receiver.waitForTrace(traceId), otlp.trace(traceId)]) {
    const ids = new Set(spans.map(({ spanId }) => spanId));
    const roots = spans.filter(({ parentSpanId }) => parentSpanId === undefined);
    expect(roots).toHaveLength(1);
    for (const { parentSpanId } of spans)
      if (parentSpanId !== undefined) expect(ids).toContain(parentSpanId);
    const told = Object.values(roots[0]?.attributes ?? {}).map(String);
    const cut = told.filter((value) => /… <cut, \d+ characters in all>$/u.test(value));
    expect(cut.length).toBeGreaterThan(0);
    // What could stay, stays.
    expect(told).toContain("kept");
    expect(Buffer.byteLength(told.join(""))).toBeGreaterThan(LIMIT / 10);
    for (const value of told) expect(value).not.toContain("\uFFFD");
  }
  expect(receiver.violations()).toEqual([]);
  expect(lines.filter(({ msg }) => msg.includes("was cut"))).not.toEqual([]);
  expect(lines.filter(({ msg }) => msg.includes("given up"))).toEqual([]);
});

test("a span that fits is sent as it is", async () => {
  const { observer } = await observe({});
  const { traceId } = await runObserved(
    observer,
    single(() => ({ notes: ["short"] })),
    { input: { notes: ["x".repeat(20_000)] } },
  );
  expect(await observer.flush(60_000)).toBe(true);
  const spans = await receiver.waitForTrace(traceId);
  expect(JSON.stringify(spans.map(({ attributes }) => attributes))).not.toContain("<cut");
});
