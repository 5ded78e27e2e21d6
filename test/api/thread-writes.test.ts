import { randomUUID } from "node:crypto";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { approval, createFeed, five, registryOf, routed, type Trail } from "../support/graphs.ts";
import { collect, request, startServer, type TestServer } from "../support/server.ts";

type Values = typeof Trail.State;

describeDatabases("threads as clients write them", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five, approval, routed, feed: feed.graph }));
  });

  it("creates a thread with a history, step by step, from which a run goes on", async () => {
    const { client } = server;
    const thread = await client.threads.create({
      graphId: "five",
      supersteps: [
        { updates: [{ values: { input: "made" }, asNode: "__start__" }] },
        { updates: [{ values: { trail: ["by hand"] }, asNode: "one" }] },
        {
          updates: [
            { values: undefined, command: { update: { trail: ["by command"] } }, asNode: "two" },
          ],
        },
      ],
    });
    expect(thread).toMatchObject({
      status: "interrupted",
      values: { input: "made", trail: ["by hand", "by command"] },
    });
    const history = await client.threads.getHistory<Values>(thread.thread_id);
    expect(history.map(({ next }) => next)).toEqual([["three"], ["two"], ["one"]]);
    const values = (await client.runs.wait(thread.thread_id, "five", { input: null })) as Values;
    expect(values.trail).toEqual(["by hand", "by command", "three", "four", "five"]);
  });

  it("creates nothing if a step is refused", async () => {
    const { url } = server;
    const step = (as_node: string) => ({ updates: [{ values: { trail: ["x"] }, as_node }] });
    for (const json of [
      { metadata: { graph_id: "five" }, supersteps: [step("one"), step("nowhere")] },
      { supersteps: [step("one")] },
      { metadata: { graph_id: "five" }, supersteps: [{ updates: [] }] },
      { metadata: { graph_id: "five" }, supersteps: [{ updates: [{ values: {}, as: "one" }] }] },
    ]) {
      const thread_id = randomUUID();
      const answer = await request(url, "/threads", { json: { thread_id, ...json } });
      expect(answer.status).toBe(422);
      expect((await request(url, `/threads/${thread_id}`)).status).toBe(404);
    }
  });

  it("merges into the metadata of the latest state", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create();
    const patch = (metadata: object) =>
      request(url, `/threads/${thread_id}/state`, { method: "PATCH", json: { metadata } });
    expect((await patch({ a: 1 })).status).toBe(404);
    await client.runs.wait(thread_id, "five", { input: { input: "x" } });
    const before = await client.threads.getState(thread_id);
    await client.threads.patchState(thread_id, { rating: 5, source: "loop" });
    await client.threads.patchState({ configurable: { thread_id } }, { note: "good" });
    const after = await client.threads.getState(thread_id);
    expect(after).toEqual({
      ...before,
      metadata: { ...before.metadata, rating: 5, note: "good" },
    });
    const rated = await client.threads.getHistory(thread_id, { metadata: { rating: 5 } });
    expect(rated.map(({ checkpoint }) => checkpoint)).toEqual([after.checkpoint]);
    const input = randomUUID();
    const run = await client.runs.create(thread_id, "feed", { input: { input } });
    await feed.entered(input);
    expect(await patch({ a: 1 })).toMatchObject({ status: 409, json: { code: "conflict" } });
    feed.end(input);
    await client.runs.join(thread_id, run.run_id);
  });

  it("prunes threads: all of them, or their history", async () => {
    const { client } = server;
    const [first, second, asking, busy] = (await Promise.all(
      Array.from({ length: 4 }, async () => (await client.threads.create()).thread_id),
    )) as [string, string, string, string];
    await client.runs.wait(first, "five", { input: { input: "x" } });
    await client.runs.wait(second, "five", { input: { input: "x" } });
    await client.runs.wait(asking, "approval", { input: { input: "x" } });
    const input = randomUUID();
    const run = await client.runs.create(busy, "feed", { input: { input } });
    await feed.entered(input);

    const states = await Promise.all([first, asking].map((id) => client.threads.getState(id)));
    expect(
      await client.threads.prune([first, asking, busy, first, randomUUID()], {
        strategy: "keep_latest",
      }),
    ).toEqual({ pruned_count: 2 });
    for (const [index, id] of [first, asking].entries()) {
      const kept = { ...states[index]!, parent_checkpoint: null };
      expect(await client.threads.getState(id)).toEqual(kept);
      expect(await client.threads.getHistory(id)).toEqual([kept]);
    }
    // What is left is enough to go on.
    const answered = await client.runs.wait(asking, "approval", { command: { resume: "yes" } });
    expect(answered).toMatchObject({ trail: ["prepare", "answer:yes", "done"] });
    const more = await client.runs.wait(first, "five", { input: { input: "y" } });
    expect(more).toMatchObject({ trail: { length: 10 } });

    expect(await client.threads.prune([second, busy])).toEqual({ pruned_count: 2 });
    for (const id of [second, busy])
      await expect(client.threads.get(id)).rejects.toMatchObject({ status: 404 });
    await expect(client.runs.get(busy, run.run_id)).rejects.toMatchObject({ status: 404 });
    expect(await client.threads.prune([second])).toEqual({ pruned_count: 0 });
  });

  it("extracts parts of threads in a search", async () => {
    const { client, url } = server;
    const suite = randomUUID();
    const { thread_id } = await client.threads.create({ metadata: { suite, "odd key": [1, 2] } });
    await client.runs.wait(thread_id, "five", { input: { input: "x" } });
    await client.threads.create({ metadata: { suite } });
    const found = await client.threads.search({
      metadata: { suite },
      sortOrder: "asc",
      select: ["thread_id"],
      extract: {
        last: "values.trail[-1]",
        first: "values.trail[0]",
        odd: "metadata.odd key[1]",
        nothing: "values.nowhere.at.all",
        __proto__: "values.input",
        all: "interrupts",
      },
    });
    expect(found).toEqual([
      {
        thread_id,
        extracted: { last: "five", first: "one", odd: 2, nothing: null, all: {} },
      },
      {
        thread_id: expect.any(String) as string,
        extracted: { last: null, first: null, odd: null, nothing: null, all: {} },
      },
    ]);
    for (const path of [
      "thread_id",
      "values; DROP TABLE threads",
      "values..x",
      "values.x[y]",
      "",
    ]) {
      const answer = await request(url, "/threads/search", { json: { extract: { a: path } } });
      expect({ path, status: answer.status }).toEqual({ path, status: 422 });
    }
    const many = Object.fromEntries(Array.from({ length: 11 }, (_, i) => [`a${i}`, "values.x"]));
    expect((await request(url, "/threads/search", { json: { extract: many } })).status).toBe(422);
  });

  it("reads history by GET as by POST", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "five", { input: { input: "x" }, metadata: { turn: 1 } });
    await client.runs.wait(thread_id, "five", { input: { input: "y" }, metadata: { turn: 2 } });
    const get = async (query: string) =>
      (await request(url, `/threads/${thread_id}/history?${query}`)).json;
    const post = async (json: object) =>
      (await request(url, `/threads/${thread_id}/history`, { json })).json;
    const [newest] = (await post({ limit: 1 })) as { checkpoint: { checkpoint_id: string } }[];
    const id = newest!.checkpoint.checkpoint_id;
    expect(await get(`limit=3&before=${id}`)).toEqual(await post({ limit: 3, before: id }));
    expect(await get(`metadata=${encodeURIComponent('{"turn":1}')}&limit=2`)).toEqual(
      await post({ metadata: { turn: 1 }, limit: 2 }),
    );
    expect(await get("select=values.input,next&limit=2")).toEqual([
      { next: [], values: { input: "y" } },
      { next: ["five"], values: { input: "y" } },
    ]);
    expect(await get(`checkpoint_id=${id}`)).toEqual(
      await post({ checkpoint: { checkpoint_id: id } }),
    );
    expect(await collect((await get(`checkpoint_id=${id}`)) as never)).toHaveLength(1);
    for (const query of ["metadata=5", "metadata={", "select=nothing", "limit=0"]) {
      const answer = await request(url, `/threads/${thread_id}/history?${query}`);
      expect({ query, status: answer.status }).toEqual({ query, status: 422 });
    }
  });

  it("a run from an older checkpoint forks once, and leaves nothing of the place behind", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "five", { input: { input: "x" } });
    const history = await client.threads.getHistory<Values>(thread_id);
    const old = history.find(({ values }) => values.trail?.length === 2)!;
    const { thread_id: _thread, ...checkpoint } = old.checkpoint;
    const forked = (await client.runs.wait(thread_id, "five", {
      input: null,
      checkpoint: { ...checkpoint, checkpoint_map: {} } as never,
    })) as Values;
    expect(forked.trail).toEqual(["one", "two", "three", "four", "five"]);
    expect((await client.threads.get(thread_id)).config).toEqual({ configurable: {} });
    const next = (await client.runs.wait(thread_id, "five", { input: { input: "y" } })) as Values;
    expect(next.trail).toHaveLength(10);
    expect((await client.threads.getState<Values>(thread_id)).values.trail).toHaveLength(10);
  });
});
