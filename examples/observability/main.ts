/**
 * A LangGraph.js graph in a plain script, without a server, traced to Langfuse. The variables are those of the
 * server: LANGFUSE_LOGGING=true, LANGFUSE_PUBLIC_KEY, LANGFUSE_SECRET_KEY, LANGFUSE_HOST.
 */
import { existsSync } from "node:fs";
import { Command, MemorySaver } from "@langchain/langgraph";
import { openTracing } from "aegra/observability";
import { graph } from "./graph.ts";

if (existsSync(".env")) process.loadEnvFile();

const tracing = await openTracing();
const approvals = tracing.trace(graph(new MemorySaver()), { name: "Approvals" });

// Session and user come with each call, and so may tags and metadata.
const config = {
  configurable: { thread_id: "order-1001", user_id: "ada" },
  tags: ["example"],
  metadata: { shop: "kettles" },
};
const asked = await approvals.invoke({ order: "1001" }, config);
console.log("asked:", JSON.stringify(asked));

// The answer is a trace of its own in the same session, and names the run it answers.
for await (const chunk of await approvals.stream(new Command({ resume: "yes" }), config)) {
  console.log("chunk:", JSON.stringify(chunk));
}

await tracing.flush();
for (const { name, message } of tracing.status()) console.log(`${name}: ${message}`);
await tracing.close();
