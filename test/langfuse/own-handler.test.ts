import { CallbackHandler } from "@langfuse/langchain";
import { setLangfuseTracerProvider } from "@langfuse/tracing";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import { BasicTracerProvider, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base";
import { MemorySaver } from "@langchain/langgraph";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { CompiledGraph } from "../../src/graphs/compiled.ts";
import { createGraphRegistry } from "../../src/graphs/registry.ts";
import { withoutDoubleTraces } from "../../src/observability/foreign-handlers.ts";
import { counting } from "./graphs.ts";
import { openBench, runObserved, type Invocable, type TraceBench } from "./harness.ts";

/** An application that has set Langfuse up for itself, with the official packages and the same project. */
let bench: TraceBench;
let official: BasicTracerProvider;
beforeAll(async () => {
  bench = await openBench();
  const { url, publicKey, secretKey } = bench.receiver;
  const exporter = new OTLPTraceExporter({
    url: `${url}/api/public/otel/v1/traces`,
    headers: {
      authorization: `Basic ${Buffer.from(`${publicKey}:${secretKey}`).toString("base64")}`,
      "x-langfuse-ingestion-version": "4",
    },
  });
  official = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] });
  setLangfuseTracerProvider(official);
});
afterAll(async () => {
  setLangfuseTracerProvider(null);
  await official.shutdown();
  await bench.close();
});

const graph = counting("work").withConfig({ callbacks: [new CallbackHandler()] });
const registry = createGraphRegistry([
  { kind: "graph", id: "g", graph: graph as unknown as CompiledGraph } as never,
]);
const bindOptions = {
  config: {},
  access: "threads.create_run",
  checkpointer: new MemorySaver(),
  store: undefined,
} as never;

/** Runs the graph as a registry binds it, and gives the names of the traces that arrived. */
async function tracesBy(source: typeof registry): Promise<string[]> {
  bench.receiver.clear();
  const bound = (await source.bind("g", bindOptions)) as unknown as Invocable;
  const { traceId } = await runObserved(bench.observer, bound, {
    input: { count: 0 },
    config: { configurable: { thread_id: String(Math.random()) } },
  });
  await Promise.all([bench.observer.flush(60_000), official.forceFlush()]);
  expect(bench.receiver.traceIds()).toContain(traceId);
  return bench.receiver.traceIds();
}

test("left alone, a graph's own Langfuse handler makes a second trace", async () => {
  expect(await tracesBy(registry)).toHaveLength(2);
});

test("it is left out of a run's copy of the graph, which is said once", async () => {
  const removed: string[] = [];
  const once = withoutDoubleTraces(registry, {
    traced: () => true,
    onRemoved: (id) => removed.push(id),
  });
  expect(await tracesBy(once)).toHaveLength(1);
  expect(await tracesBy(once)).toHaveLength(1);
  expect(removed).toEqual(["g"]);
  expect(graph.config?.callbacks).toHaveLength(1);
});

test("it stays where this server does not trace to Langfuse", async () => {
  const removed: string[] = [];
  const once = withoutDoubleTraces(registry, {
    traced: () => false,
    onRemoved: (id) => removed.push(id),
  });
  expect(await tracesBy(once)).toHaveLength(2);
  expect(removed).toEqual([]);
});
