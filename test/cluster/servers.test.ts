import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { openPostgres } from "../../src/storage/postgres.ts";
import { createTestDatabases } from "../support/databases.ts";
import { createFeed, five, registryOf } from "../support/graphs.ts";
import { eventually, startServer, wireEvents, type TestServer } from "../support/server.ts";

const SETTINGS = [
  { how: "that hear each other", settings: {} },
  {
    how: "that only look, and prepare nothing",
    settings: { listen: false, preparedStatements: false },
  },
] as const;

describe.each(SETTINGS)("processes $how", ({ settings }) => {
  const databases = createTestDatabases("postgres");
  const feed = createFeed();
  const graphs = registryOf({ feed: feed.graph, five });
  const apis: TestServer[] = [];
  let worker: TestServer;
  beforeAll(async () => {
    const { databaseUrl: url, dataDir } = await databases.configure();
    const database = { url, dataDir, ...settings };
    worker = await startServer(databases, graphs, { config: { database, role: "worker" } });
    for (let index = 0; index < 3; index += 1) {
      apis.push(await startServer(databases, graphs, { config: { database, role: "api" } }));
    }
  });

  it("create on one, stream on another token by token, join on a third", async () => {
    const [one, two, three] = apis as [TestServer, TestServer, TestServer];
    const { thread_id } = await one.client.threads.create();
    const input = randomUUID();
    const { run_id } = await one.client.runs.create(thread_id, "feed", {
      input: { input },
      streamMode: ["custom", "values"],
    });
    const joined = three.client.runs.join(thread_id, run_id);
    const path = `/threads/${thread_id}/runs/${run_id}/stream`;
    const follow = (server: TestServer, seen: unknown[], headers = {}) =>
      (async () => {
        for await (const part of wireEvents(await fetch(`${server.url}${path}`, { headers })))
          seen.push([Number(part.id), part.event, part.data]);
      })();
    const seen: unknown[] = [];
    const following = follow(two, seen);
    await feed.entered(input);
    // The next one is sent when the one before has arrived at the other process.
    for (const token of ["a", "b", "c"]) {
      feed.push(input, token);
      await eventually(() => expect(seen.at(-1)).toEqual([expect.any(Number), "custom", token]));
    }
    const rest: unknown[] = [];
    const resumed = follow(three, rest, { "Last-Event-ID": "3" });
    feed.end(input);
    expect(await joined).toMatchObject({ trail: [input] });
    await Promise.all([following, resumed]);
    expect(seen.map((part) => (part as [number])[0])).toEqual(seen.map((_, index) => index));
    expect(seen.at(-1)).toMatchObject([expect.any(Number), "values", { trail: [input] }]);
    expect(rest).toEqual(seen.slice(4));
  });

  it("cancel on a fourth what streams on the first", async () => {
    const [one, two] = apis as [TestServer, TestServer];
    const { thread_id } = await one.client.threads.create();
    const input = randomUUID();
    let runId = "";
    const streamed = (async () => {
      const events: string[] = [];
      const stream = one.client.runs.stream(thread_id, "feed", {
        input: { input },
        streamMode: "custom",
        onRunCreated: ({ run_id }) => (runId = run_id),
      });
      for await (const { event } of stream) events.push(event);
      return events;
    })();
    await feed.entered(input);
    await two.client.runs.cancel(thread_id, runId, true);
    expect(await streamed).toContain("metadata");
    expect((await two.client.runs.get(thread_id, runId)).status).toBe("interrupted");
    expect((await one.client.threads.get(thread_id)).status).toBe("idle");
  });

  it("serve what their role is", async () => {
    const status = async (server: TestServer, path: string): Promise<number> =>
      (await fetch(`${server.url}${path}`)).status;
    for (const server of [worker, apis[0]!]) {
      for (const path of ["/live", "/ready", "/ok", "/info", "/metrics"])
        expect([path, await status(server, path)]).toEqual([path, 200]);
    }
    expect(await status(worker, `/threads/${randomUUID()}`)).toBe(404);
    expect(await status(worker, "/openapi.json")).toBe(404);
    expect(await status(apis[0]!, "/openapi.json")).toBe(200);
  });

  it("answer what they have begun when they are stopped, and tell the balancer", async () => {
    const [, , three] = apis as [TestServer, TestServer, TestServer];
    const input = randomUUID();
    const { thread_id } = await three.client.threads.create();
    const waiting = three.client.runs.wait(thread_id, "feed", { input: { input } });
    await feed.entered(input);
    const closing = three.server.close(20_000);
    await eventually(async () => {
      const response = await fetch(`${three.url}/ready`);
      expect([response.status, await response.json()]).toEqual([
        503,
        { ready: false, reason: "stopping" },
      ]);
    });
    expect((await fetch(`${three.url}/live`)).status).toBe(200);
    feed.end(input);
    expect(await waiting).toMatchObject({ trail: [input] });
    await closing;
  });
});

describe("a run that changes hands", () => {
  const databases = createTestDatabases("postgres");

  it("goes on as attempt 2 for a reader of the process that lost it", async () => {
    const feed = createFeed();
    const graphs = registryOf({ feed: feed.graph });
    const { databaseUrl: url, dataDir } = await databases.configure();
    const config = {
      database: { url, dataDir },
      workers: { concurrency: 10, graceMs: 0, leaseMs: 10_000 },
    };
    const loser = await startServer(databases, graphs, { config });
    const input = randomUUID();
    const seen: [number, string, unknown][] = [];
    const { thread_id } = await loser.client.threads.create();
    const response = await fetch(`${loser.url}/threads/${thread_id}/runs/stream`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ assistant_id: "feed", input: { input }, stream_mode: "custom" }),
    });
    const streamed = (async () => {
      for await (const { id, event, data } of wireEvents(response))
        seen.push([Number(id), event, data]);
    })();
    await feed.entered(input);
    feed.push(input, "a");
    await eventually(() => expect(seen.at(-1)).toEqual([1, "custom", "a"]));
    const heir = await startServer(databases, graphs, { config });
    const database = await openPostgres({ connectionString: url! });
    await database.query(
      "UPDATE runs SET status = 'running', worker_id = $1, attempt = 2, lease_expires_at = now()",
      [randomUUID()],
    );
    await database.close();
    await eventually(() => expect(feed.begun.filter((begun) => begun === input)).toHaveLength(2));
    // The lost attempt would take what the next one is to be given.
    await feed.aborted(input);
    feed.push(input, "b");
    await eventually(() => expect(seen.at(-1)?.[2]).toBe("b"));
    feed.end(input);
    await streamed;
    const attempt = { attempt: 3 };
    expect(seen.slice(0, 2)).toMatchObject([
      [0, "metadata", { attempt: 1 }],
      [1, "custom", "a"],
    ]);
    expect(seen[2]).toMatchObject([20_000_000, "metadata", attempt]);
    expect(await heir.client.runs.list(thread_id)).toMatchObject([{ status: "success" }]);
  });
});
