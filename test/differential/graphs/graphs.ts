/** What both servers serve. They load the same file, each with its own copy of the LangGraph packages. */
import type { CallbackManagerForLLMRun } from "@langchain/core/callbacks/manager";
import { BaseChatModel } from "@langchain/core/language_models/chat_models";
import {
  AIMessage,
  AIMessageChunk,
  HumanMessage,
  ToolMessage,
  type BaseMessage,
} from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { z } from "zod";
import { ChatGenerationChunk, type ChatResult } from "@langchain/core/outputs";
import {
  Annotation,
  Command,
  MessagesAnnotation,
  Send,
  StateGraph,
  interrupt,
  type LangGraphRunnableConfig,
} from "@langchain/langgraph";

const Trail = Annotation.Root({
  input: Annotation<string>(),
  trail: Annotation<string[]>({ reducer: (left, right) => left.concat(right), default: () => [] }),
});
type Trail = typeof Trail.State;

const step = (name: string) => async () => ({ trail: [name] });

/** Two nodes in a row. */
export const steps = new StateGraph(Trail)
  .addNode("one", step("one"))
  .addNode("two", step("two"))
  .addEdge("__start__", "one")
  .addEdge("one", "two")
  .compile();

/** Says three tokens, streamed or not, under an id of its own choice, so that answers can be compared. */
class ScriptedModel extends BaseChatModel {
  override _llmType(): string {
    return "scripted";
  }

  override async _generate(messages: BaseMessage[]): Promise<ChatResult> {
    const message = new AIMessage({ content: "Hello, you!", id: `answer-${messages.length}` });
    return { generations: [{ text: "Hello, you!", message }] };
  }

  override async *_streamResponseChunks(
    messages: BaseMessage[],
    _options: this["ParsedCallOptions"],
    runManager?: CallbackManagerForLLMRun,
  ): AsyncGenerator<ChatGenerationChunk> {
    for (const text of ["Hello", ", ", "you!"]) {
      const message = new AIMessageChunk({ content: text, id: `answer-${messages.length}` });
      const chunk = new ChatGenerationChunk({ text, message });
      yield chunk;
      await runManager?.handleLLMNewToken(text, undefined, undefined, undefined, undefined, {
        chunk,
      });
    }
  }
}

/** A chat model that streams, and a message that is not streamed. */
export const chat = new StateGraph(MessagesAnnotation)
  .addNode("model", async (state: typeof MessagesAnnotation.State, config) => ({
    messages: [await new ScriptedModel({}).invoke(state.messages, config)],
  }))
  .addNode("signature", async () => ({
    messages: [new AIMessage({ content: "Yours, the graph", id: "signature", name: "graph" })],
  }))
  .addEdge("__start__", "model")
  .addEdge("model", "signature")
  .compile();

/** A chat model inside a subgraph. */
export const delegate = new StateGraph(MessagesAnnotation)
  .addNode("ask", async () => ({ messages: [new HumanMessage({ content: "Well?", id: "ask" })] }))
  .addNode("expert", chat)
  .addEdge("__start__", "ask")
  .addEdge("ask", "expert")
  .compile();

/** Asks before it goes on. */
export const approval = new StateGraph(Trail)
  .addNode("prepare", step("prepare"))
  .addNode("ask", async () => {
    const answer: unknown = interrupt({ question: "Go on?" });
    return { trail: [`answer:${JSON.stringify(answer)}`] };
  })
  .addNode("done", step("done"))
  .addEdge("__start__", "prepare")
  .addEdge("prepare", "ask")
  .addEdge("ask", "done")
  .compile();

/** The same, as a subgraph. */
export const nested = new StateGraph(Trail)
  .addNode("outer", step("outer"))
  .addNode("child", approval)
  .addNode("after", step("after"))
  .addEdge("__start__", "outer")
  .addEdge("outer", "child")
  .addEdge("child", "after")
  .compile();

/** Fails in its second node. */
export const failing = new StateGraph(Trail)
  .addNode("fine", step("fine"))
  .addNode("broken", async () => {
    throw new TypeError("The second node is broken");
  })
  .addEdge("__start__", "fine")
  .addEdge("fine", "broken")
  .compile();

/** Never ends by itself. */
export const endless = new StateGraph(Trail)
  .addNode("again", step("again"))
  .addEdge("__start__", "again")
  .addEdge("again", "again")
  .compile();

/** Stays in its second node until it is stopped, or for as many milliseconds as its input says. */
export const slow = new StateGraph(Trail)
  .addNode("before", step("before"))
  .addNode("wait", async (state: Trail, config: LangGraphRunnableConfig) => {
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(resolve, Number(state.input));
      const stop = (): void => {
        clearTimeout(timer);
        reject(new Error("stopped"));
      };
      config.signal?.addEventListener("abort", stop, { once: true });
    });
    return { trail: ["wait"] };
  })
  .addEdge("__start__", "before")
  .addEdge("before", "wait")
  .compile();

