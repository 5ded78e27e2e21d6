import { randomUUID } from "node:crypto";
import type { Client } from "@langchain/langgraph-sdk";
import { pino } from "pino";
import { beforeAll, expect, it } from "vitest";
import { Sweeper, type SweeperOptions } from "../../src/engine/sweeper.ts";
import type { Database, Queryable } from "../../src/storage/database.ts";
import { createRunEventRepository } from "../../src/storage/run-events.ts";
import { createRunRepository } from "../../src/storage/runs.ts";
import { openStore } from "../../src/storage/store.ts";
import { createThreadTtlRepository } from "../../src/storage/thread-ttl.ts";
import { createWebhookRepository } from "../../src/storage/webhooks.ts";
import { describeDatabases } from "../support/databases.ts";
import { five, registryOf } from "../support/graphs.ts";
import { eventually, request, startServer, type TestServer } from "../support/server.ts";

const openSweeper = (database: Database, options: Partial<SweeperOptions> = {}): Sweeper =>
  new Sweeper({
    runs: createRunRepository(database),
    events: createRunEventRepository(database),
    webhooks: createWebhookRepository(database),
    ttls: createThreadTtlRepository(database),
    eventsMs: 3_600_000,
    threadSweepMs: 60_000,
    threadSweepLimit: 1_000,
    log: pino({ level: "silent" }),
    ...options,
  });

