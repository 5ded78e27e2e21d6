/** The graphs of `npm run cluster`. They count: every node notes in the state, once, that it ran. */
import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import { BaseChatModel } from "@langchain/core/language_models/chat_models";
import { AIMessage, AIMessageChunk, type BaseMessage } from "@langchain/core/messages";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";
import { tool } from "@langchain/core/tools";
import {
  Annotation,
  StateGraph,
  interrupt,
  type LangGraphRunnableConfig,
} from "@langchain/langgraph";
import { z } from "zod";

const WORDS = 10;
const PAUSE_MS = Number(process.env["LAB_PAUSE_MS"] ?? "10");

const pause = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, PAUSE_MS));

const State = Annotation.Root({
  /** What the run is about; no two runs have the same. */
  turn: Annotation<string>(),
  /** Whether the graph asks before it goes on. */
  asks: Annotation<boolean>(),
  trail: Annotation<string[]>({ reducer: (all, more) => all.concat(more), default: () => [] }),
});

type Node = typeof State.Update;

/** Answers word by word, with a pause between the words. */
class SlowModel extends BaseChatModel {
  override _llmType(): string {
    return "slow";
  }

  override async _generate(): Promise<ChatResult> {
    const content = "word ".repeat(WORDS);
    return { generations: [{ text: content, message: new AIMessage(content) }] };
  }

  override async *_streamResponseChunks(
    _messages: BaseMessage[],
    _options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    for (let index = 0; index < WORDS; index += 1) {
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS / 5));
      const message = new AIMessageChunk({ content: "word " });
      const chunk = new ChatGenerationChunk({ text: "word ", message });
      yield chunk;
      await runManager?.handleLLMNewToken("word ", undefined, undefined, undefined, undefined, {
        chunk,
      });
    }
  }
}

const model = new SlowModel({});

const look = tool(
  async ({ turn }) => {
    await pause();
    return `looked at ${turn}`;
  },
  { name: "look", description: "Looks at something", schema: z.object({ turn: z.string() }) },
);

/** Four nodes: one that listens, one that calls a tool, one that may ask, one that streams an answer. */
export const talk = new StateGraph(State)
  .addNode("hear", async ({ turn }): Promise<Node> => {
    await pause();
    return { trail: [`${turn} hear`] };
  })
  .addNode("use", async ({ turn }, config: LangGraphRunnableConfig): Promise<Node> => {
    config.writer?.({ looking: turn });
    await look.invoke({ turn }, config);
    return { trail: [`${turn} use`] };
  })
  .addNode("ask", async ({ turn, asks }): Promise<Node> => {
    const answer: string = asks ? interrupt({ question: turn }) : "no need";
    return { trail: [`${turn} ask ${answer}`] };
  })
  .addNode("say", async ({ turn }, config: LangGraphRunnableConfig): Promise<Node> => {
    await model.invoke([["human", turn]], config);
    return { trail: [`${turn} say`] };
  })
  .addEdge("__start__", "hear")
  .addEdge("hear", "use")
  .addEdge("use", "ask")
  .addEdge("ask", "say")
  .compile();

/** Done at once; asked for all the time, to see when the cluster answers again. */
export const probe = new StateGraph(State)
  .addNode("only", async (): Promise<Node> => ({ trail: ["only"] }))
  .addEdge("__start__", "only")
  .compile();
