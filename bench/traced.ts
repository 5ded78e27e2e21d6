/** A graph in a process of its own, traced in one way; `TRACED` says in which. */
import type { Callbacks } from "@langchain/core/callbacks/manager";
import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import { RunCallbacks } from "../src/engine/run-callbacks.ts";
import { loadLangfuseObserver } from "../src/observability/langfuse/observer.ts";
import { createLogger } from "../src/observability/log.ts";
import { answer } from "./child.ts";
import { five } from "./project/graphs.ts";

interface Tracing {
  run<T>(
    work: (options: { callbacks: Callbacks | undefined; runId: string }) => Promise<T>,
  ): Promise<T>;
  flush(): Promise<unknown>;
}

const host = process.env["SINK"] ?? "";
const keys = { publicKey: "pk-lf-bench", secretKey: "sk-lf-bench" };

async function createTracing(): Promise<Tracing> {
  if (process.env["TRACED"] === "aegra") {
    const log = createLogger({ level: "silent", pretty: false });
    const observer = await loadLangfuseObserver({ enabled: true, ...keys, host }, { log });
    await observer.ready();
    return {
      async run(work) {
        const now = new Date();
        const runId = uuid7();
        const observation = observer.startRun({
          run_id: runId,
          thread_id: runId,
          session_id: runId,
          user_id: "bench",
          graph_id: "five",
          assistant_id: "five",
          assistant_name: "five",
          assistant_version: 1,
          attempt: 1,
          trigger: "bench",
          tags: [],
          metadata: {},
          input: undefined,
          checkpoint_id: undefined,
          resumed_from: undefined,
          created_at: now,
          started_at: now,
          traceparent: undefined,
        });
        // As the server passes them.
        const callbacks = RunCallbacks.of(observation.callbacks);
        const value = await work({ callbacks, runId });
        observation.end({ status: "success", output: value });
        return value;
      },
      flush: () => observer.flush(60_000),
    };
  }
  if (process.env["TRACED"] === "official") {
    const { BasicTracerProvider } = await import("@opentelemetry/sdk-trace-base");
    const { LangfuseSpanProcessor } = await import("@langfuse/otel");
    const { setLangfuseTracerProvider } = await import("@langfuse/tracing");
    const { CallbackHandler } = await import("@langfuse/langchain");
    const processor = new LangfuseSpanProcessor({ ...keys, baseUrl: host });
    setLangfuseTracerProvider(new BasicTracerProvider({ spanProcessors: [processor] }));
    return {
      run: (work) =>
        work({
          callbacks: [new CallbackHandler({ userId: "bench", sessionId: "bench" })],
          runId: uuid7(),
        }),
      flush: () => processor.forceFlush(),
    };
  }
  return { run: (work) => work({ callbacks: undefined, runId: uuid7() }), flush: async () => {} };
}

const tracing = await createTracing();
const once = (text: string): Promise<unknown> =>
  tracing.run(({ callbacks, runId }) =>
    five.invoke(
      { messages: [{ type: "human", content: text }] },
      callbacks === undefined ? {} : { callbacks, runId },
    ),
  );

/** Text that compresses about as well as prose does. */
function prose(length: number): string {
  const words = "the agent asks a tool for an order and tells its customer what it found".split(
    " ",
  );
  let seed = 1;
  let text = "";
  while (text.length < length) {
    seed = (seed * 1_103_515_245 + 12_345) % 2_147_483_648;
    text += `${words[seed % words.length]}${seed % 7 === 0 ? seed.toString(36) : ""} `;
  }
  return text.slice(0, length);
}

answer(async (question: { kb: number; durationMs: number } | { kb: number; runs: number }) => {
  const text = prose(question.kb * 1024);
  if ("runs" in question) {
    for (let run = 0; run < question.runs; run += 1) await once(text);
    await tracing.flush();
    globalThis.gc?.();
    return { heapMb: process.memoryUsage().heapUsed / 1024 / 1024 };
  }
  const latencies: number[] = [];
  const cpuBefore = process.cpuUsage();
  const begin = performance.now();
  await Promise.all(
    Array.from({ length: 8 }, async () => {
      while (performance.now() - begin < question.durationMs) {
        const from = performance.now();
        await once(text);
        latencies.push(performance.now() - from);
      }
    }),
  );
  const elapsedMs = performance.now() - begin;
  await tracing.flush();
  const cpu = process.cpuUsage(cpuBefore);
  return {
    runs: latencies.length,
    elapsedMs,
    cpuMs: (cpu.user + cpu.system) / 1000,
    latencies: latencies.toSorted((left, right) => left - right),
  };
});