/** Sends events of its own, from a node and from its subgraph. */
export const custom = new StateGraph(Trail)
  .addNode("writer", async (_state: Trail, config: LangGraphRunnableConfig) => {
    config.writer?.({ progress: 1 });
    config.writer?.("plain text");
    return { trail: ["writer"] };
  })
  .addNode(
    "child",
    new StateGraph(Trail)
      .addNode("inner", async (_state: Trail, config: LangGraphRunnableConfig) => {
        config.writer?.({ progress: 2 });
        return { trail: ["inner"] };
      })
      .addEdge("__start__", "inner")
      .compile(),
  )
  .addEdge("__start__", "writer")
  .addEdge("writer", "child")
  .compile();

/** Goes where a command sends it, and from there to three tasks at once. */
export const routed = new StateGraph(Trail)
  .addNode("start", async () => new Command({ goto: "right", update: { trail: ["start"] } }), {
    ends: ["left", "right"],
  })
  .addNode("left", step("left"))
  .addNode("right", step("right"))
  .addNode("leaf", async (state: Trail) => ({ trail: [`leaf:${state.input}`] }))
  .addEdge("__start__", "start")
  .addConditionalEdges("right", () => ["a", "b", "c"].map((input) => new Send("leaf", { input })), [
    "leaf",
  ])
  .compile();

const lookUp = tool(
  async ({ city }: { city: string }, config: LangGraphRunnableConfig) => {
    config.writer?.({ looking: city });
    if (city === "Nowhere") throw new RangeError("No such city");
    return `Sun in ${city}`;
  },
  { name: "look_up", description: "The weather", schema: z.object({ city: z.string() }) },
);

/** Calls a tool with its input, as an agent's tool node would. */
export const tools = new StateGraph(MessagesAnnotation)
  .addNode("agent", async (state: typeof MessagesAnnotation.State) => ({
    messages: [
      new AIMessage({
        id: "call",
        content: "",
        tool_calls: [{ id: "call-1", name: "look_up", args: { city: state.messages[0]!.text } }],
      }),
    ],
  }))
  .addNode("tools", async (_state, config: LangGraphRunnableConfig) => {
    const [{ id, args }] = [{ id: "call-1", args: { city: "Oslo" } }];
    const content = String(await lookUp.invoke(args, config));
    return { messages: [new ToolMessage({ id: "result", tool_call_id: id, content })] };
  })
  .addEdge("__start__", "agent")
  .addEdge("agent", "tools")
  .compile();

/** Tells what it found in its config. */
export const inspect = new StateGraph(
  Annotation.Root({
    configurable: Annotation<Record<string, unknown>>(),
    metadata: Annotation<unknown>(),
    tags: Annotation<unknown>(),
    context: Annotation<unknown>(),
    recursionLimit: Annotation<unknown>(),
  }),
)
  .addNode("look", async (_state, config: LangGraphRunnableConfig) => ({
    configurable: Object.fromEntries(
      Object.entries(config.configurable ?? {}).filter(([key]) => !key.startsWith("__")),
    ),
    metadata: config.metadata,
    tags: config.tags,
    context: config.context,
    recursionLimit: config.recursionLimit,
  }))
  .addEdge("__start__", "look")
  .compile();

/** Keeps its input in the store, and gives back what was there. */
export const memory = new StateGraph(Trail)
  .addNode("remember", async (state: Trail, config: LangGraphRunnableConfig) => {
    const item = await config.store?.get(["graph", "memory"], "last");
    // As text at once: the store in memory changes the item it has handed out.
    const before = JSON.stringify(item?.value ?? null);
    await config.store?.put(["graph", "memory"], "last", { input: state.input });
    return { trail: [before] };
  })
  .addEdge("__start__", "remember")
  .compile();

/** Takes and gives something else than its state, and a context. */
export const typed = new StateGraph(
  z.object({
    question: z.string().describe("What is asked"),
    limit: z.number(),
    answer: z.string(),
  }),
  {
    input: z.object({ question: z.string(), limit: z.number().default(3) }),
    output: z.object({ answer: z.string() }),
    context: z.object({ model: z.enum(["small", "large"]) }),
  },
)
  .addNode("reply", () => ({ answer: "Yes" }))
  .addEdge("__start__", "reply")
  .compile();

/** A factory, which is told for what the graph is needed. */
export const factory = async (config: LangGraphRunnableConfig) =>
  new StateGraph(Trail)
    .addNode("made", step(`made for ${String(config.configurable?.["flavour"] ?? "nobody")}`))
    .addEdge("__start__", "made")
    .compile();
