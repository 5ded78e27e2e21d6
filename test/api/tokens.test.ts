import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import {
  BaseChatModel,
  type BaseChatModelCallOptions,
  type BaseChatModelParams,
} from "@langchain/core/language_models/chat_models";
import { AIMessage, AIMessageChunk, type BaseMessage } from "@langchain/core/messages";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";
import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";
import { expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { registryOf } from "../support/graphs.ts";
import { startServer } from "../support/server.ts";

const TOKENS = Array.from({ length: 50 }, (_, index) => `${index} `);

/** Has its tokens at once. */
class QuickModel extends BaseChatModel {
  readonly #tokens: readonly string[];

  constructor(tokens: readonly string[], options: BaseChatModelParams = {}) {
    super(options);
    this.#tokens = tokens;
  }

  override _llmType(): string {
    return "quick";
  }

  override async _generate(): Promise<ChatResult> {
    const text = this.#tokens.join("");
    return { generations: [{ text, message: new AIMessage(text) }] };
  }

  override async *_streamResponseChunks(
    _messages: BaseMessage[],
    _options: BaseChatModelCallOptions,
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    for (const text of this.#tokens) {
      const message = new AIMessageChunk({ content: text, id: "answer" });
      const chunk = new ChatGenerationChunk({ text, message });
      yield chunk;
      await runManager?.handleLLMNewToken(text, undefined, undefined, undefined, undefined, {
        chunk,
      });
    }
  }
}

// Watched by a handler that takes its time.
const model = new QuickModel(TOKENS, {
  callbacks: [
    {
      handleLLMNewToken: () => new Promise((resolve) => setTimeout(resolve, 1)),
    },
  ],
});

const watched = new StateGraph(MessagesAnnotation)
  .addNode("model", async (state: typeof MessagesAnnotation.State, config) => ({
    messages: [await model.invoke(state.messages, config)],
  }))
  .addEdge("__start__", "model")
  .compile();

const emoji = new StateGraph(MessagesAnnotation)
  .addNode("model", async (state: typeof MessagesAnnotation.State, config) => {
    // Its tokens are the text's code units.
    const halves = new QuickModel("a👋b".split(""));
    return { messages: [await halves.invoke(state.messages, config)] };
  })
  .addEdge("__start__", "model")
  .compile();

describeDatabases("tokens", (databases) => {
  it("all arrive, of several runs at once, whatever other handlers do with them", async () => {
    const { client } = await startServer(databases, registryOf({ watched }));
    const read = async (): Promise<string> => {
      let text = "";
      const input = { messages: [{ type: "human", content: "Hello?" }] };
      const stream = client.runs.stream(null, "watched", { input, streamMode: "messages-tuple" });
      for await (const part of stream) {
        if (part.event !== "messages") continue;
        const [message] = part.data as unknown as [{ content: string }];
        text += message.content;
      }
      return text;
    };
    const texts = await Promise.all([read(), read(), read(), read()]);
    expect(texts).toEqual(Array.from({ length: 4 }, () => TOKENS.join("")));
  });

  it("are joined to what the model said where they part a character", async () => {
    const { client } = await startServer(databases, registryOf({ emoji }));
    const { thread_id } = await client.threads.create();
    const input = { messages: [{ role: "user", content: "hi" }] };
    const spoken = async (
      parts: AsyncIterable<{ event: string; data: unknown }>,
    ): Promise<string> => {
      let text = "";
      for await (const { event, data } of parts)
        if (event === "messages") text += (data as [{ content: string }])[0].content;
      return text;
    };
    const options = { input, streamMode: ["messages-tuple" as const], streamResumable: true };
    let runId = "";
    const stream = client.runs.stream(thread_id, "emoji", {
      ...options,
      onRunCreated: (run) => (runId = run.run_id),
    });
    expect(await spoken(stream)).toBe("a👋b");
    expect(await spoken(client.runs.joinStream(thread_id, runId, { lastEventId: "-1" }))).toBe(
      "a👋b",
    );
    const thread = client.threads.stream({ assistantId: "emoji" });
    try {
      const { messages } = thread;
      await thread.run.start({ input });
      let text = "";
      for await (const message of messages) for await (const token of message.text) text += token;
      expect(text).toBe("a👋b");
    } finally {
      await thread.close();
    }
  });
});
