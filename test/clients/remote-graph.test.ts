import { Command, MessagesAnnotation, StateGraph } from "@langchain/langgraph";
import { RemoteGraph } from "@langchain/langgraph/remote";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { Trail, approval, chat, failing, five, nested, registryOf } from "../support/graphs.ts";
import { collect, startServer, type TestServer } from "../support/server.ts";

const deep = new StateGraph(Trail).addNode("child", five).addEdge("__start__", "child").compile();

describeDatabases("RemoteGraph", (databases) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(
      databases,
      registryOf({ approval, chat, deep, failing, five, nested }),
    );
  });
  const remote = (graphId: string): RemoteGraph =>
    new RemoteGraph({ graphId, url: server.url, apiKey: "unused" });

  it("is invoked, with and without a thread", async () => {
    const way = ["one", "two", "three", "four", "five"];
    expect(await remote("five").invoke({ input: "x" })).toMatchObject({ trail: way });
    const { thread_id } = await server.client.threads.create();
    const config = { configurable: { thread_id } };
    await remote("five").invoke({ input: "x" }, config);
    expect(await remote("five").invoke({ input: "y" }, config)).toMatchObject({
      trail: [...way, ...way],
    });
  });

  it("streams updates, values and messages", async () => {
    const updates = await collect(
      await remote("five").stream({ input: "x" }, { streamMode: "updates" }),
    );
    expect(updates.map((update) => Object.keys(update as object)[0])).toEqual([
      "one",
      "two",
      "three",
      "four",
      "five",
    ]);
    const modes = await collect(
      await remote("chat").stream(
        { messages: [{ role: "user", content: "Hi" }] },
        { streamMode: ["values", "messages"] },
      ),
    );
    const names = new Set((modes as [string, unknown][]).map(([mode]) => mode));
    expect(names).toEqual(new Set(["values", "messages"]));
  });

  it("streams subgraphs with their namespaces", async () => {
    const parts = (await collect(
      await remote("nested").stream({ input: "x" }, { streamMode: "updates", subgraphs: true }),
    )) as [string[], unknown][];
    expect(parts.some(([namespace]) => namespace[0]?.startsWith("child"))).toBe(true);
  });

  it("asks, is read, written and resumed", async () => {
    const { thread_id } = await server.client.threads.create();
    const config = { configurable: { thread_id } };
    const graph = remote("approval");
    // How RemoteGraph tells of an interrupt is its own matter; the state says it in any case.
    await graph.invoke({ input: "x" }, config).catch((error: unknown) => error);
    const state = await graph.getState(config);
    expect(state.next).toEqual(["ask"]);
    expect(state.tasks[0]?.interrupts[0]?.value).toEqual({ question: "Go on?" });
    await graph.updateState(config, { trail: ["between"] }, "prepare");
    const done = await graph.invoke(new Command({ resume: "yes", goto: [] }), config);
    expect(done).toMatchObject({ trail: ["prepare", "between", "answer:yes", "done"] });
    const history = await collect(graph.getStateHistory(config));
    expect(history.length).toBeGreaterThan(3);
  });

  it("tells failures", async () => {
    await expect(remote("failing").invoke({ input: "x" })).rejects.toThrow(
      "The second node is broken",
    );
  });

  it("is drawn, and is a node of another graph", async () => {
    const drawing = await remote("deep").getGraphAsync({ xray: true });
    expect(Object.keys(drawing.nodes).join()).toContain("one");
    const flat = await remote("deep").getGraphAsync();
    expect(Object.keys(flat.nodes)).toEqual(["__start__", "child", "__end__"]);
    const subgraphs = await collect(remote("deep").getSubgraphsAsync());
    expect(subgraphs.map(([name]) => name)).toEqual(["child"]);
    const parent = new StateGraph(MessagesAnnotation)
      .addNode("far", remote("chat") as never)
      .addEdge("__start__", "far")
      .compile();
    const { messages } = await parent.invoke({ messages: [{ role: "user", content: "Hi" }] });
    expect(messages.at(-1)?.content).toBe("Hello there!");
  });
});
