import { HumanMessage } from "@langchain/core/messages";
import { createReactAgent } from "@langchain/langgraph/prebuilt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { add, addingModel } from "./graphs.ts";
import { openBench, type Invocable, type TraceBench } from "./harness.ts";

let bench: TraceBench;
beforeAll(async () => {
  bench = await openBench();
});
afterAll(() => bench.close());

type Agent = ReturnType<typeof createReactAgent>;

/** The ways in which the server runs a graph; each gives the final state. */
const PATHS: Array<[string, (graph: Agent, input: never, config: object) => Promise<unknown>]> = [
  ["invoke", (graph, input, config) => graph.invoke(input, config)],
  [
    "stream",
    async (graph, input, config) => {
      let last: unknown;
      for await (const part of await graph.stream(input, {
        ...config,
        streamMode: ["values", "messages", "updates"],
        subgraphs: true,
      })) {
        const [, mode, value] = part as unknown as [string[], string, unknown];
        if (mode === "values") last = value;
      }
      return last;
    },
  ],
  [
    "streamEvents",
    async (graph, input, config) => {
      let last: unknown;
      for await (const event of graph.streamEvents(input, { ...config, version: "v2" })) {
        if (event.event === "on_chain_end") last = (event.data as { output?: unknown }).output;
      }
      return last;
    },
  ],
];

test.each(PATHS)("a run by %s gives the tool agent's trace", async (_name, run) => {
  const graph = createReactAgent({ llm: addingModel(), tools: [add] });
  const invocable: Invocable = { invoke: (input, config) => run(graph, input, config ?? {}) };
  const { text, expected } = await bench.trace("tool-agent", invocable, {
    input: { messages: [new HumanMessage("What is 1 + 2?")] },
    run: { tags: ["nightly"], metadata: { customer: "acme" } },
  });
  // A streaming model tells its first token and answers in chunks; all else is the same.
  expect(text.replaceAll(/\n +first token: seen/g, "")).toBe(expected);
});