describeDatabases("the time threads are kept", (databases) => {
  let server: TestServer;
  let client: Client;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five }));
    client = server.client;
  });
  const input = { input: "x" };
  const ttlOf = async (threadId: string, at = client): Promise<unknown> => {
    const thread = await at.threads.get(threadId, { include: ["ttl"] });
    return (thread as { ttl?: unknown }).ttl;
  };

  it("is set when a thread is created or changed, and counts from its last use", async () => {
    const before = Date.now();
    const plain = await client.threads.create();
    expect(await ttlOf(plain.thread_id)).toBeUndefined();
    const { thread_id } = await client.threads.create({ ttl: 60 });
    expect(await client.threads.get(thread_id)).not.toHaveProperty("ttl");
    const shown = (await ttlOf(thread_id)) as { expires_at: string };
    expect(shown).toMatchObject({ strategy: "delete", ttl_minutes: 60 });
    const minutes = (new Date(shown.expires_at).getTime() - before) / 60_000;
    expect(minutes).toBeGreaterThan(59);
    expect(minutes).toBeLessThan(62);
    await client.runs.wait(thread_id, "five", { input });
    const used = (await ttlOf(thread_id)) as { expires_at: string };
    expect(used.expires_at > shown.expires_at).toBe(true);
    const copy = await client.threads.copy(thread_id);
    expect(await ttlOf((copy as unknown as { thread_id: string }).thread_id)).toMatchObject({
      ttl_minutes: 60,
    });
    await client.threads.update(thread_id, { ttl: { ttl: 5 }, metadata: { a: 1 } });
    expect(await ttlOf(thread_id)).toMatchObject({ ttl_minutes: 5, strategy: "delete" });
    const path = `/threads/${thread_id}`;
    await request(server.url, path, {
      method: "PATCH",
      json: { ttl: { ttl: 7, strategy: "keep_latest" } },
    });
    expect(await ttlOf(thread_id)).toMatchObject({ ttl_minutes: 7, strategy: "keep_latest" });
    expect((await client.threads.update(thread_id, { metadata: { b: 2 } })).metadata).toMatchObject(
      { a: 1, b: 2 },
    );
    expect(await ttlOf(thread_id)).toMatchObject({ ttl_minutes: 7, strategy: "keep_latest" });
    await request(server.url, path, { method: "PATCH", json: { ttl: null } });
    expect(await ttlOf(thread_id)).toBeUndefined();
  });

  it.each([
    0,
    -1,
    "soon",
    { ttl: 5, strategy: "maybe" },
    { strategy: "delete" },
    { ttl: 5, more: 1 },
  ])("is refused where it is none: %j", async (ttl) => {
    expect(await request(server.url, "/threads", { json: { ttl } })).toMatchObject({
      status: 422,
      json: { errors: [{ path: expect.stringMatching(/^ttl/) as string }] },
    });
  });

  it("is set by a run for its thread, whichever way it is started", async () => {
    const { thread_id } = await client.threads.create({ ttl: 60 });
    const run = (path: string, json: object) =>
      request(server.url, path, { json: { assistant_id: "five", input, ...json } });
    await run(`/threads/${thread_id}/runs/wait`, {});
    expect(await ttlOf(thread_id)).toMatchObject({ ttl_minutes: 60 });
    await run(`/threads/${thread_id}/runs/wait`, { ttl: { ttl: 9, strategy: "keep_latest" } });
    expect(await ttlOf(thread_id)).toMatchObject({ ttl_minutes: 9, strategy: "keep_latest" });
    const made = randomUUID();
    await run(`/threads/${made}/runs/wait`, { ttl: 8, if_not_exists: "create" });
    expect(await ttlOf(made)).toMatchObject({ ttl_minutes: 8, strategy: "delete" });
    const kept = await run("/runs", { ttl: 7, on_completion: "keep" });
    expect(await ttlOf((kept.json as { thread_id: string }).thread_id)).toMatchObject({
      ttl_minutes: 7,
    });
    const batch = await request(server.url, "/runs/batch", {
      json: [{ assistant_id: "five", input, ttl: 6, on_completion: "keep" }],
    });
    const [first] = batch.json as { thread_id: string }[];
    expect(await ttlOf(first!.thread_id)).toMatchObject({ ttl_minutes: 6 });
    expect(await run("/runs/wait", { ttl: 5 })).toMatchObject({
      status: 422,
      json: { errors: [{ path: "ttl", message: "needs a thread" }] },
    });
  });

  it("is over: threads go, or their history, but for those in use", async () => {
    const first = await startServer(databases, registryOf({ five }), {
      config: { checkpointer: { ttl: { default_ttl: 90, strategy: "keep_latest" } } },
    });
    const { threads, runs, crons } = first.client;
    const make = async (ttl?: number): Promise<string> => {
      const { thread_id } = await threads.create(ttl === undefined ? {} : { ttl });
      await runs.wait(thread_id, "five", { input, streamResumable: true });
      await runs.wait(thread_id, "five", { input });
      return thread_id;
    };
    const [gone, busy, withCron, young, pruned] = [
      await make(60),
      await make(60),
      await make(60),
      await make(60),
      await make(),
    ];
    const kept = await request(first.url, "/runs", {
      json: { assistant_id: "five", input, on_completion: "keep" },
    });
    const { thread_id: madeByRun, run_id: making } = kept.json as Record<
      "thread_id" | "run_id",
      string
    >;
    // A thread whose run goes on is in use.
    await runs.join(madeByRun, making);
    for (const id of [pruned, madeByRun]) {
      expect(await ttlOf(id, first.client)).toMatchObject({
        ttl_minutes: 90,
        strategy: "keep_latest",
      });
    }
    await runs.create(busy, "five", { input, afterSeconds: 3_600 });
    await crons.createForThread(withCron, "five", { schedule: "0 0 1 1 *" });

    const tables = ["threads", "runs", "checkpoints", "checkpoint_blobs", "checkpoint_writes"];
    const countOf = async (database: Queryable, threadId: string): Promise<number[]> =>
      Promise.all(
        tables.map(async (table) => {
          const { rows } = await database.query<{ count: number }>(
            `SELECT count(*)::int AS count FROM ${table} WHERE thread_id::text = $1`,
            [threadId],
          );
          return rows[0]!.count;
        }),
      );
    await first.inspect(async (database) => {
      const sweeper = openSweeper(database as Database);
      expect(await sweeper.sweepThreads()).toBe(0);
      await database.query(
        "UPDATE threads SET updated_at = now() - interval '2 hours' WHERE thread_id <> $1",
        [young],
      );
      const before = await countOf(database, pruned);
      // The one that goes, and the two of which only the history does.
      expect(await sweeper.sweepThreads()).toBe(3);
      expect(await sweeper.sweepThreads()).toBe(0);
      expect(await countOf(database, gone)).toEqual([0, 0, 0, 0, 0]);
      const after = await countOf(database, pruned);
      expect(after.slice(0, 3)).toEqual([1, 2, 1]);
      expect(before[2]).toBeGreaterThan(10);
      const { rows } = await database.query(
        "SELECT 1 FROM run_events e WHERE NOT EXISTS (SELECT 1 FROM runs r WHERE r.run_id = e.run_id)",
      );
      expect(rows).toEqual([]);
    });

    const second = await first.restart();
    const left = await second.client.threads.search({ limit: 100 });
    expect(left.map(({ thread_id }) => thread_id).toSorted()).toEqual(
      [busy, withCron, young, pruned, madeByRun].toSorted(),
    );
    expect(await second.client.threads.getHistory(pruned)).toHaveLength(1);
    const state = await second.client.threads.getState<{ trail: string[] }>(pruned);
    expect(state.values.trail).toHaveLength(10);
    expect(await second.client.runs.wait(pruned, "five", { input })).toMatchObject({
      trail: { length: 15 },
    });
    expect((await second.client.threads.getHistory(pruned)).length).toBeGreaterThan(1);
  });
});

