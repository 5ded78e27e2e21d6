import { AIMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatPromptTemplate } from "@langchain/core/prompts";
import { RunnableLambda, type RunnableConfig } from "@langchain/core/runnables";
import { tool } from "@langchain/core/tools";
import { MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { afterEach, beforeEach, expect, test } from "vitest";
import { z } from "zod";
import type { LangfuseConfig } from "../../src/observability/langfuse/config.ts";
import type { RunOutcome } from "../../src/observability/observer.ts";
import { FakeChatModel, says } from "../support/fake-chat-model.ts";
import {
  openLangfuseReceiver,
  type LangfuseReceiver,
  type ReceivedSpan,
} from "../support/langfuse-receiver.ts";
import { add, addingModel, single } from "./graphs.ts";
import { observedRun, openObserver, runObserved, type Invocable } from "./harness.ts";

let receiver: LangfuseReceiver;
beforeEach(async () => {
  receiver = await openLangfuseReceiver();
});
afterEach(() => receiver.close());

/** The spans of one run, by name; a name that is there twice is an error. */
async function traced(
  graph: Invocable,
  options: Parameters<typeof runObserved>[2],
  config: Partial<LangfuseConfig> = {},
): Promise<{ root: ReceivedSpan; spans: Map<string, ReceivedSpan> }> {
  const { observer } = await openObserver(receiver, config);
  await runObserved(observer, graph, options);
  expect(await observer.flush(60_000)).toBe(true);
  await observer.shutdown(1_000);
  expect(receiver.violations()).toEqual([]);
  const spans = new Map<string, ReceivedSpan>();
  for (const span of receiver.spans) {
    expect(spans.has(span.name), `two spans are named ${span.name}`).toBe(false);
    spans.set(span.name, span);
  }
  const root = receiver.spans.find(({ parentSpanId }) => parentSpanId === undefined)!;
  return { root, spans };
}

const said = (span: ReceivedSpan | undefined, what: string): unknown =>
  span?.attributes[`langfuse.observation.${what}`];

const talk = (...answers: (AIMessage | HumanMessage)[]) =>
  new StateGraph(MessagesAnnotation)
    .addNode("talk", () => ({ messages: answers }))
    .addEdge(START, "talk")
    .compile();

const history = [new HumanMessage("capital of France?"), new AIMessage("Paris")];

test.each<[string, RunOutcome["status"]]>([
  ["failed", "error"],
  ["was cancelled", "cancelled"],
  ["had nothing to say", "success"],
])("the answer to an earlier question is not that of a run that %s", async (_what, status) => {
  const asked = new HumanMessage("capital of Spain?");
  const { root } = await traced(talk(), {
    input: { messages: [asked] },
    outcome: { status, output: { messages: [...history, asked] } },
  });
  expect(said(root, "input")).toBe("capital of Spain?");
  // The state that was reached, and not "Paris" alone.
  expect(JSON.parse(String(said(root, "output")))).toMatchObject({
    messages: [{ content: "capital of France?" }, { content: "Paris" }, { role: "user" }],
  });
});

test("the answer of an agent that speaks as a user is looked past", async () => {
  const { root } = await traced(
    talk(new AIMessage("Madrid"), new HumanMessage({ content: "noted", name: "researcher" })),
    { input: { messages: [new HumanMessage("capital of Spain?")] } },
  );
  expect(said(root, "output")).toBe("Madrid");
});

test("thoughts, calls and pictures do not keep a question or an answer from being read", async () => {
  const question = new HumanMessage({
    content: [
      { type: "text", text: "What is this?" },
      { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } },
    ],
  });
  const answer = new AIMessage({
    content: [
      { type: "thinking", thinking: "hm", signature: "s" },
      { type: "text", text: "A cat" },
      { type: "text", text: ", asleep." },
    ],
  });
  const { root } = await traced(talk(answer), { input: { messages: [question] } });
  expect(said(root, "input")).toBe("What is this?\n[image]");
  expect(said(root, "output")).toBe("A cat, asleep.");
});

