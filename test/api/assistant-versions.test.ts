import { StateGraph, StateSchema } from "@langchain/langgraph";
import { expect, it } from "vitest";
import { z } from "zod";
import { describeDatabases } from "../support/databases.ts";
import { five, inspect, registryOf, Trail } from "../support/graphs.ts";
import { startServer } from "../support/server.ts";

const typed = new StateGraph(new StateSchema({ city: z.string(), days: z.number().default(1) }))
  .addNode("only", () => ({ city: "Bern" }))
  .addEdge("__start__", "only")
  .compile();

const step = (name: string) => () => ({ trail: [name] });
/** LangGraph draws a subgraph of a single node as that node, so this one has two. */
const nested = new StateGraph(Trail)
  .addNode("outer", step("outer"))
  .addNode(
    "child",
    new StateGraph(Trail)
      .addNode("inner", step("inner"))
      .addNode("last", step("last"))
      .addEdge("__start__", "inner")
      .addEdge("inner", "last")
      .compile(),
  )
  .addEdge("__start__", "outer")
  .addEdge("outer", "child")
  .compile();

const Question = z.object({
  question: z.string().describe("What is asked"),
  limit: z.number().default(3),
});
const Answer = z.object({ answer: z.string() });
/** Takes and gives something else than its state, and a context. */
const zod = new StateGraph(Question.extend(Answer.shape), {
  input: Question,
  output: Answer,
  context: z.object({ model: z.enum(["small", "large"]) }),
})
  .addNode("only", () => ({ answer: "Yes" }))
  .addEdge("__start__", "only")
  .compile();

/** A graph in a graph in a graph. */
const deep = new StateGraph(Trail)
  .addNode(
    "middle",
    new StateGraph(Trail).addNode("nested", nested).addEdge("__start__", "nested").compile(),
  )
  .addEdge("__start__", "middle")
  .compile();

