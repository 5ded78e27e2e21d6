import { createServer, type AddressInfo } from "node:net";
import { describe, expect, it } from "vitest";
import { createProject, startChild } from "../support/child-server.ts";
import { createTestDatabases } from "../support/databases.ts";

const GRAPH = `
import { MessagesAnnotation, StateGraph } from "@langchain/langgraph";

export const graph = new StateGraph(MessagesAnnotation)
  .addNode("only", async () => ({}))
  .addEdge("__start__", "only")
  .compile();
`;

describe("a signal as soon as the server answers", () => {
  const databases = createTestDatabases("postgres");

  it("closes it in order, though its banner still waits for Langfuse", async () => {
    const silent = createServer().listen(0, "127.0.0.1");
    databases.defer(async () => silent.close());
    const { databaseUrl, dataDir } = await databases.configure();
    const project = await createProject({
      "graph.ts": GRAPH,
      "aegra.json": JSON.stringify({ graphs: { graph: "./graph.ts:graph" } }),
    });
    databases.defer(project.remove);
    const child = await startChild(project.folder, {
      DATABASE_URL: databaseUrl,
      AEGRA_DATA_DIR: dataDir,
      LANGFUSE_LOGGING: "true",
      LANGFUSE_PUBLIC_KEY: "pk-lf-test",
      LANGFUSE_SECRET_KEY: "sk-lf-test",
      LANGFUSE_HOST: `http://127.0.0.1:${(silent.address() as AddressInfo).port}`,
    });
    databases.defer(() => child.kill());
    expect(await child.kill("SIGTERM")).toBe(0);
    expect(child.output()).toContain("SIGTERM");
  });
});