test("a client cannot name the prompt or the parameters of a model call", async () => {
  const model = new FakeChatModel([says("hi", { input: 1, output: 1 })]);
  const prompt = ChatPromptTemplate.fromTemplate("say {what}");
  const graph = single(async (_state, config) => {
    // The template and the sequence inherit the claims as the model does.
    await prompt.pipe(model).invoke({ what: "hello" }, config);
    return {};
  });
  const claims = { langfusePrompt: { name: "forged", version: 6 }, ls_temperature: 0.9 };
  const { root } = await traced(graph, {
    input: {},
    run: { metadata: claims },
    config: { metadata: claims },
  });
  const generation = receiver.spans.find((span) => said(span, "type") === "generation");
  expect(said(generation, "prompt.name")).toBeUndefined();
  expect(said(generation, "model.parameters") ?? "").not.toContain("0.9");
  expect(said(root, "metadata.client.langfusePrompt")).toContain("forged");
});

test.each(["named", undefined])("a prompt template %s links its prompt", async (runName) => {
  const model = new FakeChatModel([says("hi", { input: 1, output: 1 })]);
  const prompt = ChatPromptTemplate.fromTemplate("say {what}").withConfig({
    ...(runName === undefined ? {} : { runName }),
    metadata: { langfusePrompt: { name: "greeting", version: 3 } },
  });
  const graph = single(async (_state, config) => {
    await prompt.pipe(model).invoke({ what: "hi" }, config);
    return {};
  });
  await traced(graph, { input: {} });
  const generation = receiver.spans.find((span) => said(span, "type") === "generation");
  expect(said(generation, "prompt.name")).toBe("greeting");
  expect(said(generation, "prompt.version")).toBe(3);
});

test("what a tool says of its failure is its output: without outputs it is not sent", async () => {
  const failing = tool(
    () => new ToolMessage({ content: "the salary of Ann", tool_call_id: "c", status: "error" }),
    { name: "salaries", schema: z.object({}) },
  );
  const graph = single(async (_state, config) => {
    await failing.invoke({ type: "tool_call", id: "c", name: "salaries", args: {} }, config);
    return {};
  });
  const { spans } = await traced(
    graph,
    { input: {} },
    { capture: { input: false, output: false } },
  );
  expect(said(spans.get("salaries"), "level")).toBe("ERROR");
  expect(said(spans.get("salaries"), "status_message")).toBe("tool error");
  expect(JSON.stringify([...spans.values()].map(({ attributes }) => attributes))).not.toContain(
    "salary of",
  );
});

test("credentials in the JSON that a tool hands on are replaced wherever it goes", async () => {
  const lookUp = tool(() => ({ user: "ann", password: "hunter2", nested: { api_key: "sk-1" } }), {
    name: "look_up",
    schema: z.object({}),
  });
  const graph = new StateGraph(MessagesAnnotation)
    .addNode("ask", async (_state, config) => {
      const call = { type: "tool_call" as const, id: "c", name: "look_up", args: {} };
      return { messages: [(await lookUp.invoke(call, config)) as ToolMessage] };
    })
    .addNode("next", () => ({}))
    .addEdge(START, "ask")
    .addEdge("ask", "next")
    .compile();
  const { spans } = await traced(graph, { input: { messages: [] } });
  const text = JSON.stringify([...spans.values()].map(({ attributes }) => attributes));
  expect(text).not.toMatch(/hunter2|sk-1/);
  expect(said(spans.get("look_up"), "output")).toBe(
    '{"user":"ann","password":"<redacted>","nested":{"api_key":"<redacted>"}}',
  );
  expect(text.match(/<redacted>/g)?.length).toBeGreaterThan(4);
});

test("LangChain's wrappers around a model are not drawn", async () => {
  const graph = single(async (_state, config) => {
    await addingModel()
      .bindTools([add])
      .pipe(RunnableLambda.from((message) => message))
      .withConfig({ runName: "StructuredOutput" })
      .invoke("1 + 2?", config);
    await new FakeChatModel([says("hi", { input: 1, output: 1 })])
      .withRetry()
      .withConfig({ runName: "twice" })
      .invoke("hello", config);
    await RunnableLambda.from(() => 1)
      .withRetry()
      .withConfig({ runName: "fetch" })
      .invoke(1, config);
    return {};
  });
  const { spans } = await traced(graph, { input: {} });
  expect([...spans.keys()].toSorted()).toEqual(
    ["FakeChatModel", "Weather agent", "fetch", "twice", "work"].toSorted(),
  );
  expect(said(spans.get("twice"), "type")).toBe("generation");
});