describeDatabases("sweeping", (databases) => {
  let database: Database;
  beforeAll(async () => {
    database = await databases.open();
  });
  const expire = async (count: number, strategy: string): Promise<void> => {
    await database.query(
      `INSERT INTO threads (thread_id, ttl_minutes, ttl_strategy, updated_at)
       SELECT gen_random_uuid(), 1, $2, now() - interval '1 hour' FROM generate_series(1, $1::int)`,
      [count, strategy],
    );
  };
  const threads = async (): Promise<number> =>
    (await database.query("SELECT 1 FROM threads")).rows.length;

  it("is shared by ten processes, and each thread is counted once", async () => {
    await expire(150, "delete");
    await expire(50, "keep_latest");
    const swept = await Promise.all(
      Array.from({ length: 10 }, () => openSweeper(database).sweepThreads()),
    );
    expect(swept.reduce((sum, count) => sum + count, 0)).toBe(200);
    expect(await threads()).toBe(50);
    await database.query("DELETE FROM threads");
  });

  it("stops at its limit, and goes on the next time", async () => {
    await expire(70, "delete");
    const sweeper = openSweeper(database, { threadSweepLimit: 45 });
    expect(await sweeper.sweepThreads()).toBe(45);
    expect(await sweeper.sweepThreads()).toBe(25);
    expect(await threads()).toBe(0);
  });

  it("happens by itself", async () => {
    await expire(5, "delete");
    const sweeper = openSweeper(database, { threadSweepMs: 20 });
    sweeper.open();
    await eventually(async () => expect(await threads()).toBe(0));
    await sweeper.close();
  });

  it("leaves a thread that came into use", async () => {
    await expire(1, "keep_latest");
    const ttls = createThreadTtlRepository(database);
    const [threadId] = await ttls.withExpiredHistory(10);
    await database.query("UPDATE threads SET updated_at = now()");
    expect(await ttls.pruneExpired(threadId!)).toBe(false);
    await database.query("DELETE FROM threads");
  });

  it("removes old runs without a thread, and the events of old runs", async () => {
    const insert = async (temporary: boolean, hours: number): Promise<string> => {
      const id = randomUUID();
      await database.query(
        `INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, kwargs, multitask_strategy, temporary, ended_at)
         VALUES ($1, $1, $1, 'five', 'success', '{}', 'reject', $2, now() - $3 * interval '1 hour')`,
        [id, temporary, hours],
      );
      await database.query(
        "INSERT INTO run_events (run_id, id, event, data) SELECT $1, id, 'values', '{}' FROM generate_series(0, 4) id",
        [id],
      );
      return id;
    };
    const [old, young, kept] = [
      await insert(true, 2),
      await insert(true, 0.5),
      await insert(false, 2),
    ];
    await Promise.all([openSweeper(database).sweep(), openSweeper(database).sweep()]);
    const ids = async (sql: string): Promise<string[]> =>
      (await database.query<{ run_id: string }>(sql)).rows.map(({ run_id }) => run_id);
    expect((await ids("SELECT run_id FROM runs")).toSorted()).toEqual([young, kept].toSorted());
    expect(await ids("SELECT DISTINCT run_id FROM run_events")).toEqual([young]);
    expect(old).not.toBe(young);
  });

  it("of the store is shared too", async () => {
    const options = { ttl: { defaultTtl: 1, sweepIntervalMinutes: 0.001 } };
    const stores = await Promise.all([openStore(database, options), openStore(database, options)]);
    for (let index = 0; index < 20; index += 1) {
      await stores[index % 2]!.put(["sweep"], `k${index}`, { index });
    }
    await stores[0]!.put(["sweep"], "young", { index: -1 });
    await database.query(
      "UPDATE store SET expires_at = now() - interval '1 second' WHERE key <> 'young'",
    );
    await eventually(async () => {
      const { rows } = await database.query<{ key: string }>("SELECT key FROM store");
      expect(rows.map(({ key }) => key)).toEqual(["young"]);
    });
    for (const store of stores) store.stop();
  });
});
