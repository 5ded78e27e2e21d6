import { randomUUID } from "node:crypto";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { approval, createFeed, failing, five, registryOf } from "../support/graphs.ts";
import { beginJoin, eventually, request, startServer, type TestServer } from "../support/server.ts";

describeDatabases("threads", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(
      databases,
      registryOf({ five, approval, failing, feed: feed.graph }),
    );
  });

  it("creates one, with an id of the client's or its own", async () => {
    const { client } = server;
    const own = await client.threads.create({ metadata: { a: 1 }, graphId: "five" });
    expect(own).toMatchObject({
      status: "idle",
      metadata: { a: 1, graph_id: "five" },
      values: null,
      interrupts: {},
      config: {},
      error: null,
    });
    expect(await client.threads.get(own.thread_id)).toEqual(own);
    // Any id of the right form, whatever version it says it has, in either case.
    const threadId = `ABCDEF00-0000-0000-0000-${randomUUID().slice(-12).toUpperCase()}`;
    const asked = await client.threads.create({ threadId });
    expect(asked.thread_id).toBe(threadId.toLowerCase());
    expect(await client.threads.get(threadId)).toEqual(asked);
  });

  it("keeps the one that exists, if asked to, and refuses otherwise", async () => {
    const { client } = server;
    const first = await client.threads.create({ metadata: { first: true } });
    const again = { threadId: first.thread_id, metadata: { first: false } };
    await expect(client.threads.create(again)).rejects.toMatchObject({ status: 409 });
    expect(await client.threads.create({ ...again, ifExists: "do_nothing" })).toEqual(first);
  });

  it("does not know a thread that is not there", async () => {
    const { url } = server;
    const id = randomUUID();
    for (const [method, path] of [
      ["GET", ""],
      ["PATCH", ""],
      ["DELETE", ""],
      ["GET", "/state"],
      ["GET", "/history"],
      ["POST", "/history"],
      ["POST", "/state"],
      ["GET", "/runs"],
      ["POST", "/runs"],
      ["POST", "/runs/wait"],
      ["POST", "/runs/stream"],
    ] as const) {
      const answer = await request(url, `/threads/${id}${path}`, {
        method,
        ...(method !== "GET" && {
          json: path.startsWith("/runs") ? { assistant_id: "five" } : {},
        }),
      });
      expect({ method, path, status: answer.status, json: answer.json }).toMatchObject({
        status: 404,
        json: { code: "not_found", detail: expect.stringContaining(id) as string },
      });
    }
  });

  it("merges metadata, and says nothing if asked to", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create({ metadata: { a: 1, b: { c: 1 } } });
    const patched = await client.threads.update(thread_id, { metadata: { b: 2, d: null } });
    expect(patched.metadata).toEqual({ a: 1, b: 2, d: null });
    const silent = await request(url, `/threads/${thread_id}`, {
      method: "PATCH",
      json: { metadata: { e: 5 } },
      headers: { prefer: "return=minimal" },
    });
    expect(silent).toMatchObject({ status: 204, text: "" });
    const after = await client.threads.get(thread_id);
    expect(after.metadata).toEqual({ a: 1, b: 2, d: null, e: 5 });
    expect(Date.parse(after.updated_at)).toBeGreaterThanOrEqual(Date.parse(after.created_at));
  });

  it("searches by metadata, values, status and ids", async () => {
    const { client } = server;
    const suite = randomUUID();
    const create = async (metadata: Record<string, unknown>) =>
      (await client.threads.create({ metadata: { suite, ...metadata } })).thread_id;
    const fresh = await create({ kind: "fresh", list: [1, 2] });
    const done = await create({ kind: "done" });
    const asking = await create({ kind: "asking" });
    const broken = await create({ kind: "broken" });
    await client.runs.wait(done, "five", { input: { input: `of ${suite}` } });
    await client.runs.wait(asking, "approval", { input: { input: "x" } });
    await client.runs.wait(broken, "failing", { input: { input: "x" }, raiseError: false });
    const ids = async (query: Parameters<typeof client.threads.search>[0]) =>
      (await client.threads.search({ metadata: { suite }, ...query })).map((t) => t.thread_id);

    expect(await ids({})).toEqual([broken, asking, done, fresh]);
    expect(await ids({ metadata: { suite, kind: "done" } })).toEqual([done]);
    expect(await ids({ metadata: { suite, list: [2] } })).toEqual([fresh]);
    expect(await ids({ values: { input: `of ${suite}` } })).toEqual([done]);
    expect(await ids({ status: "interrupted" })).toEqual([asking]);
    expect(await ids({ status: "error" })).toEqual([broken]);
    expect(await ids({ status: "busy" })).toEqual([]);
    expect(await ids({ status: "idle" })).toEqual([done, fresh]);
    expect(await ids({ ids: [fresh, asking.toUpperCase(), randomUUID()] })).toEqual([
      asking,
      fresh,
    ]);
    expect(await ids({ ids: [] })).toEqual([]);
    expect(await client.threads.count({ metadata: { suite } })).toBe(4);
    expect(await client.threads.count({ metadata: { suite }, status: "idle" })).toBe(2);
    expect(
      await client.threads.count({ metadata: { suite }, values: { input: `of ${suite}` } }),
    ).toBe(1);
  });

  it("sorts, pages and selects", async () => {
    const { client, url } = server;
    const suite = randomUUID();
    const ids: string[] = [];
    for (let index = 0; index < 5; index += 1) {
      ids.push((await client.threads.create({ metadata: { suite, index } })).thread_id);
    }
    await client.threads.update(ids[1]!, { metadata: { touched: true } });
    const search = async (query: object) => {
      const answer = await request(url, "/threads/search", {
        json: { metadata: { suite }, ...query },
      });
      expect(answer.status).toBe(200);
      return {
        ids: (answer.json as { thread_id: string }[]).map(({ thread_id }) => thread_id),
        total: answer.headers.get("x-pagination-total"),
        next: answer.headers.get("x-pagination-next"),
      };
    };
    expect(await search({ sort_by: "created_at", sort_order: "asc" })).toEqual({
      ids,
      total: "5",
      next: null,
    });
    expect((await search({ sort_by: "updated_at" })).ids[0]).toBe(ids[1]);
    expect((await search({ sort_by: "thread_id", sort_order: "asc" })).ids).toEqual(ids.toSorted());
    expect(await search({ limit: 2, offset: 1, sort_order: "asc" })).toEqual({
      ids: ids.slice(1, 3),
      total: "5",
      next: "3",
    });
    expect(await search({ limit: 2, offset: 10 })).toEqual({ ids: [], total: "5", next: null });
    const picked = await client.threads.search({
      metadata: { suite },
      select: ["thread_id", "metadata"],
    });
    expect(picked).toHaveLength(5);
    for (const thread of picked) {
      expect(Object.keys(thread).toSorted()).toEqual(["metadata", "thread_id"]);
    }
  });

  it("deletes one with all that is on it, and stops its run first", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "five", { input: { input: "x" } });
    const input = randomUUID();
    const run = await client.runs.create(thread_id, "feed", { input: { input } });
    const waiting = await client.runs.create(thread_id, "five", {
      input: { input: "x" },
      multitaskStrategy: "enqueue",
    });
    await feed.entered(input);
    const joined = await beginJoin(url, run);
    const deleted = await request(url, `/threads/${thread_id}`, { method: "DELETE" });
    expect(deleted).toMatchObject({ status: 204, text: "" });
    await joined.values;
    for (const path of ["", "/state", "/history", `/runs/${run.run_id}`, `/runs/${waiting.run_id}`])
      expect((await request(url, `/threads/${thread_id}${path}`)).status).toBe(404);
    expect((await request(url, `/threads/${thread_id}`, { method: "DELETE" })).status).toBe(404);
    // The same id is free again, with nothing of the past on it.
    await client.threads.create({ threadId: thread_id, graphId: "five" });
    expect(await client.threads.getHistory(thread_id)).toEqual([]);
    expect(await client.runs.list(thread_id)).toEqual([]);
  });

  it("is busy while a run is active on it", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const input = randomUUID();
    await client.runs.create(thread_id, "feed", { input: { input } });
    await feed.entered(input);
    expect((await client.threads.get(thread_id)).status).toBe("busy");
    await expect(
      client.threads.updateState(thread_id, { values: { input: "y" } }),
    ).rejects.toMatchObject({ status: 409 });
    feed.end(input);
    await eventually(async () => expect((await client.threads.get(thread_id)).status).toBe("idle"));
  });
});

describeDatabases("a deleted thread", (databases) => {
  it("leaves nothing in any table", async () => {
    const feed = createFeed();
    const server = await startServer(databases, registryOf({ five, feed: feed.graph }));
    const { client } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "five", { input: { input: "x" } });
    const input = randomUUID();
    const run = await client.runs.create(thread_id, "feed", {
      input: { input },
      streamResumable: true,
    });
    await feed.entered(input);
    feed.push(input, 1);
    await client.threads.delete(thread_id);
    await expect(client.runs.get(thread_id, run.run_id)).rejects.toMatchObject({ status: 404 });
    const rows = await server.inspect(async (database) => {
      const counts: Record<string, number> = {};
      for (const table of [
        "threads",
        "runs",
        "run_events",
        "checkpoints",
        "checkpoint_blobs",
        "checkpoint_writes",
      ]) {
        const { rows: counted } = await database.query<{ count: number }>(
          `SELECT count(*)::integer AS count FROM ${table}`,
        );
        counts[table] = counted[0]!.count;
      }
      return counts;
    });
    expect(rows).toEqual({
      threads: 0,
      runs: 0,
      run_events: 0,
      checkpoints: 0,
      checkpoint_blobs: 0,
      checkpoint_writes: 0,
    });
  });
});