const moment = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 20));

/** A node, and a run that goes on after it with something else. */
const followed = (
  name: string,
  work: (config: RunnableConfig) => Promise<unknown>,
  later = moment,
) =>
  new StateGraph(MessagesAnnotation)
    .addNode(name, async (_state, config) => {
      await work(config);
      return {};
    })
    .addNode("later", async () => {
      await later();
      return {};
    })
    .addEdge(START, name as never)
    .addEdge(name as never, "later" as never)
    .compile();

test("a model call that is left early ends with its last token, inside the node", async () => {
  const model = new FakeChatModel([says("one two three four", { input: 1, output: 4 })]);
  const graph = followed("impatient", async (config) => {
    for await (const chunk of await model.stream("hello", config)) if (chunk.content) break;
  });
  const { spans } = await traced(graph, { input: { messages: [] } });
  const [node, call] = [spans.get("impatient")!, spans.get("FakeChatModel")!];
  expect(call.endNs).toBeLessThanOrEqual(node.endNs);
  expect(call.endNs).toBeGreaterThanOrEqual(call.startNs);
});

test("what is still open ends no later than what it is part of", async () => {
  let finish = (): void => {};
  const graph = followed("parent", async (config) => {
    await new Promise<void>((begun) => {
      const background = (): Promise<void> => {
        begun();
        return new Promise((resolve) => (finish = resolve));
      };
      void RunnableLambda.from(background).withConfig({ runName: "background" }).invoke(1, config);
    });
    await moment();
  });
  const { spans } = await traced(graph, { input: { messages: [] } });
  finish();
  expect(spans.get("background")!.endNs).toBe(spans.get("parent")!.endNs);
});

test("what began after its parent had ended is as long as the run", async () => {
  let begin = (): void => {};
  const background = new Promise<void>((resolve) => (begin = resolve));
  let ofParent: RunnableConfig | undefined;
  const graph = followed(
    "parent",
    async (config) => (ofParent = config),
    async () => {
      await moment();
      const endless = (): Promise<void> => {
        begin();
        return new Promise(() => {});
      };
      void RunnableLambda.from(endless).withConfig({ runName: "background" }).invoke(1, ofParent);
      await background;
      await moment();
    },
  );
  const { root, spans } = await traced(graph, { input: { messages: [] } });
  const [parent, late] = [spans.get("parent")!, spans.get("background")!];
  expect(late.startNs).toBeGreaterThan(parent.endNs);
  expect(late.endNs).toBe(root.endNs);
});

test("what a graph carries for all its runs is on its trace, below what the run says", async () => {
  const { observer } = await openObserver(receiver);
  const run = observedRun({ tags: ["of the run"], metadata: { team: "run's", other: 1 } });
  const observation = observer.startRun(run);
  observation.bound?.({
    tags: ["of the graph", "of the run", "user:mallory"],
    metadata: { team: "graph's", region: "eu", run_id: "forged" },
  });
  await single(() => ({})).invoke({}, { callbacks: observation.callbacks, runId: run.run_id });
  observation.end({ status: "success", output: {} });
  await observer.flush(60_000);
  await observer.shutdown(1_000);
  expect(receiver.violations()).toEqual([]);
  for (const span of receiver.spans) {
    expect(span.attributes["langfuse.trace.tags"]).toEqual(
      expect.arrayContaining(["of the run", "of the graph", "client:user:mallory"]),
    );
  }
  const root = receiver.spans.find(({ parentSpanId }) => parentSpanId === undefined);
  expect(said(root, "metadata.team")).toBe("run's");
  expect(said(root, "metadata.region")).toBe("eu");
  expect(said(root, "metadata.run_id")).toBe(run.run_id);
});

test("the mask sees the comment of a score", async () => {
  const { observer } = await openObserver(receiver, {
    mask: (text, field) => (field === "score.comment" ? text.replace("4111", "****") : text),
  });
  await observer.score({
    id: "s1",
    run_id: observedRun().run_id,
    name: "helpful",
    value: 1,
    data_type: "NUMERIC",
    comment: "my card is 4111",
  });
  await observer.flush(60_000);
  await observer.shutdown(1_000);
  expect(receiver.scores).toMatchObject([{ comment: "my card is ****" }]);
});
