/** The graphs of `npm run bench -- scale`, beside those of `bench/project`. */
import { AIMessage } from "@langchain/core/messages";
import {
  Annotation,
  MessagesAnnotation,
  StateGraph,
  type LangGraphRunnableConfig,
} from "@langchain/langgraph";

const NODE_MS = 50;
const TICK_MS = 10;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const wait = (name: string) => async () => {
  await sleep(NODE_MS);
  return { messages: [new AIMessage(`I am ${name}.`)] };
};

/** Five nodes that wait, as for a model. */
export const patient = new StateGraph(MessagesAnnotation)
  .addNode("one", wait("one"))
  .addNode("two", wait("two"))
  .addNode("three", wait("three"))
  .addNode("four", wait("four"))
  .addNode("five", wait("five"))
  .addEdge("__start__", "one")
  .addEdge("one", "two")
  .addEdge("two", "three")
  .addEdge("three", "four")
  .addEdge("four", "five")
  .compile();

const Ticks = Annotation.Root({
  /** Events in a second. */
  rate: Annotation<number>(),
  seconds: Annotation<number>(),
});

/** Says the time, so many times a second. */
export const ticker = new StateGraph(Ticks)
  .addNode("tick", async ({ rate, seconds }, config: LangGraphRunnableConfig) => {
    const begun = performance.now();
    let said = 0;
    while (said < rate * seconds) {
      const due = Math.min(rate * seconds, ((performance.now() - begun) / 1_000) * rate);
      for (; said < due; said += 1)
        config.writer?.({ at: performance.timeOrigin + performance.now() });
      await sleep(TICK_MS);
    }
    return {};
  })
  .addEdge("__start__", "tick")
  .compile();

/** Says nothing for a while. */
export const sleeper = new StateGraph(Ticks)
  .addNode("sleep", async ({ seconds }, config: LangGraphRunnableConfig) => {
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, seconds * 1_000);
      config.signal?.addEventListener("abort", () => {
        clearTimeout(timer);
        resolve();
      });
    });
    return {};
  })
  .addEdge("__start__", "sleep")
  .compile();
