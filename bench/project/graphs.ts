/** The two graphs of the benchmark. Every target loads this file, each with its own copy of the packages. */
import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import { BaseChatModel } from "@langchain/core/language_models/chat_models";
import { AIMessage, AIMessageChunk, type BaseMessage } from "@langchain/core/messages";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";
import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";

const TOKENS = 500;

const say = (name: string) => async () => ({ messages: [new AIMessage(`I am ${name}.`)] });

/** Five nodes in a row, each of which adds a message. */
export const five = new StateGraph(MessagesAnnotation)
  .addNode("one", say("one"))
  .addNode("two", say("two"))
  .addNode("three", say("three"))
  .addNode("four", say("four"))
  .addNode("five", say("five"))
  .addEdge("__start__", "one")
  .addEdge("one", "two")
  .addEdge("two", "three")
  .addEdge("three", "four")
  .addEdge("four", "five")
  .compile();

/** A model that has all its tokens at once, so that what is measured is what carries them. */
class TokenModel extends BaseChatModel {
  override _llmType(): string {
    return "tokens";
  }

  override async _generate(): Promise<ChatResult> {
    const content = "token ".repeat(TOKENS);
    return { generations: [{ text: content, message: new AIMessage({ content, id: "answer" }) }] };
  }

  override async *_streamResponseChunks(
    _messages: BaseMessage[],
    _options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    for (let index = 0; index < TOKENS; index += 1) {
      const message = new AIMessageChunk({ content: "token ", id: "answer" });
      const chunk = new ChatGenerationChunk({ text: "token ", message });
      yield chunk;
      await runManager?.handleLLMNewToken("token ", undefined, undefined, undefined, undefined, {
        chunk,
      });
    }
  }
}

const model = new TokenModel({});

/** One node that asks a model, which answers in 500 tokens. */
export const tokens = new StateGraph(MessagesAnnotation)
  .addNode("model", async (state: typeof MessagesAnnotation.State, config) => ({
    messages: [await model.invoke(state.messages, config)],
  }))
  .addEdge("__start__", "model")
  .compile();
