import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { openDatabase } from "../../src/storage/open.ts";
import { createTestDatabases } from "../support/databases.ts";
import { createFeed, five, registryOf, type Trail } from "../support/graphs.ts";
import {
  collect,
  eventually,
  startServer,
  wireEvents,
  type TestServer,
} from "../support/server.ts";

type Values = typeof Trail.State;

// PGlite belongs to one process, so this is about PostgreSQL alone.
describe("two servers on one PostgreSQL", () => {
  const databases = createTestDatabases("postgres");
  const feed = createFeed();
  let one: TestServer;
  let two: TestServer;
  beforeAll(async () => {
    const graphs = registryOf({ five, feed: feed.graph });
    one = await startServer(databases, graphs);
    two = await startServer(databases, graphs, { config: { database: one.config.database } });
  });

  const running = async (options: object = {}) => {
    const { thread_id } = await one.client.threads.create();
    const input = randomUUID();
    const run = await one.client.runs.create(thread_id, "feed", {
      input: { input },
      streamMode: ["custom", "values"],
      ...options,
    });
    await feed.entered(input);
    return { thread_id, run_id: run.run_id, input };
  };

  it("wait for a run of the other", async () => {
    const { thread_id, run_id, input } = await running();
    const joined = two.client.runs.join(thread_id, run_id);
    const streamed = collect(two.client.runs.joinStream(thread_id, run_id));
    expect((await two.client.threads.get(thread_id)).status).toBe("busy");
    feed.end(input);
    expect(await joined).toMatchObject({ trail: [input] });
    // The values are those before and after the only node.
    expect((await streamed).map(({ event }) => event)).toEqual(["metadata", "values", "values"]);
  });

  it.each([true, false])(
    "follow a run of the other as it goes (resumable: %s)",
    async (streamResumable) => {
      const { thread_id, run_id, input } = await running({ streamResumable });
      const seen: unknown[] = [];
      const following = (async () => {
        for await (const part of two.client.runs.joinStream(thread_id, run_id))
          seen.push([part.event, part.data]);
      })();
      feed.push(input, "early");
      await eventually(() => expect(seen).toContainEqual(["custom", "early"]));
      feed.push(input, "late");
      await eventually(() => expect(seen).toContainEqual(["custom", "late"]));
      feed.end(input);
      await following;
      const here = await collect(one.client.runs.joinStream(thread_id, run_id));
      expect(here).toHaveLength(5);
      expect(seen).toEqual(here.map(({ event, data }) => [event, data]));
    },
  );

  it("follow and cancel an A2A task of the other", async () => {
    const input = randomUUID();
    const rpc = (server: TestServer, method: string, params: object) =>
      fetch(`${server.url}/a2a/feed`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ jsonrpc: "2.0", id: 1, method, params }),
      });
    const begun = await rpc(one, "message/send", {
      message: {
        kind: "message",
        messageId: randomUUID(),
        role: "user",
        parts: [{ kind: "data", data: { input } }],
      },
      configuration: { blocking: false },
    });
    const { result: task } = (await begun.json()) as { result: { id: string } };
    await feed.entered(input);
    const followed = wireEvents(await rpc(two, "tasks/resubscribe", { id: task.id }));
    expect((await followed.next()).value).toMatchObject({ data: { result: { id: task.id } } });
    const cancelled = await rpc(two, "tasks/cancel", { id: task.id });
    expect(await cancelled.json()).toMatchObject({ result: { status: { state: "canceled" } } });
    await feed.aborted(input);
    expect((await collect(followed)).at(-1)?.data).toMatchObject({
      result: { kind: "status-update", status: { state: "canceled" }, final: true },
    });
  });

  it("stop a run of the other", async () => {
    for (const action of ["interrupt", "rollback"] as const) {
      const { thread_id, run_id } = await running();
      await two.client.runs.cancel(thread_id, run_id, true, action);
      // The other one deletes a run that was rolled back after it has ended.
      await eventually(async () => {
        const runs = await one.client.runs.list(thread_id);
        expect(runs.map(({ status }) => status)).toEqual(
          action === "interrupt" ? ["interrupted"] : [],
        );
      });
      expect((await one.client.threads.get(thread_id)).status).toBe("idle");
    }
  });

  it("delete a thread with a run of the other", async () => {
    const { thread_id, run_id } = await running();
    await two.client.threads.delete(thread_id);
    await expect(one.client.runs.get(thread_id, run_id)).rejects.toMatchObject({ status: 404 });
  });

  it("queue runs of one thread behind each other", async () => {
    const { thread_id, input } = await running();
    const runs: string[] = [];
    for (let index = 0; index < 6; index += 1) {
      const { client } = index % 2 === 0 ? two : one;
      const run = await client.runs.create(thread_id, "five", {
        input: { input: String(index) },
        multitaskStrategy: "enqueue",
        metadata: { index },
      });
      runs.push(run.run_id);
    }
    const rejected = two.client.runs.create(thread_id, "five", { input: { input: "x" } });
    await expect(rejected).rejects.toMatchObject({ status: 422 });
    feed.end(input);
    const values = (await two.client.runs.join(thread_id, runs.at(-1)!)) as Values;
    expect(values).toMatchObject({ input: "5", trail: { length: 31 } });
  });

  it("reject: of runs that come to both at once exactly one wins", async () => {
    for (let time = 0; time < 20; time += 1) {
      const { thread_id } = await one.client.threads.create();
      const input = randomUUID();
      const results = await Promise.allSettled(
        [one, two, one, two].map(({ client }) =>
          client.runs.create(thread_id, "feed", { input: { input } }),
        ),
      );
      expect(results.filter(({ status }) => status === "fulfilled")).toHaveLength(1);
      feed.end(input);
    }
  });

  it("leave nothing of a thread that one deletes while the other runs on it", async () => {
    for (let time = 0; time < 20; time += 1) {
      const { thread_id } = await one.client.threads.create();
      const results = await Promise.allSettled([
        one.client.runs.wait(thread_id, "five", { input: { input: "x" }, raiseError: false }),
        one.client.runs.create(thread_id, "five", {
          input: { input: "x" },
          multitaskStrategy: "enqueue",
        }),
        new Promise((resolve) => {
          setTimeout(resolve, time % 20);
        }).then(() => two.client.threads.delete(thread_id)),
      ]);
      for (const result of results) {
        if (result.status === "rejected")
          expect(result.reason).toMatchObject({ status: expect.toBeOneOf([404, 422]) as number });
      }
    }
    const database = await openDatabase({
      databaseUrl: one.config.database.url,
      dataDir: one.config.database.dataDir,
    });
    const nothingLeft = async (): Promise<void> => {
      for (const table of ["checkpoints", "checkpoint_blobs", "checkpoint_writes", "runs"]) {
        const { rows } = await database.query(
          `SELECT DISTINCT thread_id FROM ${table} c
           WHERE NOT EXISTS (SELECT 1 FROM threads t WHERE t.thread_id::text = c.thread_id::text)`,
        );
        expect({ table, rows }).toEqual({ table, rows: [] });
      }
    };
    try {
      await eventually(nothingLeft);
    } finally {
      await database.close();
    }
  });

  // After the tests that look for what is left: its run without a thread stays for an hour.
  it("cancel an MCP call that the other has", async () => {
    const input = randomUUID();
    const session = randomUUID();
    const rpc = (server: TestServer, message: object) =>
      fetch(`${server.url}/mcp`, {
        method: "POST",
        headers: { "content-type": "application/json", "mcp-session-id": session },
        body: JSON.stringify({ jsonrpc: "2.0", ...message }),
      });
    const called = rpc(one, {
      id: "call",
      method: "tools/call",
      params: { name: "feed", arguments: { input } },
    });
    await feed.entered(input);
    const params = { requestId: "call" };
    const noted = await rpc(two, { method: "notifications/cancelled", params });
    expect(noted.status).toBe(202);
    await feed.aborted(input);
    expect(await (await called).json()).toMatchObject({ id: "call", result: { isError: true } });
  });

  it("take over what the other leaves when it stops", async () => {
    const { thread_id, run_id, input } = await running();
    await one.server.close(0);
    const taken = eventually(async () => {
      const run = await two.client.runs.get(thread_id, run_id);
      expect(run.status).toBe("running");
      expect(feed.begun.filter((begun) => begun === input)).toHaveLength(2);
    });
    await taken;
    const joined = two.client.runs.join(thread_id, run_id);
    feed.end(input);
    expect(await joined).toMatchObject({ trail: [input] });
    const [first] = await collect(two.client.runs.joinStream(thread_id, run_id));
    expect(first).toMatchObject({ event: "metadata", data: { attempt: 2 } });
  });
});
