import { CallbackHandler } from "@langfuse/langchain";
import { Document } from "@langchain/core/documents";
import { Embeddings } from "@langchain/core/embeddings";
import { LLM } from "@langchain/core/language_models/llms";
import { BaseRetriever } from "@langchain/core/retrievers";
import { SystemMessage } from "@langchain/core/messages";
import { START, StateGraph } from "@langchain/langgraph";
import { afterAll, beforeAll, expect, test } from "vitest";
import { traceEmbeddings } from "../../src/observability/embeddings.ts";
import { withoutLangfuseHandlers } from "../../src/observability/foreign-handlers.ts";
import { FakeChatModel, says } from "../support/fake-chat-model.ts";
import { answerWith, single, State } from "./graphs.ts";
import { openBench, type TraceBench } from "./harness.ts";

let bench: TraceBench;
beforeAll(async () => {
  bench = await openBench();
});
afterAll(() => bench.close());

class CityRetriever extends BaseRetriever {
  lc_namespace = ["test"];
  override async _getRelevantDocuments(query: string): Promise<Document[]> {
    return [
      new Document({ pageContent: `Oslo is a city (${query}).`, metadata: { source: "atlas" } }),
    ];
  }
}

test("a retriever", async () => {
  const graph = single(async (_state, config) => {
    const [found] = await new CityRetriever().invoke("capital of Norway", config);
    return { notes: [found?.pageContent ?? ""] };
  });
  const { text, expected } = await bench.trace("retriever", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

class FlatEmbeddings extends Embeddings {
  readonly model = "flat-3";
  override async embedQuery(): Promise<number[]> {
    return [0.1, 0.2, 0.3];
  }
  override async embedDocuments(texts: string[]): Promise<number[][]> {
    return texts.map(() => [0.1, 0.2, 0.3]);
  }
}

test("embeddings", async () => {
  const embeddings = traceEmbeddings(new FlatEmbeddings({}));
  const graph = single(async () => {
    const vectors = await embeddings.embedDocuments(["one", "two"]);
    return { count: vectors.length + (await embeddings.embedQuery("three")).length };
  });
  const { text, expected, output } = await bench.trace("embeddings", graph, {
    input: { count: 0 },
  });
  expect(output).toMatchObject({ count: 5 });
  expect(text).toBe(expected);
});

class Parrot extends LLM {
  override _llmType(): string {
    return "parrot";
  }
  override invocationParams(): Record<string, unknown> {
    return { model: "parrot-1", temperature: 0.5 };
  }
  override async _call(prompt: string): Promise<string> {
    return `${prompt}!`;
  }
}

test("a completion model", async () => {
  const graph = single(async (_state, config) => ({
    notes: [await new Parrot({}).invoke("Polly", config)],
  }));
  const { text, expected } = await bench.trace("completion-model", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("usage in exclusive buckets, from a cache and with reasoning", async () => {
  const model = new FakeChatModel([
    answerWith({
      usage_metadata: {
        input_tokens: 1_000,
        output_tokens: 200,
        total_tokens: 1_200,
        input_token_details: {
          cache_read: 600,
          cache_creation: 100,
          ephemeral_5m_input_tokens: 100,
        },
        output_token_details: { reasoning: 150 },
      },
    }),
    answerWith({
      response_metadata: { usage: { inputTokens: 30, outputTokens: 7, cacheReadInputTokens: 12 } },
    }),
    answerWith({
      response_metadata: { tokenUsage: { promptTokens: 5, completionTokens: 6, totalTokens: 11 } },
    }),
  ]);
  const graph = single(async (_state, config) => {
    for (const question of ["one", "two", "three"]) await model.invoke(question, config);
    return {};
  });
  const { text, expected } = await bench.trace("usage", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("messages of every shape, images cut, a prompt managed in Langfuse", async () => {
  const model = new FakeChatModel([says("A cat.", { input: 9, output: 2 })]);
  const image = `data:image/png;base64,${"A".repeat(50_000)}`;
  const graph = single(async (_state, config) => {
    const messages = [
      new SystemMessage("Be brief."),
      {
        role: "user",
        content: [
          { type: "text", text: "What is it?" },
          { type: "image_url", image_url: { url: image } },
        ],
      },
    ];
    const prompt = { name: "vision", version: 3, isFallback: false };
    await model.invoke(messages, { ...config, metadata: { langfusePrompt: prompt } });
    return {};
  });
  const { text, expected } = await bench.trace("message-shapes", graph, { input: { count: 0 } });
  expect(text).toBe(expected);
});

test("a graph with a Langfuse handler of its own is traced once", async () => {
  const graph = new StateGraph(State)
    .addNode("work", () => ({ count: 1 }))
    .addEdge(START, "work")
    .compile()
    .withConfig({ callbacks: [new CallbackHandler()] });
  const { callbacks, removed } = withoutLangfuseHandlers(graph.config?.callbacks);
  expect(removed).toBe(1);
  const { text, expected } = await bench.trace(
    "own-langfuse-handler",
    graph.withConfig({ callbacks: callbacks ?? [] }),
    {
      input: { count: 0 },
    },
  );
  expect(text).toBe(expected);
});
