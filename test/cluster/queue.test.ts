import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Database } from "../../src/storage/database.ts";
import { createRunQueue } from "../../src/storage/run-queue.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";
import { createFeed, five, registryOf } from "../support/graphs.ts";
import { startServer } from "../support/server.ts";

/** Puts runs into the queue, each on a thread of its own unless they share one. */
async function put(
  database: Database,
  count: number,
  { user = "", assistant = randomUUID(), thread = "" } = {},
): Promise<void> {
  await database.query(
    `INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, kwargs, multitask_strategy, user_id)
     SELECT gen_random_uuid(), coalesce(nullif($4, '')::uuid, gen_random_uuid()), $3::uuid, 'g', 'pending', '{}',
       'enqueue', $2 FROM generate_series(1, $1::int)`,
    [count, user, assistant, thread],
  );
}

const claim = { workerId: randomUUID(), leaseMs: 60_000 };

describeDatabases("the queue", (databases) => {
  it("serves users in turn, whatever one of them has piled up", async () => {
    const database = await databases.open();
    const queue = createRunQueue(database);
    await put(database, 500, { user: "flood" });
    await put(database, 2, { user: "lone" });
    await put(database, 3, { user: "other" });
    const users = async (limit: number): Promise<string[]> =>
      (await queue.claim({ ...claim, limit }))
        .map((run) => run.user_id ?? "")
        .toSorted((left, right) => left.localeCompare(right));
    expect(await users(3)).toEqual(["flood", "lone", "other"]);
    expect(await users(3)).toEqual(["flood", "lone", "other"]);
    expect(await users(3)).toEqual(["flood", "flood", "other"]);
    expect(await users(2)).toEqual(["flood", "flood"]);
    const { waiting, oldest_seconds: oldest } = await queue.depth();
    expect(waiting).toBe(505 - 11);
    expect(oldest).toBeGreaterThan(0);
    expect(await queue.waiting(100)).toBe(100);
  });
});

describe("the queue, where much waits", () => {
  const databases = createTestDatabases("postgres");

  it("finds what one thread's pile would hide", async () => {
    const database = await databases.open();
    const queue = createRunQueue(database);
    await put(database, 300, { thread: randomUUID() });
    await put(database, 1, { assistant: "00000000-0000-0000-0000-000000000001" });
    const claimed = await queue.claim({ ...claim, limit: 10 });
    expect(claimed).toHaveLength(2);
    expect(await queue.claim({ ...claim, limit: 10 })).toEqual([]);
  });

  it("keeps to the limits of users and assistants, also of claims at the same time", async () => {
    const database = await databases.open();
    const queue = createRunQueue(database);
    const assistant = randomUUID();
    await put(database, 10, { user: "a", assistant });
    await put(database, 10, { user: "b", assistant });
    await put(database, 10, { user: "b" });
    const limits = { perUser: 3, perAssistant: 4 };
    const claims = await Promise.all(
      Array.from({ length: 4 }, () => queue.claim({ ...claim, limit: 5, limits })),
    );
    const running = claims.flat();
    const of = (key: "user_id" | "assistant_id", value: string) =>
      running.filter((run) => run[key] === value).length;
    expect(of("assistant_id", assistant)).toBe(4);
    expect(of("user_id", "a")).toBeLessThanOrEqual(3);
    expect(of("user_id", "b")).toBeLessThanOrEqual(3);
    // An assistant that may have no more does not keep its user from others.
    running.push(...(await queue.claim({ ...claim, limit: 5, limits })));
    expect(of("user_id", "b")).toBe(3);
    expect(of("assistant_id", assistant)).toBe(4);
    expect(await queue.claim({ ...claim, limit: 5, limits })).toEqual([]);
  });
});

describe("a server with limits", () => {
  const databases = createTestDatabases("postgres");

  it("lets an assistant have so many runs at once, and refuses what would wait too long", async () => {
    const feed = createFeed();
    const { client, url } = await startServer(databases, registryOf({ feed: feed.graph, five }), {
      config: { workers: { concurrency: 10, graceMs: 0, perAssistant: 1, maxWaiting: 2 } },
    });
    const input = randomUUID();
    const start = async () => {
      const { thread_id } = await client.threads.create();
      return fetch(`${url}/threads/${thread_id}/runs`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ assistant_id: "feed", input: { input } }),
      });
    };
    expect((await start()).status).toBe(200);
    await feed.entered(input);
    expect((await start()).status).toBe(200);
    const statuses: number[] = [];
    let refused: Response | undefined;
    while (!refused && statuses.length < 5) {
      const response = await start();
      statuses.push(response.status);
      if (response.status !== 200) refused = response;
    }
    expect(refused?.status).toBe(429);
    expect(refused?.headers.get("Retry-After")).toMatch(/^\d+$/);
    expect(await refused?.json()).toMatchObject({ code: "queue_full" });
    expect(statuses.length).toBeLessThanOrEqual(2);
    const batch = await fetch(`${url}/runs/batch`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify([{ assistant_id: "feed" }, { assistant_id: "feed" }]),
    });
    expect(batch.status).toBe(429);
    // Others are not held up, and there was never a second one at work.
    expect(feed.begun).toHaveLength(1);
    feed.end(input);
  });
});
