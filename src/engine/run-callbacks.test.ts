import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import { CallbackManager } from "@langchain/core/callbacks/manager";
import { Document } from "@langchain/core/documents";
import { AIMessage, type BaseMessage } from "@langchain/core/messages";
import { BaseRetriever } from "@langchain/core/retrievers";
import { RunnableLambda, RunnableParallel, type RunnableConfig } from "@langchain/core/runnables";
import { tool } from "@langchain/core/tools";
import { FakeListChatModel } from "@langchain/core/utils/testing";
import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";
import { expect, test } from "vitest";
import { z } from "zod";
import { RunCallbacks } from "./run-callbacks.ts";

/** Writes down what it hears, with ids as the order in which they came. */
class Recorder extends BaseCallbackHandler {
  readonly heard: unknown[] = [];
  readonly #ids = new Map<string, number>();
  override awaitHandlers = true;
  override name: string;

  constructor(name = "recorder") {
    super();
    this.name = name;
    const methods = ["Chain", "Tool", "Retriever", "ChatModel", "LLM"].flatMap((what) =>
      ["Start", "End", "Error"].map((when) => `handle${what}${when}`),
    );
    for (const method of [...methods, "handleLLMNewToken", "handleCustomEvent"]) {
      Object.assign(this, {
        [method]: (...args: unknown[]) => {
          this.heard.push([method, ...args.map((arg) => this.#readable(arg))]);
        },
      });
    }
  }

  override copy(): this {
    return this;
  }

  #readable(value: unknown): unknown {
    if (value instanceof Error) return value.message;
    const text = JSON.stringify(value ?? null);
    return text.replaceAll(/[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}/g, (id) => {
      if (!this.#ids.has(id)) this.#ids.set(id, this.#ids.size);
      return `#${this.#ids.get(id)}`;
    });
  }
}

class Shelf extends BaseRetriever {
  lc_namespace = ["test"];

  override async _getRelevantDocuments(query: string): Promise<Document[]> {
    return [new Document({ pageContent: query })];
  }
}

/** A graph with everything that makes or copies a callback manager, and tags and metadata on every level. */
function createGraph(local: Recorder) {
  const model = new FakeListChatModel({
    responses: ["one", "two"],
    tags: ["of the model"],
    metadata: { ls_model_name: "fake" },
    callbacks: [local],
  });
  const shout = tool(async ({ text }: { text: string }) => text.toUpperCase(), {
    name: "shout",
    schema: z.object({ text: z.string() }),
    tags: ["of the tool"],
    metadata: { tool: true },
  });
  const both = RunnableParallel.from({
    model: RunnableLambda.from((text: string) => model.invoke(text)),
    found: new Shelf({ tags: ["of the shelf"] }).withConfig({ metadata: { shelf: 1 } }),
  }).withConfig({ runName: "both", tags: ["of both"], metadata: { run_id: "of both", both: 1 } });
  const inner = new StateGraph(MessagesAnnotation)
    .addNode("inside", async (_state: unknown, config: RunnableConfig) => {
      const { model: answer } = await both.invoke("hello", config);
      return { messages: [answer as BaseMessage] };
    })
    .addEdge("__start__", "inside")
    .compile();
  return new StateGraph(MessagesAnnotation)
    .addNode("inner", inner)
    .addNode("tools", async (_state: unknown, config: RunnableConfig) => {
      const text = (await shout.invoke({ text: "hey" }, config)) as string;
      return { messages: [new AIMessage({ content: text, id: "said" })] };
    })
    .addNode("fails", async (_state: unknown, config: RunnableConfig) => {
      const failing = RunnableLambda.from(() => {
        throw new Error("no luck");
      }).withConfig({ runName: "failing" });
      await failing.invoke(1, config).catch(() => undefined);
      return {};
    })
    .addEdge("__start__", "inner")
    .addEdge("inner", "tools")
    .addConditionalEdges("tools", () => "fails", ["fails"])
    .compile();
}

async function hear(callbacks: (recorder: Recorder) => RunnableConfig["callbacks"]) {
  const [recorder, local, bound] = [new Recorder(), new Recorder("local"), new Recorder("bound")];
  const graph = createGraph(local).withConfig({ callbacks: [bound], tags: ["bound"] });
  const config = {
    callbacks: callbacks(recorder),
    tags: ["of the run"],
    metadata: { run_id: "r", thread: "t" },
    configurable: {
      thread_id: "t",
      ...Object.fromEntries(["a", "b", "c", "d", "e", "f"].map((key) => [key, key])),
    },
    runId: "01890000-0000-7000-8000-000000000000",
  };
  const chunks: unknown[] = [];
  const input = { messages: [{ role: "user", content: "hi", id: "h" }] };
  for await (const chunk of await graph.stream(input, {
    ...config,
    streamMode: ["values", "messages"],
    subgraphs: true,
  }))
    chunks.push(chunk);
  return { heard: recorder.heard, local: local.heard, bound: bound.heard, chunks: chunks.length };
}

test("handlers hear what LangChain's own managers tell them, to the last tag", async () => {
  const usual = await hear((recorder) => [recorder]);
  const ours = await hear((recorder) => RunCallbacks.of([recorder]));
  expect(ours).toEqual(usual);
  expect(usual.heard.length).toBeGreaterThan(20);
  for (const what of ["Chain", "Tool", "Retriever", "ChatModel"])
    expect(usual.heard).toContainEqual(expect.arrayContaining([`handle${what}Start`]));
  expect(usual.local.length).toBeGreaterThan(1);
});

test("a copy is LangChain's own copy, and stays one of these", () => {
  const handlers = [new Recorder("inherited"), new Recorder("local")] as const;
  const make = (manager: CallbackManager): CallbackManager => {
    manager.addHandler(handlers[1], false);
    manager.addTags(["inherited"]);
    manager.addTags(["local"], false);
    manager.addMetadata({ both: "inherited", inherited: 1 });
    manager.addMetadata({ both: "local", local: { deep: [] } }, false);
    return manager;
  };
  const usual = new CallbackManager("parent");
  usual.addHandler(handlers[0]);
  const ours = Object.assign(RunCallbacks.of([handlers[0]]), { _parentRunId: "parent" });
  const more = [new Recorder("more")];
  for (const inherit of [true, false]) {
    const copies = [make(usual).copy(more, inherit), make(ours).copy(more, inherit)] as const;
    expect(Object.entries(copies[1])).toEqual(Object.entries(copies[0]));
    expect(copies[1]).toBeInstanceOf(RunCallbacks);
  }
  // What is added to a copy is not in what it was copied from.
  ours.copy().addMetadata({ later: 1 });
  expect(ours.metadata).not.toHaveProperty("later");
  expect(Object.entries(ours)).toEqual(Object.entries(usual));
});
