import {
  Annotation,
  CompiledStateGraph,
  entrypoint,
  interrupt,
  InMemoryStore,
  MemorySaver,
  StateGraph,
} from "@langchain/langgraph";
import { describe, expect, test } from "vitest";

import { ServerError } from "../errors.ts";
import type { CompiledGraph } from "./compiled.ts";
import { createGraphRegistry } from "./registry.ts";
import type { BindOptions, GraphFactory, LoadedGraph } from "./registry.ts";

const State = Annotation.Root({
  log: Annotation<string[]>({ reducer: (a, b) => [...a, ...b], default: () => [] }),
});

function createCounter(name = "counter") {
  return new StateGraph(State)
    .addNode("first", () => ({ log: ["first"] }))
    .addNode("second", () => ({ log: ["second"] }))
    .addEdge("__start__", "first")
    .addEdge("first", "second")
    .addEdge("second", "__end__")
    .compile({ name });
}

function entry(graph: unknown, id = "g"): LoadedGraph {
  const base = { id, description: "d", path: "/x.ts", exportName: "graph" };
  return { ...base, kind: "graph", graph: graph as CompiledGraph };
}

function factory(create: GraphFactory): LoadedGraph {
  return { ...entry(undefined), kind: "factory", factory: create };
}

function options(overrides: Partial<BindOptions> = {}): BindOptions {
  return {
    config: { configurable: {} },
    access: "threads.create_run",
    checkpointer: undefined,
    store: undefined,
    ...overrides,
  };
}

/** Everything a graph holds, as far as two levels of own properties. */
function snapshot(graph: CompiledGraph) {
  return Object.entries(graph).map(([key, value]: [string, unknown]) => [
    key,
    value,
    typeof value === "object" && value !== null ? Object.entries(value) : undefined,
  ]);
}

async function refusal(bound: Promise<unknown>): Promise<ServerError> {
  const error: unknown = await bound.catch((thrown: unknown) => thrown);
  if (error instanceof ServerError) return error;
  throw new Error("expected a refusal");
}

const replaced = () => Promise.resolve({ log: ["replaced"] });

describe("bind", () => {
  test("gives a copy with its own checkpointer and store, and leaves the shared graph as it was", async () => {
    const graph = createCounter() as unknown as CompiledGraph;
    const before = structuredClone(Object.keys(graph.nodes));
    const frozen = snapshot(graph);
    const registry = createGraphRegistry([entry(graph)]);
    const savers = [new MemorySaver(), new MemorySaver()];
    const stores = [new InMemoryStore(), new InMemoryStore()];
    const bound = await Promise.all(
      savers.map((checkpointer, i) =>
        registry.bind("g", options({ checkpointer, store: stores[i] })),
      ),
    );
    expect(bound.map((copy) => copy.checkpointer)).toEqual(savers);
    expect(bound[0]?.checkpointer).toBe(savers[0]);
    expect(bound[1]?.store).toBe(stores[1]);
    expect(bound[0]).not.toBe(bound[1]);
    expect(bound[0]).toBeInstanceOf(CompiledStateGraph);
    expect(bound[0]?.name).toBe("counter");
    expect(graph.checkpointer).toBeUndefined();
    expect(graph.store).toBeUndefined();
    expect(snapshot(graph)).toEqual(frozen);
    expect(Object.keys(graph.nodes)).toEqual(before);
  });

  test("a thousand copies do not grow the shared graph", async () => {
    const flow = entrypoint("flow", async (n: number) => n + 1);
    const registry = createGraphRegistry([entry(flow, "flow"), entry(createCounter(), "counter")]);
    const size = () =>
      JSON.stringify(
        registry
          .ids()
          .map((id) => Reflect.get(registry.describe(id) ?? {}, "graph").triggerToNodes),
      ).length;
    const before = size();
    for (let i = 0; i < 1000; i++) {
      await registry.bind("flow", options());
      await registry.bind("counter", options());
    }
    expect(size()).toBe(before);
  });

  test("concurrent runs keep to their own checkpointer", async () => {
    const registry = createGraphRegistry([entry(createCounter())]);
    const runs = await Promise.all(
      Array.from({ length: 20 }, async (_, i) => {
        const checkpointer = new MemorySaver();
        const graph = await registry.bind("g", options({ checkpointer }));
        const config = { configurable: { thread_id: `t${i}` } };
        await graph.invoke({ log: [`input ${i}`] }, config);
        const threads: string[] = [];
        for await (const tuple of checkpointer.list({})) {
          threads.push(String(tuple.config.configurable?.["thread_id"]));
        }
        return { state: await graph.getState(config), threads: [...new Set(threads)] };
      }),
    );
    runs.forEach(({ state, threads }, i) => {
      expect(threads).toEqual([`t${i}`]);
      expect(state.values).toEqual({ log: [`input ${i}`, "first", "second"] });
    });
  });

  test("the copy streams events of both versions", async () => {
    const registry = createGraphRegistry([entry(createCounter())]);
    const graph = await registry.bind("g", options());
    const names: string[] = [];
    for await (const event of graph.streamEvents({}, { version: "v2" })) names.push(event.event);
    expect(names).toContain("on_chain_end");
    const run = await graph.streamEvents({}, { version: "v3" } as never);
    const methods: unknown[] = [];
    for await (const event of run as AsyncIterable<{ method: string }>) methods.push(event.method);
    expect(methods).toContain("values");
  });

  test("keeps what the graph was configured with", async () => {
    const configured = createCounter().withConfig({ recursionLimit: 1, tags: ["mine"] });
    const registry = createGraphRegistry([entry(configured)]);
    const graph = await registry.bind("g", options());
    expect(graph.config).toMatchObject({ recursionLimit: 1, tags: ["mine"] });
    await expect(graph.invoke({})).rejects.toThrow("Recursion limit of 1");
  });

  test("keeps subclasses and replaced methods", async () => {
    class Special extends CompiledStateGraph<never, never> {
      readonly special = true;
      greet(): string {
        return "hello";
      }
    }
    const plain = createCounter();
    const special = new Special({ ...(plain as object) } as never);
    Reflect.set(special, "getStateLater", replaced);
    const registry = createGraphRegistry([entry(special)]);
    const graph = await registry.bind("g", options());
    expect(graph).toBeInstanceOf(Special);
    expect((graph as unknown as Special).greet()).toBe("hello");
    expect(Reflect.get(graph, "getStateLater")).toBe(replaced);
    expect(await graph.invoke({})).toEqual({ log: ["first", "second"] });
  });

  test("interrupts of a subgraph land in the copy's checkpointer", async () => {
    const inner = new StateGraph(State)
      .addNode("ask", () => ({ log: [String(interrupt("sure?"))] }))
      .addEdge("__start__", "ask")
      .compile();
    const outer = new StateGraph(State)
      .addNode("inner", inner)
      .addEdge("__start__", "inner")
      .compile({ checkpointer: false });
    const registry = createGraphRegistry([entry(outer)]);
    const checkpointer = new MemorySaver();
    const graph = await registry.bind("g", options({ checkpointer }));
    const config = { configurable: { thread_id: "t" } };
    await graph.invoke({ log: [] }, config);
    const state = await graph.getState(config, { subgraphs: true });
    expect(state.tasks[0]?.interrupts).toMatchObject([{ value: "sure?" }]);
  });
});

