import { AIMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { Annotation, START, StateGraph } from "@langchain/langgraph";
import { z } from "zod";
import { calls, FakeChatModel, says } from "../support/fake-chat-model.ts";

export const State = Annotation.Root({
  count: Annotation<number>({ reducer: (left, right) => left + right, default: () => 0 }),
  notes: Annotation<string[]>({ reducer: (left, right) => [...left, ...right], default: () => [] }),
});

export const add = tool(({ a, b }) => String(a + b), {
  name: "add",
  description: "Adds two numbers.",
  schema: z.object({ a: z.number(), b: z.number() }),
});

/** Asks for `add` once, then answers. */
export function addingModel(): FakeChatModel {
  return new FakeChatModel(
    [calls("add", { a: 1, b: 2 }), says("It is 3.", { input: 40, output: 4 })],
    {
      parameters: {
        temperature: 0.2,
        max_completion_tokens: 100,
        seed: 7,
        stop: ["END"],
        response_format: { type: "text" },
      },
    },
  );
}

/** One node that adds one. */
export function counting(name = "deep") {
  return new StateGraph(State)
    .addNode(name, () => ({ count: 1 }))
    .addEdge(START, name as never)
    .compile();
}

/** A graph of one node. */
export function single(
  work: (state: typeof State.State, config: object) => unknown,
  name = "work",
) {
  return new StateGraph(State)
    .addNode(name, work as never)
    .addEdge(START, name as never)
    .compile();
}

/** An answer whose usage is in the place and shape of some provider. */
export function answerWith(fields: {
  usage_metadata?: object;
  response_metadata?: object;
}): AIMessage {
  return new AIMessage({ content: "ok", ...fields } as ConstructorParameters<typeof AIMessage>[0]);
}
