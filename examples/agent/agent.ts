import { SystemMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import {
  END,
  interrupt,
  MessagesValue,
  START,
  StateGraph,
  StateSchema,
} from "@langchain/langgraph";
import { ToolNode, toolsCondition } from "@langchain/langgraph/prebuilt";
import { z } from "zod";

import { loadModel } from "./model.ts";

/** A stand-in for your own database. */
const ORDERS: Record<string, { item: string; status: string; total: string }> = {
  "1001": { item: "a blue kettle", status: "on its way, arriving tomorrow", total: "39 EUR" },
  "1002": { item: "two desk lamps", status: "delivered on Monday", total: "84 EUR" },
};

const orderId = z.string().describe("The number of the order, such as 1001");

const findOrder = tool(
  ({ order_id }) => {
    const order = ORDERS[order_id];
    if (!order) return `There is no order ${order_id}.`;
    return `Order ${order_id}: ${order.item}, ${order.total}, ${order.status}.`;
  },
  {
    name: "find_order",
    description: "Look up what is in an order, what it cost and where it is",
    schema: z.object({ order_id: orderId }),
  },
);

const refundOrder = tool(
  ({ order_id }) => {
    const order = ORDERS[order_id];
    if (!order) return `There is no order ${order_id}.`;
    // The run stops here until somebody answers: resume it with { approved: true } or { approved: false }.
    const answer = interrupt<RefundQuestion, { approved: boolean; reason?: string }>({
      question: `Refund ${order.total} for order ${order_id} (${order.item})?`,
      action: "refund_order",
      order_id,
    });
    if (!answer.approved) return `The refund was declined. ${answer.reason ?? ""}`.trim();
    return `Refunded ${order.total} for order ${order_id}.`;
  },
  {
    name: "refund_order",
    description: "Pay the price of an order back to the customer. Asks a colleague first.",
    schema: z.object({ order_id: orderId }),
  },
);

interface RefundQuestion {
  question: string;
  action: "refund_order";
  order_id: string;
}

const tools = [findOrder, refundOrder];
const model = (await loadModel()).bindTools(tools);
const instructions = new SystemMessage(
  "You help the customers of a small shop with their orders. Be brief, and use the tools.",
);

const State = new StateSchema({ messages: MessagesValue });

export const graph = new StateGraph(State)
  .addNode("model", async ({ messages }) => ({
    messages: [await model.invoke([instructions, ...messages])],
  }))
  .addNode("tools", new ToolNode(tools))
  .addEdge(START, "model")
  .addConditionalEdges("model", toolsCondition, ["tools", END])
  .addEdge("tools", "model")
  .compile();