describe("a factory", () => {
  test("runs anew for every bind, and learns why", async () => {
    const seen: unknown[] = [];
    const registry = createGraphRegistry([
      factory((config, runtime) => {
        seen.push([config.configurable?.["n"], runtime]);
        return createCounter(`graph ${String(config.configurable?.["n"])}`);
      }),
    ]);
    const first = await registry.bind(
      "g",
      options({ config: { configurable: { n: 1 } }, context: { c: 1 } }),
    );
    const second = await registry.bind(
      "g",
      options({ config: { configurable: { n: 2 } }, access: "assistants.read" }),
    );
    expect([first.name, second.name]).toEqual(["graph 1", "graph 2"]);
    expect(seen).toEqual([
      [1, { accessContext: "threads.create_run", executionRuntime: { context: { c: 1 } } }],
      [2, { accessContext: "assistants.read", executionRuntime: null }],
    ]);
  });

  test("that returns the same graph every time does not share it", async () => {
    const shared = createCounter();
    const registry = createGraphRegistry([factory(() => shared)]);
    const checkpointer = new MemorySaver();
    const bound = await registry.bind("g", options({ checkpointer }));
    expect(bound.checkpointer).toBe(checkpointer);
    expect(shared.checkpointer).toBeUndefined();
  });

  test("that throws, or returns no graph, makes the graph unavailable", async () => {
    const cause = new Error("no key");
    const throwing = await refusal(
      createGraphRegistry([
        factory(() => {
          throw cause;
        }),
      ]).bind("g", options()),
    );
    expect(throwing).toMatchObject({
      code: "graph_unavailable",
      message: 'Graph "g" could not be built: no key',
      cause,
    });
    const empty = await refusal(createGraphRegistry([factory(() => ({}))]).bind("g", options()));
    expect(empty).toMatchObject({
      code: "graph_unavailable",
      message: 'Graph "g" could not be built: its factory returned no graph',
    });
  });
});

test("unknown and failed graphs are refused", async () => {
  const error = {
    message: "TypeError: broken",
    file: "/x.ts",
    line: 3,
    column: 1,
    excerpt: undefined,
  };
  const failed: LoadedGraph = { ...entry(undefined, "bad"), kind: "failed", error };
  const registry = createGraphRegistry([failed, entry(createCounter(), "good")]);
  expect(registry.ids()).toEqual(["bad", "good"]);
  expect([registry.has("bad"), registry.has("other")]).toEqual([true, false]);
  expect(registry.describe("good")?.description).toBe("d");
  expect(registry.failures()).toEqual([{ id: "bad", error }]);
  expect(await refusal(registry.bind("other", options()))).toMatchObject({
    code: "not_found",
    message: 'Graph "other" not found',
  });
  expect(await refusal(registry.bind("bad", options()))).toMatchObject({
    code: "graph_unavailable",
    message: 'Graph "bad" failed to load: TypeError: broken',
  });
});
