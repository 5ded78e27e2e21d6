import { tool } from "@langchain/core/tools";
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { z } from "zod";
import { single } from "./graphs.ts";

const add = tool(async ({ left, right }) => left + right, {
  name: "add",
  description: "Adds two numbers",
  schema: z.object({ left: z.number(), right: z.number() }),
});

/** Calls a tool, as an agent's tool node does. */
export const calculator = single(async (_state, config: LangGraphRunnableConfig) => {
  const call = {
    type: "tool_call",
    id: "call-1",
    name: "add",
    args: { left: 2, right: 3 },
  } as const;
  const message = await add.invoke(call, config);
  return { trail: [String((message as { content: unknown }).content)] };
});

/** Sends custom events: one without a name, and two of its own channels. */
export const channels = single((_state, config: LangGraphRunnableConfig) => {
  config.writer?.({ percent: 10 });
  config.writer?.({ name: "progress", payload: { percent: 50 } });
  config.writer?.({ name: "a|b c", payload: "odd" });
  return { trail: ["sent"] };
});
