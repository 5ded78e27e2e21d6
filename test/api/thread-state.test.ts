import { randomUUID } from "node:crypto";
import type { Checkpoint, ThreadState } from "@langchain/langgraph-sdk";
import { Annotation, StateGraph } from "@langchain/langgraph";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import {
  approval,
  five,
  nested,
  nestedQuestion,
  registryOf,
  routed,
  Trail,
} from "../support/graphs.ts";
import { request, startServer, type TestServer } from "../support/server.ts";

type Values = typeof Trail.State;

/** Keeps its input, or a function, which JSON has no word for. */
const odd = new StateGraph(
  Annotation.Root({ ...Trail.spec, input: Annotation<unknown>(), out: Annotation<unknown>() }),
)
  .addNode("odd", ({ input }) => ({
    trail: ["odd"],
    out: input === "function" ? () => 1 : input,
  }))
  .addEdge("__start__", "odd")
  .compile();

describeDatabases("thread state", (databases) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(
      databases,
      registryOf({ five, approval, nested, nestedQuestion, odd, routed }),
    );
  });

  /** A thread on which `graph` has run once. */
  const ran = async (graph: string, input = "x") => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, graph, { input: { input } });
    return thread_id;
  };
  const trails = (states: ThreadState<Values>[]) => states.map(({ values }) => values.trail ?? []);

  it("is empty before a run", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    expect(await client.threads.getState(thread_id)).toEqual({
      values: {},
      next: [],
      tasks: [],
      metadata: null,
      created_at: null,
      checkpoint: null,
      parent_checkpoint: null,
      interrupts: [],
    });
    expect(await client.threads.getHistory(thread_id)).toEqual([]);
  });

  it("is the latest checkpoint, with where it came from", async () => {
    const { client } = server;
    const thread_id = await ran("five");
    const [run] = await client.runs.list(thread_id);
    const state = await client.threads.getState<Values>(thread_id);
    expect(state).toMatchObject({
      values: { input: "x", trail: ["one", "two", "three", "four", "five"] },
      next: [],
      tasks: [],
      interrupts: [],
      checkpoint: { thread_id, checkpoint_ns: "" },
      parent_checkpoint: { thread_id, checkpoint_ns: "" },
      metadata: {
        source: "loop",
        step: 5,
        run_id: run!.run_id,
        graph_id: "five",
        thread_id,
        assistant_id: run!.assistant_id,
      },
    });
    expect(Date.parse(state.created_at!)).toBeGreaterThan(0);
  });

  it("is read at any checkpoint, by id or as a checkpoint", async () => {
    const { client, url } = server;
    const thread_id = await ran("five");
    const history = await client.threads.getHistory<Values>(thread_id);
    const third = history[3]!;
    expect(third.values.trail).toEqual(["one", "two"]);
    expect(third.next).toEqual(["three"]);
    const byId = await client.threads.getState(thread_id, third.checkpoint.checkpoint_id!);
    expect(byId).toEqual(third);
    expect(await client.threads.getState(thread_id, third.checkpoint)).toEqual(third);
    const unknown = await request(url, `/threads/${thread_id}/state/${randomUUID()}`);
    expect(unknown).toMatchObject({ status: 404, json: { code: "not_found" } });
  });

  it("answers only the fields that were asked for", async () => {
    const { client } = server;
    const thread_id = await ran("five");
    const checkpoint = (await client.threads.getState(thread_id)).checkpoint;
    for (const place of [undefined, checkpoint, checkpoint.checkpoint_id!]) {
      const state = await client.threads.getState(thread_id, place, {
        select: ["values.input", "values.nothing", "next"],
      });
      expect(state).toEqual({ values: { input: "x" }, next: [] });
    }
    const history = await client.threads.getHistory(thread_id, {
      limit: 2,
      select: ["values.input", "checkpoint"],
    });
    for (const state of history)
      expect(Object.keys(state).toSorted()).toEqual(["checkpoint", "values"]);
  });

  it("shows a subgraph's state when asked", async () => {
    const { client } = server;
    const thread_id = await ran("nestedQuestion");
    const without = await client.threads.getState(thread_id);
    expect(without.tasks).toMatchObject([
      { name: "child", state: null, interrupts: [{ value: "Inside?" }] },
    ]);
    expect((without as { interrupts?: unknown }).interrupts).toMatchObject([{ value: "Inside?" }]);
    const place = without.tasks[0]!.checkpoint!;
    expect(place).toMatchObject({
      thread_id,
      checkpoint_ns: expect.stringMatching(/^child:/) as string,
    });
    const within = await client.threads.getState(thread_id, undefined, { subgraphs: true });
    expect(within.tasks).toMatchObject([
      { name: "child", state: { values: { trail: ["outer"] }, next: ["inner"] } },
    ]);
    const child = await client.threads.getState(thread_id, place);
    expect(child).toMatchObject({ next: ["inner"], values: { trail: ["outer"] } });
    const done = await client.runs.wait(thread_id, "nestedQuestion", {
      command: { resume: "yes" },
    });
    expect((done as Values).trail).toContain("inner:yes");
  });

  it("takes an update as if a node had made it", async () => {
    const { client } = server;
    const thread_id = await ran("five");
    const { checkpoint } = (await client.threads.updateState(thread_id, {
      values: { trail: ["by hand"] },
      asNode: "two",
    })) as unknown as { checkpoint: Checkpoint };
    expect(checkpoint).toMatchObject({ thread_id, checkpoint_ns: "" });
    const state = await client.threads.getState<Values>(thread_id);
    expect(state.checkpoint.checkpoint_id).toBe(checkpoint.checkpoint_id);
    expect(state.next).toEqual(["three"]);
    expect(state.values.trail.at(-1)).toBe("by hand");
    expect(state.metadata).toMatchObject({ source: "update" });
    const thread = await client.threads.get<Values>(thread_id);
    expect(thread.values).toEqual(state.values);
    // A run without input goes on from there.
    const values = (await client.runs.wait(thread_id, "five", { input: null })) as Values;
    expect(values.trail.slice(5)).toEqual(["by hand", "three", "four", "five"]);
  });

  it("refuses an update the graph refuses", async () => {
    const { client } = server;
    const thread_id = await ran("five");
    await expect(
      client.threads.updateState(thread_id, { values: { trail: ["x"] }, asNode: "nobody" }),
    ).rejects.toMatchObject({ status: 422 });
    const { thread_id: fresh } = await client.threads.create();
    await expect(
      client.threads.updateState(fresh, { values: { trail: ["x"] } }),
    ).rejects.toMatchObject({
      status: 422,
      text: expect.stringContaining("has no graph ID") as string,
    });
  });

  it("takes an update of a thread that only has a graph so far", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create({ graphId: "five" });
    await client.threads.updateState(thread_id, {
      values: { input: "x", trail: ["zero"] },
      asNode: "__start__",
    });
    const values = (await client.runs.wait(thread_id, "five", { input: null })) as Values;
    expect(values.trail).toEqual(["zero", "one", "two", "three", "four", "five"]);
  });

  it("forks when an older checkpoint is updated", async () => {
    const { client } = server;
    const thread_id = await ran("five");
    const before = await client.threads.getHistory<Values>(thread_id, { limit: 50 });
    const old = before.find(({ next }) => next[0] === "three")!;
    await client.threads.updateState(thread_id, {
      values: { trail: ["fork"] },
      checkpointId: old.checkpoint.checkpoint_id!,
      asNode: "four",
    });
    const state = await client.threads.getState<Values>(thread_id);
    expect(state.values.trail).toEqual(["one", "two", "fork"]);
    expect(state.next).toEqual(["five"]);
    expect(state.parent_checkpoint?.checkpoint_id).toBe(old.checkpoint.checkpoint_id);
    // The branch before is still there.
    const after = await client.threads.getHistory<Values>(thread_id, { limit: 50 });
    expect(after.slice(1)).toEqual(before);
  });

  it("lists history newest first, a page at a time", async () => {
    const { client, url } = server;
    const thread_id = await ran("five");
    const all = await client.threads.getHistory<Values>(thread_id, { limit: 50 });
    expect(trails(all).map(({ length }) => length)).toEqual([5, 4, 3, 2, 1, 0, 0]);
    expect(all.map(({ metadata }) => metadata?.["step"])).toEqual([5, 4, 3, 2, 1, 0, -1]);
    expect(all[5]!.tasks).toMatchObject([{ name: "one" }]);
    expect(await client.threads.getHistory(thread_id, { limit: 2 })).toEqual(all.slice(0, 2));
    const third = all[2]!.checkpoint;
    const rest = all.slice(3);
    for (const before of [
      third.checkpoint_id,
      { configurable: { checkpoint_id: third.checkpoint_id } },
      third,
    ]) {
      expect(
        await client.threads.getHistory(thread_id, { limit: 50, before: before as never }),
      ).toEqual(rest);
    }
    const got = await request(
      url,
      `/threads/${thread_id}/history?limit=2&before=${third.checkpoint_id}`,
    );
    expect(got.json).toEqual(rest.slice(0, 2));
    const nonsense = await request(url, `/threads/${thread_id}/history`, {
      json: { before: { nothing: "here" } },
    });
    expect(nonsense).toMatchObject({
      status: 422,
      json: { detail: expect.stringContaining("before") as string },
    });
  });

  it("filters history by metadata and by checkpoint", async () => {
    const { client } = server;
    const thread_id = await ran("five");
    await client.runs.wait(thread_id, "five", {
      input: { input: "again" },
      metadata: { round: "second" },
    });
    const all = await client.threads.getHistory<Values>(thread_id, { limit: 50 });
    expect(all).toHaveLength(14);
    const second = await client.threads.getHistory<Values>(thread_id, {
      limit: 50,
      metadata: { round: "second" },
    });
    expect(second).toEqual(all.slice(0, 7));
    expect(
      await client.threads.getHistory(thread_id, { metadata: { source: "input" } }),
    ).toHaveLength(2);
    const one = all[4]!.checkpoint;
    const from = await client.threads.getHistory(thread_id, {
      limit: 50,
      checkpoint: { checkpoint_id: one.checkpoint_id },
    });
    expect(from[0]).toEqual(all[4]);
  });

  it("lets a run start from an older checkpoint, once", async () => {
    const { client } = server;
    const thread_id = await ran("five");
    const history = await client.threads.getHistory<Values>(thread_id, { limit: 50 });
    const old = history.find(({ next }) => next[0] === "four")!;
    for (const place of [
      { checkpointId: old.checkpoint.checkpoint_id! },
      { checkpoint: old.checkpoint },
      { config: { configurable: { checkpoint_id: old.checkpoint.checkpoint_id! } } },
    ]) {
      const forked = (await client.runs.wait(thread_id, "five", {
        input: null,
        ...place,
      })) as Values;
      expect(forked.trail).toEqual(["one", "two", "three", "four", "five"]);
      const state = await client.threads.getState<Values>(thread_id);
      expect(state.values.trail).toHaveLength(5);
      const branch = await client.threads.getHistory<Values>(thread_id, { limit: 2 });
      expect(branch[1]!.next).toEqual(["five"]);
    }
    // The next run goes on from the newest state, not from the fork's place.
    const next = (await client.runs.wait(thread_id, "five", {
      input: { input: "more" },
    })) as Values;
    expect(next.trail).toHaveLength(10);
    const again = (await client.runs.wait(thread_id, "five", {
      input: { input: "more" },
    })) as Values;
    expect(again.trail).toHaveLength(15);
  });

  it("gives a run from an older checkpoint that checkpoint's values", async () => {
    const { client } = server;
    const thread_id = await ran("five", "first");
    const [first] = await client.threads.getHistory<Values>(thread_id, { limit: 1 });
    await client.runs.wait(thread_id, "five", { input: { input: "second" } });
    const forked = (await client.runs.wait(thread_id, "five", {
      input: { input: "third" },
      checkpointId: first!.checkpoint.checkpoint_id!,
    })) as Values;
    expect(forked).toMatchObject({ input: "third" });
    expect(forked.trail).toHaveLength(10);
    expect((await client.threads.get<Values>(thread_id)).values).toEqual(forked);
    expect((await client.threads.getState<Values>(thread_id)).values).toEqual(forked);
  });

  it("does not start from a checkpoint that is not there", async () => {
    const { client } = server;
    const thread_id = await ran("five");
    const answer = await client.runs.wait(thread_id, "five", {
      input: null,
      checkpointId: "1ef00000-0000-6000-8000-000000000000",
      raiseError: false,
    });
    expect(answer).toMatchObject({ __error__: { message: expect.any(String) as string } });
  });

  it("is still there after a value that cannot be kept, and after one that looks like LangChain's", async () => {
    const { client } = server;
    const impostor = { lc: 1, type: "constructor", id: ["x"], kwargs: {} };
    for (const [input, kept] of [
      ["function", undefined],
      [impostor, impostor],
    ] as const) {
      const { thread_id } = await client.threads.create();
      await client.runs.wait(thread_id, "odd", { input: { input } });
      const state = await client.threads.getState(thread_id);
      expect(state).toMatchObject({ next: [], values: { trail: ["odd"] } });
      expect((state.values as { out?: unknown }).out).toEqual(kept);
      expect((await client.threads.getHistory(thread_id)).length).toBeGreaterThan(1);
      const again = await client.runs.wait(thread_id, "odd", { input: { input: "x" } });
      expect(again).toMatchObject({ trail: ["odd", "odd"], out: "x" });
    }
  });
});
