import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
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
