import { readFile, writeFile } from "node:fs/promises";
import { pino, type Logger } from "pino";
import { loadLangfuseObserver } from "../../src/observability/langfuse/observer.ts";
import type { LangfuseConfig } from "../../src/observability/langfuse/config.ts";
import type { ObservedRun, Observer, RunOutcome } from "../../src/observability/observer.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";

export interface LogLine {
  level: number;
  msg: string;
  err?: { type: string; message: string; stack: string };
}

/** A real logger whose lines a test can read. */
export function createLogCapture(): { log: Logger; lines: LogLine[] } {
  const lines: LogLine[] = [];
  const log = pino(
    { level: "debug" },
    { write: (text: string) => void lines.push(JSON.parse(text) as LogLine) },
  );
  return { log, lines };
}

export function configFor(
  receiver: LangfuseReceiver,
  overrides: Partial<LangfuseConfig> = {},
): LangfuseConfig {
  return {
    enabled: true,
    publicKey: receiver.publicKey,
    secretKey: receiver.secretKey,
    host: receiver.url,
    flushIntervalMs: 20,
    timeoutMs: 60_000,
    ...overrides,
  };
}

export async function openObserver(
  receiver: LangfuseReceiver,
  overrides: Partial<LangfuseConfig> = {},
): Promise<{ observer: Observer; lines: LogLine[] }> {
  const { log, lines } = createLogCapture();
  const observer = await loadLangfuseObserver(configFor(receiver, overrides), { log });
  return { observer, lines };
}

let counter = 0;

/** A run id no other test has used. */
export function newRunId(): string {
  counter += 1;
  return `0199aaaa-0000-7000-8000-${String(process.pid).padStart(6, "0")}${String(counter).padStart(6, "0")}`;
}

export function observedRun(overrides: Partial<ObservedRun> = {}): ObservedRun {
  const now = Date.now();
  return {
    run_id: newRunId(),
    thread_id: "thread-1",
    session_id: "thread-1",
    user_id: "alice",
    graph_id: "agent",
    assistant_id: "assistant-1",
    assistant_name: "Weather agent",
    assistant_version: 1,
    attempt: 1,
    trigger: "api",
    tags: [],
    metadata: {},
    input: undefined,
    checkpoint_id: undefined,
    resumed_from: undefined,
    created_at: new Date(now - 5),
    started_at: new Date(now),
    traceparent: undefined,
    ...overrides,
  };
}

/** As much of a compiled graph as a run needs. */
export interface Invocable {
  invoke(input: never, config?: object): Promise<unknown>;
}

/** What the engine does with a run: observes it, runs the graph, tells the outcome. Gives the trace id. */
export async function runObserved(
  observer: Observer,
  graph: Invocable,
  options: {
    input: unknown;
    run?: Partial<ObservedRun>;
    config?: Record<string, unknown>;
    /** Overrides what the graph's end says. */
    outcome?: RunOutcome | ((thrown: unknown) => RunOutcome);
  },
): Promise<{ traceId: string; output: unknown; thrown: unknown }> {
  const run = observedRun({ input: options.input, ...options.run });
  const observation = observer.startRun(run);
  const config = {
    callbacks: observation.callbacks,
    runId: run.run_id,
    runName: run.assistant_name,
    ...options.config,
    metadata: {
      thread_id: run.thread_id,
      ...(options.config?.["metadata"] as object | undefined),
      ...observation.metadata,
    },
  };
  let output: unknown;
  let thrown: unknown;
  try {
    output = await observation.within(() => graph.invoke(options.input as never, config));
  } catch (error) {
    thrown = error;
  }
  const { outcome } = options;
  observation.end(
    typeof outcome === "function" ? outcome(thrown) : (outcome ?? outcomeOf(output, thrown)),
  );
  return { traceId: observation.traceId ?? "", output, thrown };
}

function outcomeOf(output: unknown, thrown: unknown): RunOutcome {
  if (thrown !== undefined) return { status: "error", error: thrown };
  const { __interrupt__: interrupts, ...state } = (output ?? {}) as { __interrupt__?: unknown[] };
  if (interrupts !== undefined) return { status: "interrupted", output: state, interrupts };
  return { status: "success", output };
}

/**
 * The file a golden trace is kept in. `UPDATE_GOLDEN=1` writes it; a missing file is a failure otherwise, so
 * that no test passes for want of an expectation.
 */
async function golden(name: string, text: string): Promise<string> {
  const file = new URL(`./golden/${name}.txt`, import.meta.url);
  if (process.env["UPDATE_GOLDEN"] === "1") await writeFile(file, text);
  return readFile(file, "utf8");
}

/** A receiver and an observer that talks to it, and traces compared with what is kept. */
export interface TraceBench {
  readonly receiver: LangfuseReceiver;
  readonly observer: Observer;
  readonly lines: readonly LogLine[];
  /** Runs a graph and gives its trace as text beside what is expected. Throws if a real server would object. */
  trace(
    name: string,
    graph: Invocable,
    options: Parameters<typeof runObserved>[2],
  ): Promise<{ text: string; expected: string; traceId: string; output: unknown; thrown: unknown }>;
  /** The same for a trace that was made otherwise. */
  compare(name: string, traceId: string): Promise<{ text: string; expected: string }>;
  close(): Promise<void>;
}

export async function openBench(overrides: Partial<LangfuseConfig> = {}): Promise<TraceBench> {
  const receiver = await openLangfuseReceiver();
  const { observer, lines } = await openObserver(receiver, {
    environment: "test",
    release: "r1",
    version: "v1",
    ...overrides,
  });
  await observer.ready();
  const compare = async (
    name: string,
    traceId: string,
  ): Promise<{ text: string; expected: string }> => {
    await observer.flush(60_000);
    await receiver.waitForTrace(traceId);
    const violations = receiver.violations();
    if (violations.length > 0)
      throw new Error(`a real server would object:\n${violations.join("\n")}`);
    const bug = lines.find((line) => line.msg.includes("error of its own"));
    if (bug !== undefined) throw new Error(JSON.stringify(bug));
    const runId = traceId.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
    const text = receiver.formatTrace(traceId).replaceAll(runId, "<run>");
    return { text, expected: await golden(name, text) };
  };
  return {
    receiver,
    observer,
    lines,
    compare,
    async trace(name, graph, options) {
      receiver.clear();
      const result = await runObserved(observer, graph, options);
      return { ...result, ...(await compare(name, result.traceId)) };
    },
    async close() {
      await observer.shutdown(5_000);
      await receiver.close();
    },
  };
}
