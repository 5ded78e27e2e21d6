import { StateGraph, type LangGraphRunnableConfig } from "@langchain/langgraph";
import { expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { registryOf, Trail } from "../support/graphs.ts";
import { startServer } from "../support/server.ts";

/** Tells what it was configured with. */
const told = new StateGraph(Trail)
  .addNode("tell", (_state, { configurable, context }: LangGraphRunnableConfig) => ({
    trail: [JSON.stringify([configurable?.["model"], context])],
  }))
  .addEdge("__start__", "tell")
  .compile();

describeDatabases("a graph's own assistant that the environment configures", (databases) => {
  it("is configured so when it is made, and anew where that changes", async () => {
    const graphs = registryOf({ told });
    const specs = (model: string) => ({
      told: {
        id: "told",
        path: import.meta.filename,
        exportName: "told",
        defaults: { config: { configurable: { model } }, context: { tone: "kind" } },
      },
    });
    const first = await startServer(databases, graphs, { config: { graphs: specs("small") } });
    const values = await first.client.runs.wait(null, "told", { input: { input: "x" } });
    expect(values).toMatchObject({ trail: ['["small",{"tone":"kind"}]'] });

    const again = await first.restart();
    const [kept] = await again.client.assistants.search();
    expect(kept).toMatchObject({ version: 1, config: { configurable: { model: "small" } } });

    await again.server.close(0);
    const { database } = first.config;
    const config = { graphs: specs("large"), database };
    const changed = await startServer(databases, graphs, { config });
    const [assistant] = await changed.client.assistants.search();
    expect(assistant).toMatchObject({ version: 2, config: { configurable: { model: "large" } } });
    const later = await changed.client.runs.wait(null, "told", { input: { input: "x" } });
    expect(later).toMatchObject({ trail: ['["large",{"tone":"kind"}]'] });
  });
});
