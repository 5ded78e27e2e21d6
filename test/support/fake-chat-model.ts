import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import {
  BaseChatModel,
  type BaseChatModelParams,
} from "@langchain/core/language_models/chat_models";
import { AIMessage, AIMessageChunk, type BaseMessage } from "@langchain/core/messages";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";
import type { Runnable } from "@langchain/core/runnables";

/** One scripted answer: a message, an error to throw, or a message word by word. */
export type Reply = AIMessage | Error;

/** A chat model that answers from a script, streams word by word, takes tools and parameters, and needs no key. */
export class FakeChatModel extends BaseChatModel {
  readonly #replies: readonly Reply[];
  readonly #state: { next: number };
  readonly #options: { model: string; parameters: Record<string, unknown> };

  constructor(
    replies: readonly Reply[],
    options: { model?: string; parameters?: Record<string, unknown> } & BaseChatModelParams = {},
  ) {
    super(options);
    this.#replies = replies;
    this.#state = { next: 0 };
    this.#options = {
      model: options.model ?? "fake-large",
      parameters: options.parameters ?? { temperature: 0 },
    };
  }

  override _llmType(): string {
    return "fake";
  }

  override invocationParams(options?: {
    tools?: unknown[];
    tool_choice?: unknown;
  }): Record<string, unknown> {
    return {
      model: this.#options.model,
      ...this.#options.parameters,
      ...(options?.tools === undefined ? {} : { tools: options.tools }),
      ...(options?.tool_choice === undefined ? {} : { tool_choice: options.tool_choice }),
    };
  }

  override bindTools(tools: unknown[], options?: Record<string, unknown>): Runnable {
    return this.withConfig({ tools, ...options } as object);
  }

  override async _generate(
    _messages: BaseMessage[],
    options: this["ParsedCallOptions"],
  ): Promise<ChatResult> {
    options.signal?.throwIfAborted();
    const reply = this.#reply();
    return { generations: [{ text: textOf(reply), message: reply }] };
  }

  override async *_streamResponseChunks(
    _messages: BaseMessage[],
    _options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    const reply = this.#reply();
    // Of its own for every answer: messages of the same id replace each other in a state.
    const id = `message-${this.#state.next}`;
    const words = textOf(reply).split(/(?<= )/);
    for (const word of words) {
      const chunk = new ChatGenerationChunk({
        text: word,
        message: new AIMessageChunk({ content: word, id }),
      });
      yield chunk;
      await runManager?.handleLLMNewToken(word, undefined, undefined, undefined, undefined, {
        chunk,
      });
    }
    const { usage_metadata: usage, tool_calls: calls = [], response_metadata: metadata } = reply;
    const last = new AIMessageChunk({
      content: "",
      id,
      ...(usage === undefined ? {} : { usage_metadata: usage }),
      response_metadata: metadata,
      tool_call_chunks: calls.map((call, index) => ({
        type: "tool_call_chunk",
        index,
        name: call.name,
        args: JSON.stringify(call.args),
        ...(call.id === undefined ? {} : { id: call.id }),
      })),
    });
    yield new ChatGenerationChunk({ text: "", message: last });
  }

  #reply(): AIMessage {
    const reply = this.#replies[this.#state.next % this.#replies.length];
    this.#state.next += 1;
    if (reply === undefined) throw new Error("the script is empty");
    if (reply instanceof Error) throw reply;
    return reply;
  }
}

function textOf(message: AIMessage): string {
  return typeof message.content === "string" ? message.content : "";
}

/** An answer in words. */
export function says(text: string, usage?: { input: number; output: number }): AIMessage {
  return new AIMessage({
    content: text,
    ...(usage === undefined
      ? {}
      : {
          usage_metadata: {
            input_tokens: usage.input,
            output_tokens: usage.output,
            total_tokens: usage.input + usage.output,
          },
        }),
    response_metadata: { model_name: "fake-large", finish_reason: "stop" },
  });
}

/** An answer that asks for a tool. */
export function calls(name: string, args: Record<string, unknown>, id = "call-1"): AIMessage {
  return new AIMessage({ content: "", tool_calls: [{ name, args, id, type: "tool_call" }] });
}
