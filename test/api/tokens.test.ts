import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import {
  BaseChatModel,
  type BaseChatModelCallOptions,
} from "@langchain/core/language_models/chat_models";
import { AIMessage, AIMessageChunk, type BaseMessage } from "@langchain/core/messages";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";
import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";
import { expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { registryOf } from "../support/graphs.ts";
import { startServer } from "../support/server.ts";

const TOKENS = Array.from({ length: 50 }, (_, index) => `${index} `);

/** Has its tokens at once, and is watched by a handler that takes its time. */
class WatchedModel extends BaseChatModel {
  override _llmType(): string {
    return "watched";
  }

  override async _generate(): Promise<ChatResult> {
    const message = new AIMessage(TOKENS.join(""));
    return { generations: [{ text: TOKENS.join(""), message }] };
  }

  override async *_streamResponseChunks(
    _messages: BaseMessage[],
    _options: BaseChatModelCallOptions,
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    for (const text of TOKENS) {
      const message = new AIMessageChunk({ content: text, id: "answer" });
      const chunk = new ChatGenerationChunk({ text, message });
      yield chunk;
      await runManager?.handleLLMNewToken(text, undefined, undefined, undefined, undefined, {
        chunk,
      });
    }
  }
}

const model = new WatchedModel({
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
});
