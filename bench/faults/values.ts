/*
 * How long tracing computes without a pause for values that nobody would send on purpose: the longest single callback
 * of a run of five nodes whose state holds the value, in milliseconds the main thread was on a processor; the longest
 * time without a turn for anybody else while a hundred nodes begin and end in one step, beside the same without tracing;
 * and what a process holds while a long run carries 5 MB of state through every node.
 * Run: node --expose-gc --import jiti/register bench/faults/values.ts
 */
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Annotation, Send, StateGraph } from "@langchain/langgraph";
import { pino } from "pino";
import { loadLangfuseObserver } from "../../src/observability/langfuse/observer.ts";
import { TurnBudget } from "../../src/observability/trace/turn-budget.ts";
import type { Observer, RunObservation } from "../../src/observability/observer.ts";
import { observedRun } from "../../test/langfuse/harness.ts";
import { startChild } from "../child.ts";

const RUNS = 10;
const LONG_RUN_NODES = 400;

const VALUES: [string, () => unknown][] = [
  ["20 messages of 1 kB", () => Array.from({ length: 20 }, (_, n) => `${n}`.repeat(1_000))],
  ["an object of 100,000 keys", () => objectOf(100_000)],
  ["an array of 1,000,000 numbers", () => Array.from({ length: 1_000_000 }, (_, n) => n)],
  ["300 objects of 300 keys", () => Array.from({ length: 300 }, () => objectOf(300))],
  ["1,000 arrays of 1,000 empty objects", () => grid(1_000)],
  ["a text of 400 kB", () => words(400_000)],
  ["a text of 5 MB", () => words(5_000_000)],
  ["50 texts of 400 kB", () => Array.from({ length: 50 }, () => words(400_000))],
  ["400,000 NULs", () => "\0".repeat(400_000)],
  ["400,000 halves of surrogate pairs", () => "\ud83d".repeat(400_000)],
  ["400,000 quotes", () => ['"'.repeat(400_000)]],
  ["SSE-like text of 400 kB", () => "data: {}\n\n;base64,".repeat(22_000)],
  ["100,000 levels", () => deep(100_000)],
  ["8 levels of 8 entries each", () => tree(6)],
];

const State = Annotation.Root({ value: Annotation<unknown>(), count: Annotation<number>() });

const Fan = Annotation.Root({
  texts: Annotation<string[]>({ reducer: (a, b) => a.concat(b), default: () => [] }),
});

function graphOf(nodes: number) {
  return new StateGraph(State)
    .addNode("step", async (state) => {
      await new Promise((resolve) => setTimeout(resolve, 5));
      return { count: (state.count ?? 0) + 1 };
    })
    .addEdge("__start__", "step")
    .addConditionalEdges("step", (state) => ((state.count ?? 0) < nodes ? "step" : "__end__"))
    .compile();
}

const folder = await mkdtemp(join(tmpdir(), "aegra-values-"));
const sink = startChild("langfuse-sink.ts");
const host = await sink.ask<string>({ what: "address" });
const open = (maxChars?: number, budget?: TurnBudget): Promise<Observer> =>
  loadLangfuseObserver(
    { enabled: true, publicKey: "pk", secretKey: "sk", host, capture: { maxChars } },
    { log: pino({ level: "error" }), spool: { folder }, budget },
  );

console.log("| state | longest callback | of the first run |\n|---|---|---|");
const observer = await open();
for (const [name, make] of VALUES) {
  const graph = graphOf(5);
  const longest: number[] = [];
  for (let run = 0; run < RUNS; run += 1)
    longest.push(await longestCallback(observer, graph, make()));
  const [first = 0, ...rest] = longest;
  console.log(`| ${name} | ${Math.max(...rest).toFixed(1)} ms | ${first.toFixed(1)} ms |`);
  await observer.flush(20_000);
  await sink.ask({ what: "address" });
}
console.log(
  "\n| nodes in one step | of | longest turn, untraced | traced | the same without a budget |\n|---|---|---|---|---|",
);
const atOnce = await open(undefined, new TurnBudget(Number.POSITIVE_INFINITY));
for (const chars of [1_000, 30_000, 300_000])
  console.log(await wideStep({ untraced: undefined, traced: observer, atOnce }, 100, chars));
await observer.shutdown(5_000);
await atOnce.shutdown(5_000);
for (const maxChars of [undefined, 20_000]) await longRun(maxChars);
await sink.close();
await rm(folder, { recursive: true });

async function longestCallback(
  observer: Observer,
  graph: ReturnType<typeof graphOf>,
  value: unknown,
): Promise<number> {
  const observation = observer.startRun(observedRun({ input: { value } }));
  const times = watch(observation);
  await graph.invoke({ value, count: 0 }, { callbacks: observation.callbacks });
  const computed = stopwatch();
  observation.end({ status: "success", output: { value } });
  times.push(computed());
  return Math.max(...times);
}

