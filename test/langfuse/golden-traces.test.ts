import { type AIMessageChunk, HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import {
  Annotation,
  Command,
  END,
  interrupt,
  MemorySaver,
  MessagesAnnotation,
  Send,
  START,
  StateGraph,
} from "@langchain/langgraph";
import { createReactAgent } from "@langchain/langgraph/prebuilt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import type { Observer } from "../../src/observability/observer.ts";
import { calls, FakeChatModel, says } from "../support/fake-chat-model.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { golden, newRunId, openObserver, runObserved } from "./harness.ts";

let receiver: LangfuseReceiver;
let observer: Observer;

beforeAll(async () => {
  receiver = await openLangfuseReceiver();
  ({ observer } = await openObserver(receiver, {
    environment: "test",
    release: "r1",
    version: "v1",
  }));
});

afterAll(async () => {
  await observer.shutdown(5_000);
  await receiver.close();
});

type Options = Parameters<typeof runObserved>[2];

/** Runs, receives, and gives the text beside what is expected. A broken rule of the server is an error. */
async function trace(name: string, graph: Invocable, options: Options) {
  receiver.clear();
  const result = await runObserved(observer, graph, options);
  return { ...result, ...(await compare(name, result.traceId)) };
}

async function compare(name: string, traceId: string): Promise<{ text: string; expected: string }> {
  await observer.flush(10_000);
  await receiver.waitForTrace(traceId);
  const violations = receiver.violations();
  if (violations.length > 0) throw new Error(`a real server would object:\n${violations.join("\n")}`);
  const runId = traceId.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
  const text = receiver.formatTrace(traceId).replaceAll(runId, "<run>");
  return { text, expected: await golden(name, text) };
}

const State = Annotation.Root({
  count: Annotation<number>({ reducer: (left, right) => left + right, default: () => 0 }),
  notes: Annotation<string[]>({ reducer: (left, right) => [...left, ...right], default: () => [] }),
});

const add = tool(({ a, b }) => String(a + b), {
  name: "add",
  description: "Adds two numbers.",
  schema: z.object({ a: z.number(), b: z.number() }),
});

const addingModel = () =>
  new FakeChatModel([calls("add", { a: 1, b: 2 }), says("It is 3.", { input: 40, output: 4 })], {
    parameters: {
      temperature: 0.2,
      max_completion_tokens: 100,
      seed: 7,
      stop: ["END"],
      response_format: { type: "text" },
    },
  });

test("a tool-calling agent", async () => {
  const graph = createReactAgent({ llm: addingModel(), tools: [add] });
  const { text, expected } = await trace("tool-agent", graph, {
    input: { messages: [new HumanMessage("What is 1 + 2?")] },
    run: { tags: ["nightly"], metadata: { customer: "acme" } },
  });
  expect(text).toBe(expected);
});

test("a streaming model shows its first token", async () => {
  const model = new FakeChatModel([says("Good morning to you.", { input: 3, output: 4 })]);
  const graph = new StateGraph(MessagesAnnotation)
    .addNode("model", async (state, config) => {
      const chunks: AIMessageChunk[] = [];
      for await (const chunk of await model.stream(state.messages, config)) chunks.push(chunk);
      return { messages: [chunks.reduce((left, right) => left.concat(right))] };
    })
    .addEdge(START, "model")
    .compile();
  const { text, expected } = await trace("streaming", graph, { input: { messages: [{ role: "user", content: "hi" }] } });
  expect(text).toBe(expected);
});

test("parallel branches", async () => {
  const graph = new StateGraph(State)
    .addNode("left", () => ({ notes: ["left"] }))
    .addNode("right", () => ({ notes: ["right"] }))
    .addNode("join", (state) => ({ count: state.notes.length }))
    .addEdge(START, "left")
    .addEdge(START, "right")
    .addEdge(["left", "right"], "join")
    .compile();
  const { text, expected } = await trace("parallel-branches", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("a loop", async () => {
  const graph = new StateGraph(State)
    .addNode("again", () => ({ count: 1 }))
    .addEdge(START, "again")
    .addConditionalEdges("again", (state) => (state.count < 3 ? "again" : END))
    .compile();
  const { text, expected } = await trace("loop", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("Send fans out", async () => {
  const graph = new StateGraph(State)
    .addNode("plan", () => ({}))
    .addNode("work", (state: { item: string }) => ({ notes: [state.item] }))
    .addEdge(START, "plan")
    .addConditionalEdges("plan", () => ["a", "b", "c"].map((item) => new Send("work", { item })), [
      "work",
    ])
    .compile();
  const { text, expected } = await trace("send-fan-out", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

const inner = () =>
  new StateGraph(State)
    .addNode("deep", () => ({ count: 1 }))
    .addEdge(START, "deep")
    .compile();

test("a subgraph as a node", async () => {
  const graph = new StateGraph(State)
    .addNode("research", inner())
    .addEdge(START, "research")
    .compile();
  const { text, expected } = await trace("subgraph", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("interrupt, then resume", async () => {
  const graph = new StateGraph(State)
    .addNode("ask", () => ({ notes: [String(interrupt({ question: "Send the mail?" }))] }))
    .addNode("done", () => ({ count: 1 }))
    .addEdge(START, "ask")
    .addEdge("ask", "done")
    .compile({ checkpointer: new MemorySaver() });
  const config = { configurable: { thread_id: "t-interrupt" } };
  const first = newRunId();
  await expectTrace("interrupt", graph, { input: { count: 0 }, config, run: { run_id: first } });
  const resume = new Command({ resume: "yes" });
  await expectTrace(
    "resume",
    { invoke: (_input, options) => graph.invoke(resume, options) },
    {
      input: "yes",
      config,
      run: { resumed_from: "the-first-run" },
    },
  );
});

test("an error in a node", async () => {
  const graph = new StateGraph(State)
    .addNode("fails", () => {
      throw new TypeError("no such city");
    })
    .addEdge(START, "fails")
    .compile();
  const { text, expected } = await trace("error-in-node", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});
