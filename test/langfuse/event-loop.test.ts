import { Annotation, Send, StateGraph } from "@langchain/langgraph";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Observer } from "../../src/observability/observer.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { observedRun, openObserver } from "./harness.ts";

let receiver: LangfuseReceiver;
let observer: Observer;
/** Turns of the event loop in which tracing wrote something, by the name of the field. */
let turnsOf: Map<string, Set<number>>;
let turn: number;
let counting: boolean;

beforeEach(async () => {
  receiver = await openLangfuseReceiver();
  turnsOf = new Map();
  turn = 0;
  counting = true;
  const count = (): void => {
    turn += 1;
    if (counting) setImmediate(count);
  };
  setImmediate(count);
  const mask = (text: string, field: string): string => {
    turnsOf.set(field, (turnsOf.get(field) ?? new Set()).add(turn));
    return text;
  };
  ({ observer } = await openObserver(receiver, { mask }));
});

afterEach(async () => {
  counting = false;
  await observer.shutdown(5_000);
  await receiver.close();
});

const State = Annotation.Root({
  texts: Annotation<string[]>({ reducer: (a, b) => a.concat(b), default: () => [] }),
});

/** `width` nodes that begin and end in one step, each with a text of its own. */
function fan(width: number, chars: number) {
  return new StateGraph(State)
    .addNode("worker", (state: { text: string }) => ({ texts: [state.text.slice(1)] }))
    .addConditionalEdges("__start__", () =>
      Array.from(
        { length: width },
        (_, index) => new Send("worker", { text: `${index} `.padEnd(chars, "word ") }),
      ),
    )
    .compile();
}

test("a step of many nodes with large states leaves turns of the event loop to others", async () => {
  const run = observedRun();
  const observation = observer.startRun(run);
  const graph = fan(100, 300_000);
  await graph.invoke({ texts: [] }, { callbacks: observation.callbacks });
  observation.end({ status: "success", output: {} });
  // 100 inputs take far more than one turn may.
  expect(turnsOf.get("input")?.size).toBeGreaterThan(3);
  expect(turnsOf.get("output")?.size).toBeGreaterThan(3);
  expect(await observer.flush(60_000)).toBe(true);
  const spans = receiver.spans.filter(({ name }) => name === "worker");
  expect(spans).toHaveLength(100);
});

test("a graph that never waits for anything lets others have their turns", async () => {
  const Count = Annotation.Root({ count: Annotation<number>(), text: Annotation<string>() });
  const graph = new StateGraph(Count)
    .addNode("step", (state) => ({ count: (state.count ?? 0) + 1 }))
    .addEdge("__start__", "step")
    .addConditionalEdges("step", (state) => ((state.count ?? 0) < 100 ? "step" : "__end__"))
    .compile();
  const observation = observer.startRun(observedRun());
  await graph.invoke(
    { count: 0, text: "word ".repeat(50_000) },
    { callbacks: observation.callbacks, recursionLimit: 200 },
  );
  observation.end({ status: "success", output: {} });
  expect(turnsOf.get("input")?.size).toBeGreaterThan(3);
});

test("what waits for its turn when the run ends is in the trace", async () => {
  const observation = observer.startRun(observedRun());
  const abort = new AbortController();
  const graph = fan(50, 300_000);
  const ended = graph
    .invoke({ texts: [] }, { callbacks: observation.callbacks, signal: abort.signal })
    .then(
      () => "finished",
      () => "aborted",
    );
  // The first turns of tracing are over, the last are not.
  while ((turnsOf.get("input")?.size ?? 0) < 2) await new Promise((done) => setImmediate(done));
  abort.abort();
  observation.end({ status: "cancelled", error: new Error("cancelled") });
  const endedNs = BigInt(Date.now() + 1) * 1_000_000n;
  expect(await ended).toBe("aborted");
  expect(await observer.flush(60_000)).toBe(true);
  // Nor is the end one long piece of work.
  expect(turnsOf.get("input")?.size).toBeGreaterThan(5);
  const spans = receiver.spans.filter(({ name }) => name === "worker");
  expect(spans).toHaveLength(50);
  const root = receiver.spans.find(({ parentSpanId }) => parentSpanId === undefined);
  expect(root?.attributes["langfuse.observation.level"]).toBe("WARNING");
  // It ended when it did, and not when that was written.
  expect(root!.endNs).toBeLessThanOrEqual(endedNs);
  for (const span of spans) expect(span.endNs).toBeGreaterThanOrEqual(span.startNs);
});
