import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import { BaseChatModel } from "@langchain/core/language_models/chat_models";
import { AIMessage, AIMessageChunk, type BaseMessage } from "@langchain/core/messages";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";
import { MessagesAnnotation, StateGraph, interrupt } from "@langchain/langgraph";

/** A chat in the test's hands: an answer to a text that begins with "slow" waits for `release` halfway. */
export interface ControlledChat {
  graph: unknown;
  /** Lets every slow answer that waits, or will, go on to its end. */
  release(): void;
  /** Slow answers wait again. */
  hold(): void;
}

/**
 * Echoes what a person says, word by word. "approve ..." asks before it answers; "slow ..." stops after the
 * first word until it is released or aborted.
 */
export function createControlledChat(): ControlledChat {
  const gate = createGate();
  const model = new EchoModel(gate);
  const graph = new StateGraph(MessagesAnnotation)
    .addNode("review", (state) => {
      const said = state.messages.at(-1)?.text ?? "";
      if (!said.startsWith("approve")) return {};
      const answer: unknown = interrupt({ question: `May I answer "${said}"?` });
      return { messages: [new AIMessage(`You said ${String(answer)}.`)] };
    })
    .addNode("answer", async (state, config) => ({
      messages: [await model.invoke(state.messages, config)],
    }))
    .addEdge("__start__", "review")
    .addEdge("review", "answer")
    .compile();
  return { graph, release: gate.open, hold: gate.close };
}

interface Gate {
  open: () => void;
  close: () => void;
  passed: (signal: AbortSignal | undefined) => Promise<void>;
}

function createGate(): Gate {
  const changes = new EventTarget();
  let isOpen = false;
  return {
    open() {
      isOpen = true;
      changes.dispatchEvent(new Event("open"));
    },
    close() {
      isOpen = false;
    },
    async passed(signal) {
      if (isOpen) return;
      await new Promise<void>((resolve, reject) => {
        changes.addEventListener("open", () => resolve(), { once: true });
        signal?.addEventListener("abort", () => reject(new Error("aborted")), { once: true });
      });
    },
  };
}

class EchoModel extends BaseChatModel {
  readonly #gate: Gate;

  constructor(gate: Gate) {
    super({});
    this.#gate = gate;
  }

  override _llmType(): string {
    return "echo";
  }

  override async _generate(
    messages: BaseMessage[],
    options: this["ParsedCallOptions"],
  ): Promise<ChatResult> {
    let text = "";
    for await (const chunk of this._streamResponseChunks(messages, options)) text += chunk.text;
    return { generations: [{ text, message: new AIMessage(text) }] };
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    const human = messages.findLast((message) => message.type === "human");
    const said = human?.text ?? "";
    const id = `answer-${crypto.randomUUID()}`;
    const words = `You wrote: ${said}`.split(/(?<= )/);
    for (const [index, word] of words.entries()) {
      if (index === 1 && said.startsWith("slow")) await this.#gate.passed(options.signal);
      const message = new AIMessageChunk({ content: word, id });
      const chunk = new ChatGenerationChunk({ text: word, message });
      yield chunk;
      await runManager?.handleLLMNewToken(word, undefined, undefined, undefined, undefined, {
        chunk,
      });
    }
  }
}
