import { MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { ToolNode, toolsCondition } from "@langchain/langgraph/prebuilt";
import { add, addingModel } from "../langfuse/graphs.ts";

/** A model, a tool, the model again. */
export function toolAgent() {
  const model = addingModel().bindTools([add]);
  return new StateGraph(MessagesAnnotation)
    .addNode("agent", async ({ messages }, config) => ({
      messages: [await model.invoke(messages, config)],
    }))
    .addNode("tools", new ToolNode([add]))
    .addEdge(START, "agent")
    .addConditionalEdges("agent", toolsCondition)
    .addEdge("tools", "agent")
    .compile();
}

export const QUESTION = { messages: [{ role: "user", content: "What is 1 + 2?" }] };
