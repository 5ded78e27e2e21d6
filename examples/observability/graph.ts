import {
  Annotation,
  END,
  interrupt,
  START,
  StateGraph,
  type BaseCheckpointSaver,
} from "@langchain/langgraph";

const Order = Annotation.Root({
  order: Annotation<string>,
  total: Annotation<number>,
  decision: Annotation<string>,
});

/** Looks an order up, asks a person, and remembers the decision. */
export function graph(checkpointer: BaseCheckpointSaver) {
  return new StateGraph(Order)
    .addNode("look_up", ({ order }) => ({ total: Number(order) % 100 }))
    .addNode("approve", ({ order, total }) => ({
      decision: interrupt<string, string>(`Refund ${total} EUR for order ${order}?`),
    }))
    .addEdge(START, "look_up")
    .addEdge("look_up", "approve")
    .addEdge("approve", END)
    .compile({ checkpointer });
}