describeDatabases("assistants and their versions", (databases) => {
  const start = () =>
    startServer(databases, registryOf({ five, inspect, nested, typed, zod, deep }));
  let started: ReturnType<typeof start> | undefined;
  const server = () => (started ??= start());

  it("keeps every version, and puts any of them in force", async () => {
    const { client } = await server();
    const { assistant_id: id } = await client.assistants.create({
      graphId: "inspect",
      name: "First",
      description: "says who it is",
      config: { configurable: { tone: "dry" } },
      metadata: { team: "a" },
    });
    const second = await client.assistants.update(id, {
      name: "Second",
      config: { configurable: { tone: "warm" } },
      metadata: { stage: "beta" },
    });
    expect(second).toMatchObject({
      version: 2,
      name: "Second",
      graph_id: "inspect",
      description: "says who it is",
      metadata: { team: "a", stage: "beta" },
    });
    expect((await client.assistants.update(id, { name: "Third" })).version).toBe(3);
    const versions = await client.assistants.getVersions(id);
    expect(versions.map((version) => [version.version, version.name])).toEqual([
      [3, "Third"],
      [2, "Second"],
      [1, "First"],
    ]);
    const beta = await client.assistants.getVersions(id, { metadata: { stage: "beta" }, limit: 1 });
    expect(beta.map((version) => version.version)).toEqual([3]);

    const back = await client.assistants.setLatest(id, 1);
    expect(back).toMatchObject({ version: 1, name: "First", metadata: { team: "a" } });
    const values = (await client.runs.wait(null, id, { input: {} })) as {
      configurable: Record<string, unknown>;
    };
    expect(values.configurable["tone"]).toBe("dry");
    expect((await client.assistants.update(id, { name: "Fourth" })).version).toBe(4);
    await expect(client.assistants.setLatest(id, 99)).rejects.toThrow("no version 99");
  });

  it("numbers versions of concurrent updates without a gap or a clash", async () => {
    const { client } = await server();
    const { assistant_id: id } = await client.assistants.create({ graphId: "five" });
    await client.assistants.update(id, { name: "x" });
    await client.assistants.setLatest(id, 1);
    await Promise.all(
      Array.from({ length: 8 }, (_, index) => client.assistants.update(id, { name: `n${index}` })),
    );
    const versions = await client.assistants.getVersions(id, { limit: 50 });
    expect(versions.map(({ version }) => version)).toEqual([10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
  });

  it("deletes an assistant, with its threads where asked", async () => {
    const { client } = await server();
    const { assistant_id: id } = await client.assistants.create({ graphId: "five" });
    const thread = await client.threads.create();
    await client.runs.wait(thread.thread_id, id, { input: { input: "x" } });
    await client.assistants.delete(id, { deleteThreads: true });
    await expect(client.assistants.get(id)).rejects.toThrow("404");
    await expect(client.threads.get(thread.thread_id)).rejects.toThrow("404");
    await expect(client.assistants.delete(id)).rejects.toThrow("404");
    await expect(client.assistants.delete("five")).rejects.toThrow("409");
    expect((await client.assistants.get("five")).graph_id).toBe("five");
  });

  it("draws the graph, and opens subgraphs with xray", async () => {
    const { client } = await server();
    const closed = await client.assistants.getGraph("nested");
    expect(closed.nodes.map((node) => node.id)).toEqual(
      expect.arrayContaining(["__start__", "outer", "child"]),
    );
    expect(closed.edges).toContainEqual(
      expect.objectContaining({ source: "outer", target: "child" }),
    );
    const open = await client.assistants.getGraph("nested", { xray: true });
    expect(open.nodes.map((node) => node.id)).toContain("child:inner");
    const shallow = await client.assistants.getGraph("nested", { xray: 1 });
    expect(shallow.nodes.map((node) => node.id)).toContain("child:inner");
    const nodes = async (xray: number) =>
      (await client.assistants.getGraph("deep", { xray })).nodes.map((node) => node.id).join(" ");
    expect(await nodes(0)).not.toContain("inner");
    expect(await nodes(3)).toContain("child:inner");
  });

  it("tells the schemas of a graph and of its subgraphs", async () => {
    const { client } = await server();
    const schemas = await client.assistants.getSchemas("typed");
    expect(schemas).toMatchObject({
      graph_id: "typed",
      state_schema: { properties: { city: { type: "string" }, days: { type: "number" } } },
    });
    const named = await client.assistants.getSchemas("five");
    expect(Object.keys(named.state_schema?.properties ?? {})).toEqual(["input", "trail"]);
    const text = { type: "string" };
    const question = { question: { ...text, description: "What is asked" }, limit: { default: 3 } };
    const context = { properties: { model: { enum: ["small", "large"] } } };
    const zodSchemas = await client.assistants.getSchemas("zod");
    expect(zodSchemas).toMatchObject({
      input_schema: { properties: question },
      output_schema: { properties: { answer: text }, required: ["answer"] },
      state_schema: { properties: { ...question, answer: text } },
      config_schema: context,
      context_schema: context,
    });
    // A client may send any part of an input or a state.
    for (const schema of [zodSchemas.input_schema, zodSchemas.state_schema])
      expect(schema).not.toHaveProperty("required");
    const subgraphs = await client.assistants.getSubgraphs("nested");
    expect(Object.keys(subgraphs)).toEqual(["child"]);
    const names = async (options: { namespace?: string; recurse?: boolean }) =>
      Object.keys(await client.assistants.getSubgraphs("deep", options)).toSorted();
    expect(await names({})).toEqual(["middle"]);
    expect(await names({ recurse: true })).toEqual([
      "middle",
      "middle|nested",
      "middle|nested|child",
    ]);
    expect(await names({ namespace: "middle" })).toEqual(["middle"]);
    expect(await names({ namespace: "middle|nested", recurse: true })).toEqual(["middle|nested"]);
    await expect(client.assistants.getSubgraphs("nested", { namespace: "absent" })).rejects.toThrow(
      "no subgraph",
    );
  });
});