/** Measures what the run's handler computes in each of its callbacks. */
function watch(observation: RunObservation): number[] {
  const times: number[] = [];
  for (const handler of observation.callbacks as unknown as Record<string, unknown>[]) {
    for (const name of ["handleChainStart", "handleChainEnd"]) {
      const original = handler[name] as (...args: unknown[]) => unknown;
      handler[name] = (...args: unknown[]) => {
        const computed = stopwatch();
        const result = original.apply(handler, args);
        times.push(computed());
        return result;
      };
    }
  }
  return times;
}

/** The longest turns of the event loop in a step of many nodes, each with a text of its own; medians of the runs. */
async function wideStep(
  observers: Record<string, Observer | undefined>,
  width: number,
  chars: number,
): Promise<string> {
  const graph = fanOf(width, words(chars));
  const longest = new Map(Object.keys(observers).map((kind) => [kind, [] as number[]]));
  for (let run = 0; run < RUNS; run += 1) {
    for (const [kind, by] of Object.entries(observers)) {
      const observation = by?.startRun(observedRun());
      const turns = watchTurns();
      await graph.invoke({}, { callbacks: observation?.callbacks ?? [] });
      longest.get(kind)?.push(await turns.stop());
      observation?.end({ status: "success", output: {} });
      await by?.flush(20_000);
    }
  }
  const medians = [...longest.values()].map((values) => {
    const sorted = values.toSorted((one, other) => one - other);
    return `${(sorted[sorted.length >> 1] ?? 0).toFixed(1)} ms`;
  });
  return `| ${width} | ${chars / 1_000} kB | ${medians.join(" | ")} |`;
}

function fanOf(width: number, text: string) {
  return new StateGraph(Fan)
    .addNode("worker", (state: { text: string }) => ({ texts: [state.text.slice(1)] }))
    .addConditionalEdges("__start__", () =>
      Array.from({ length: width }, (_, index) => new Send("worker", { text: `${index} ${text}` })),
    )
    .compile();
}

/** The most the main thread computed between two turns of the event loop, in milliseconds. */
function watchTurns(): { stop(): Promise<number> } {
  let longest = 0;
  let watching = true;
  let computed = stopwatch();
  const look = (): void => {
    longest = Math.max(longest, computed());
    computed = stopwatch();
    if (watching) setImmediate(look);
  };
  setImmediate(look);
  return {
    async stop() {
      await new Promise((resolve) => setImmediate(resolve));
      watching = false;
      return longest;
    },
  };
}

/** Every node's input and output holds the whole state. */
async function longRun(maxChars: number | undefined): Promise<void> {
  const traced = await open(maxChars);
  const observation = traced.startRun(observedRun());
  const value = Array.from({ length: 50 }, () => words(100_000));
  const held: number[] = [];
  const graph = graphOf(LONG_RUN_NODES);
  const looking = setInterval(() => {
    globalThis.gc?.();
    const { heapUsed, external } = process.memoryUsage();
    held.push((heapUsed + external) / 1e6);
  }, 500);
  await graph.invoke(
    { value, count: 0 },
    { callbacks: observation.callbacks, recursionLimit: LONG_RUN_NODES + 10 },
  );
  clearInterval(looking);
  observation.end({ status: "success", output: { value } });
  const empty = await traced.flush(60_000);
  const { sent } = traced.status()[0]?.spans ?? { sent: 0 };
  await traced.shutdown(1_000);
  const quarter = Math.max(1, Math.floor(held.length / 4));
  const medians = [0, 1, 2, 3].map((part) => {
    const sorted = held.slice(part * quarter, (part + 1) * quarter).toSorted((a, b) => a - b);
    return (sorted[Math.floor(sorted.length / 2)] ?? 0).toFixed(0);
  });
  console.log(
    `5 MB of state through ${LONG_RUN_NODES} nodes, max_chars ${maxChars ?? 400_000}: memory in the four quarters ` +
      `${medians.join(", ")} MB; ${sent} spans sent${empty ? "" : ", not all"}.`,
  );
}

function objectOf(keys: number): Record<string, number> {
  return Object.fromEntries(Array.from({ length: keys }, (_, index) => [`key${index}`, index]));
}

function grid(size: number): object[][] {
  return Array.from({ length: size }, () => Array.from({ length: size }, () => ({})));
}

function words(chars: number): string {
  return Array.from({ length: 1_000 }, (_, index) => `word${(index * 7_919) % 1_000} `)
    .join("")
    .repeat(Math.ceil(chars / 7_000))
    .slice(0, chars);
}

function deep(levels: number): object {
  const top: { inner?: object } = {};
  let at = top;
  for (let level = 0; level < levels; level += 1) at = at.inner = {};
  return top;
}

function tree(levels: number): unknown {
  return levels === 0 ? 1 : Array.from({ length: 8 }, () => tree(levels - 1));
}

/**
 * Milliseconds the main thread has computed since: what passed on the clock, without what others had of it; Linux counts
 * the time on a processor in steps that may be more than that.
 */
function stopwatch(): () => number {
  const [cpu, clock] = [cpuMs(), performance.now()];
  return () => Math.min(cpuMs() - cpu, performance.now() - clock);
}

/** Linux tells how long the main thread has been on a processor. */
function cpuMs(): number {
  return Number(readFileSync("/proc/self/schedstat", "utf8").split(" ")[0]) / 1e6;
}
