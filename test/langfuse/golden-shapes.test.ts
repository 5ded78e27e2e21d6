import { type AIMessageChunk, HumanMessage } from "@langchain/core/messages";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { RunnableLambda, RunnableSequence } from "@langchain/core/runnables";
import { StringOutputParser } from "@langchain/core/output_parsers";
import { tool } from "@langchain/core/tools";
import {
  Annotation,
  Command,
  END,
  entrypoint,
  MessagesAnnotation,
  Send,
  START,
  StateGraph,
  task,
} from "@langchain/langgraph";
import { createReactAgent } from "@langchain/langgraph/prebuilt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { FakeChatModel, says } from "../support/fake-chat-model.ts";
import { add, addingModel, counting, single, State } from "./graphs.ts";
import { openBench, runObserved, type TraceBench } from "./harness.ts";

let bench: TraceBench;
beforeAll(async () => {
  bench = await openBench();
});
afterAll(() => bench.close());

test("a tool-calling agent", async () => {
  const graph = createReactAgent({ llm: addingModel(), tools: [add] });
  const { text, expected } = await bench.trace("tool-agent", graph, {
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
  const input = { messages: [{ role: "user", content: "hi" }] };
  const { text, expected } = await bench.trace("streaming", graph, { input });
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
  const { text, expected } = await bench.trace("parallel-branches", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("a loop", async () => {
  const graph = new StateGraph(State)
    .addNode("again", () => ({ count: 1 }))
    .addEdge(START, "again")
    .addConditionalEdges("again", (state) => (state.count < 3 ? "again" : END))
    .compile();
  const { text, expected } = await bench.trace("loop", graph, { input: { count: 0 } });
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
  const { text, expected } = await bench.trace("send-fan-out", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("a subgraph as a node", async () => {
  const graph = new StateGraph(State)
    .addNode("research", counting())
    .addEdge(START, "research")
    .compile();
  const { text, expected } = await bench.trace("subgraph", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("a named subgraph in a subgraph, and one a node calls itself", async () => {
  const middle = new StateGraph(State)
    .addNode("inner", counting())
    .addNode("calls", async (state, config) => ({
      notes: [String((await counting("called").invoke(state, config)).count)],
    }))
    .addEdge(START, "inner")
    .addEdge("inner", "calls")
    .compile({ name: "Researcher" });
  const graph = new StateGraph(State)
    .addNode("research", middle)
    .addEdge(START, "research")
    .compile();
  const { text, expected } = await bench.trace("nested-subgraph", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("a graph called in a tool", async () => {
  const inner = counting("looked-up");
  const lookUp = tool(async (_args, config) => (await inner.invoke({ count: 1 }, config)).count, {
    name: "look_up",
    description: "Looks it up.",
    schema: z.object({ city: z.string() }),
  });
  const graph = single(async (_state, config) => ({
    count: Number(await lookUp.invoke({ city: "Oslo" }, config)),
  }));
  const { text, expected } = await bench.trace("graph-in-tool", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("Command moves on, and a subgraph hands over to its parent", async () => {
  const worker = new StateGraph(State)
    .addNode(
      "hand-over",
      () => new Command({ goto: "last", update: { notes: ["handed"] }, graph: Command.PARENT }),
    )
    .addEdge(START, "hand-over")
    .compile();
  const graph = new StateGraph(State)
    .addNode("first", () => new Command({ goto: "worker", update: { count: 5 } }), {
      ends: ["worker"],
    })
    .addNode("worker", worker, { ends: ["last"] })
    .addNode("last", () => ({ count: 1 }))
    .addEdge(START, "first")
    .compile();
  const { text, expected } = await bench.trace("command-goto", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("runnables: noise is hidden, what a person named is shown", async () => {
  const model = new FakeChatModel([says("Oslo")]);
  const chain = RunnableSequence.from([
    ChatPromptTemplate.fromMessages([["human", "Capital of {country}?"]]),
    model,
    new StringOutputParser(),
  ]);
  const named = RunnableLambda.from((text: string) => text.toUpperCase()).withConfig({
    runName: "shout",
    tags: ["loud"],
  });
  const guard = RunnableLambda.from((text: string) => text.length < 100).withConfig({
    runName: "length check",
    metadata: { observation_type: "guardrail" },
  });
  const graph = single(async (_state, config) => {
    const answer = await chain.invoke({ country: "Norway" }, config);
    await guard.invoke(answer, config);
    return { notes: [await named.invoke(answer, config)] };
  });
  const { text, expected } = await bench.trace("custom-names", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("structured output", async () => {
  const model = new FakeChatModel([says('{"city":"Oslo"}', { input: 9, output: 5 })], {
    parameters: {
      response_format: {
        type: "json_schema",
        json_schema: { name: "City", schema: { type: "object" } },
      },
    },
  });
  const graph = single(async (_state, config) => {
    const answer = await model.invoke("Which city?", config);
    return { notes: [(JSON.parse(answer.text) as { city: string }).city] };
  });
  const { text, expected } = await bench.trace("structured-output", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("the functional API", async () => {
  const double = task("double", async (value: number) => value * 2);
  const graph = entrypoint(
    "flow",
    async (value: number) => (await double(value)) + (await double(10)),
  );
  const { text, expected } = await bench.trace("functional-api", graph, { input: 3 });
  expect(text).toBe(expected);
});

test("state without messages, nested and plain", async () => {
  const Order = Annotation.Root({
    order: Annotation<{ id: number; lines: string[] }>,
    total: Annotation<number>,
  });
  const graph = new StateGraph(Order)
    .addNode("price", (state) => ({ total: state.order.lines.length * 10 }))
    .addEdge(START, "price")
    .compile();
  const input = { order: { id: 7, lines: ["tea", "milk"] } };
  const { text, expected } = await bench.trace("messages-less-state", graph, { input });
  expect(text).toBe(expected);
});

test("a run of 1,000 steps", async () => {
  const graph = new StateGraph(State)
    .addNode("tick", () => ({ count: 1 }))
    .addEdge(START, "tick")
    .addConditionalEdges("tick", (state) => (state.count < 1_000 ? "tick" : END))
    .compile();
  bench.receiver.clear();
  const { traceId } = await runObserved(bench.observer, graph, {
    input: { count: 0 },
    config: { recursionLimit: 1_100 },
  });
  await bench.observer.flush(60_000);
  const spans = bench.receiver.trace(traceId);
  const root = spans.find((span) => span.parentSpanId === undefined);
  expect(spans).toHaveLength(1_001);
  expect(spans.filter((span) => span.parentSpanId === root?.spanId)).toHaveLength(1_000);
  expect(bench.receiver.violations()).toEqual([]);
});
