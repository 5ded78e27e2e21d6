import { setTimeout as sleep } from "node:timers/promises";

import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import {
  BaseChatModel,
  type BaseChatModelCallOptions,
  type BindToolsInput,
} from "@langchain/core/language_models/chat_models";
import {
  AIMessageChunk,
  HumanMessage,
  ToolMessage,
  type BaseMessage,
} from "@langchain/core/messages";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";

interface CallOptions extends BaseChatModelCallOptions {
  tools?: BindToolsInput[];
}

/**
 * A chat model that needs no network and no key: it recognises orders and refunds in the last message, calls
 * the fitting tool, and streams its answers word by word. The same question always gets the same answer.
 */
export class OfflineModel extends BaseChatModel<CallOptions> {
  static override lc_name(): string {
    return "OfflineModel";
  }

  constructor() {
    super({});
  }

  override _llmType(): string {
    return "offline";
  }

  override getLsParams(options: this["ParsedCallOptions"]) {
    return { ...super.getLsParams(options), ls_provider: "offline", ls_model_name: "offline-1" };
  }

  override invocationParams(): Record<string, unknown> {
    return { model: "offline-1", temperature: 0 };
  }

  override bindTools(tools: BindToolsInput[]) {
    return this.withConfig({ tools });
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    const reply = decide(messages);
    const pieces = reply.text.match(/\S+\s*/gu) ?? [];
    for (const text of pieces) {
      await sleep(10, undefined, { signal: options.signal });
      const chunk = toChunk(new AIMessageChunk({ content: text }), text);
      yield chunk;
      await runManager?.handleLLMNewToken(text, undefined, undefined, undefined, undefined, {
        chunk,
      });
    }
    const last = new AIMessageChunk({
      content: "",
      tool_call_chunks: reply.call
        ? [
            {
              type: "tool_call_chunk",
              index: 0,
              id: `call_${messages.length}`,
              name: reply.call.name,
              args: JSON.stringify(reply.call.args),
            },
          ]
        : [],
      response_metadata: {
        model_name: "offline-1",
        finish_reason: reply.call ? "tool_calls" : "stop",
      },
      usage_metadata: countTokens(messages, reply),
    });
    const chunk = toChunk(last, "");
    yield chunk;
    await runManager?.handleLLMNewToken("", undefined, undefined, undefined, undefined, { chunk });
  }

  override async _generate(
    messages: BaseMessage[],
    options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): Promise<ChatResult> {
    let whole: ChatGenerationChunk | undefined;
    for await (const chunk of this._streamResponseChunks(messages, options, runManager)) {
      whole = whole ? whole.concat(chunk) : chunk;
    }
    return { generations: whole ? [whole] : [] };
  }
}

interface Reply {
  text: string;
  call?: { name: "find_order" | "refund_order"; args: { order_id: string } };
}

/** The whole intelligence of this model. */
function decide(messages: BaseMessage[]): Reply {
  const last = messages.at(-1);
  if (last instanceof ToolMessage)
    return { text: `${last.text} Can I help you with anything else?` };
  const question = last instanceof HumanMessage ? last.text : "";
  const order_id = /\b\d{4}\b/u.exec(question)?.[0];
  if (order_id === undefined) {
    return { text: "Hello! Ask me about order 1001 or 1002, or ask me to refund one of them." };
  }
  return /refund|money back/iu.test(question)
    ? { text: "I will ask for the refund. ", call: { name: "refund_order", args: { order_id } } }
    : { text: "Let me look that up. ", call: { name: "find_order", args: { order_id } } };
}

/** Four characters are about one token. */
function countTokens(messages: BaseMessage[], reply: Reply) {
  const input = messages.reduce((sum, message) => sum + message.text.length, 0);
  const output = reply.text.length + (reply.call ? JSON.stringify(reply.call).length : 0);
  const [input_tokens, output_tokens] = [Math.ceil(input / 4), Math.ceil(output / 4)];
  return { input_tokens, output_tokens, total_tokens: input_tokens + output_tokens };
}

function toChunk(message: AIMessageChunk, text: string): ChatGenerationChunk {
  return new ChatGenerationChunk({ message, text });
}
