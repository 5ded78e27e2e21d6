import { randomUUID } from "node:crypto";
import type { Run } from "@langchain/langgraph-sdk";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { createFeed, five, registryOf, single, type Trail } from "../support/graphs.ts";
import {
  beginJoin,
  collect,
  eventually,
  request,
  startServer,
  wireEvents,
  type TestServer,
} from "../support/server.ts";

type Values = typeof Trail.State;

describeDatabases("several runs of one thread", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    const deaf = single(() => new Promise(() => {}));
    server = await startServer(databases, registryOf({ deaf, five, feed: feed.graph }));
  });

  /** A thread with a run in progress. */
  const occupied = async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const input = randomUUID();
    const run = await client.runs.create(thread_id, "feed", {
      input: { input },
      streamMode: ["custom"],
    });
    await feed.entered(input);
    return { thread_id, run, input };
  };
  const statuses = async (thread_id: string) => {
    const runs = await server.client.runs.list(thread_id, { limit: 100 });
    return runs.map(({ status }) => status).toReversed();
  };

  it("reject: says the thread is taken, and leaves nothing", async () => {
    const { client, url } = server;
    const { thread_id, input, run } = await occupied();
    for (const path of ["/runs", "/runs/stream", "/runs/wait"]) {
      for (const strategy of [{}, { multitask_strategy: "reject" }]) {
        const answer = await request(url, `/threads/${thread_id}${path}`, {
          json: { assistant_id: "five", input: { input: "x" }, ...strategy },
        });
        expect(answer).toMatchObject({
          status: 422,
          json: {
            code: "run_rejected",
            detail:
              "Thread is already running a task. Wait for it to finish or choose a different multitask strategy.",
          },
        });
      }
    }
    feed.end(input);
    await client.runs.join(thread_id, run.run_id);
    expect(await statuses(thread_id)).toEqual(["success"]);
    expect((await client.threads.get(thread_id)).status).toBe("idle");
  });

  it("enqueue: one after the other, in the order they came", async () => {
    const { client } = server;
    const { thread_id, input } = await occupied();
    const queued: Run[] = [];
    for (let index = 0; index < 6; index += 1) {
      queued.push(
        await client.runs.create(thread_id, "feed", {
          input: { input: `${input}-${index}` },
          multitaskStrategy: "enqueue",
        }),
      );
    }
    expect(await statuses(thread_id)).toEqual(["running", ...queued.map(() => "pending")]);
    feed.end(input);
    for (const [index, run] of queued.entries()) {
      await feed.entered(`${input}-${index}`);
      expect((await client.threads.get(thread_id)).status).toBe("busy");
      expect((await client.runs.get(thread_id, run.run_id)).status).toBe("running");
      feed.end(`${input}-${index}`);
    }
    const values = (await client.runs.join(thread_id, queued.at(-1)!.run_id)) as Values;
    expect(values.trail).toEqual([input, ...queued.map((_, index) => `${input}-${index}`)]);
    expect(await statuses(thread_id)).toEqual(queued.map(() => "success").concat("success"));
    expect((await client.threads.get(thread_id)).status).toBe("idle");
  });

  it("interrupt: stops the run in progress and those that wait, and goes on from where it was", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "five", { input: { input: "x" } });
    const input = randomUUID();
    const first = await client.runs.create(thread_id, "feed", { input: { input } });
    await feed.entered(input);
    const waiting = await client.runs.create(thread_id, "five", {
      input: { input: "never" },
      multitaskStrategy: "enqueue",
    });
    const joined = client.runs.join(thread_id, first.run_id);
    const values = (await client.runs.wait(thread_id, "five", {
      input: { input: "y" },
      multitaskStrategy: "interrupt",
    })) as Values;
    expect(values.trail).toHaveLength(10);
    expect(values.input).toBe("y");
    await joined;
    expect(await statuses(thread_id)).toEqual(["success", "interrupted", "interrupted", "success"]);
    expect((await client.runs.get(thread_id, waiting.run_id)).status).toBe("interrupted");
    expect((await client.threads.get(thread_id)).status).toBe("idle");
    // The run that was stopped keeps the checkpoint of its input.
    const history = await client.threads.getHistory<Values>(thread_id, { limit: 100 });
    expect(history.some((state) => state.values.input === input)).toBe(true);
  });

  it("rollback: as if the other runs had never been", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "five", { input: { input: "x" } });
    const before = await client.threads.getHistory<Values>(thread_id, { limit: 100 });
    const input = randomUUID();
    const first = await client.runs.create(thread_id, "feed", { input: { input } });
    await feed.entered(input);
    const waiting = await client.runs.create(thread_id, "five", {
      input: { input: "never" },
      multitaskStrategy: "enqueue",
    });
    const values = (await client.runs.wait(thread_id, "five", {
      input: { input: "y" },
      multitaskStrategy: "rollback",
    })) as Values;
    expect(values).toMatchObject({ input: "y" });
    expect(values.trail).toHaveLength(10);
    expect(await statuses(thread_id)).toEqual(["success", "success"]);
    for (const { run_id } of [first, waiting])
      await expect(client.runs.get(thread_id, run_id)).rejects.toMatchObject({ status: 404 });
    const after = await client.threads.getHistory<Values>(thread_id, { limit: 100 });
    expect(after.slice(-before.length)).toEqual(before);
    expect(after.some((state) => state.values.input === input)).toBe(false);
    expect((await client.threads.get(thread_id)).status).toBe("idle");
  });

  it("rollback of a thread's first run leaves an empty thread", async () => {
    const { client } = server;
    const { thread_id, run } = await occupied();
    await client.runs.cancel(thread_id, run.run_id, true, "rollback");
    expect(await client.runs.list(thread_id)).toEqual([]);
    expect(await client.threads.getHistory(thread_id)).toEqual([]);
    const thread = await client.threads.get(thread_id);
    expect(thread).toMatchObject({ status: "idle", values: {} });
    const values = (await client.runs.wait(thread_id, "five", {
      input: { input: "x" },
    })) as Values;
    expect(values.trail).toHaveLength(5);
  });

  it("cancel: stops a running run, and waits for it if asked", async () => {
    const { client, url } = server;
    for (const wait of [true, false]) {
      const { thread_id, run, input } = await occupied();
      const stream = collect(client.runs.joinStream(thread_id, run.run_id));
      const answer = await request(
        url,
        `/threads/${thread_id}/runs/${run.run_id}/cancel?wait=${wait ? 1 : 0}`,
        { method: "POST" },
      );
      expect(answer).toMatchObject({ status: wait ? 204 : 202, text: "" });
      if (wait) {
        expect((await client.runs.get(thread_id, run.run_id)).status).toBe("interrupted");
        expect((await client.threads.get(thread_id)).status).toBe("idle");
      }
      await stream;
      expect(await client.runs.join(thread_id, run.run_id)).toMatchObject({ input });
      expect((await client.runs.get(thread_id, run.run_id)).status).toBe("interrupted");
      // What was left to do can be done.
      feed.end(input);
      const values = (await client.runs.wait(thread_id, "feed", { input: null })) as Values;
      expect(values.trail).toEqual([input]);
    }
  });

  it("cancel: ends a waiting run without it ever starting", async () => {
    const { client } = server;
    for (const action of ["interrupt", "rollback"] as const) {
      const { thread_id, run, input } = await occupied();
      const waiting = await client.runs.create(thread_id, "feed", {
        input: { input: `${input}-never` },
        multitaskStrategy: "enqueue",
      });
      const joined = await beginJoin(server.url, waiting);
      const streamed = await fetch(
        `${server.url}/threads/${thread_id}/runs/${waiting.run_id}/stream`,
      );
      await client.runs.cancel(thread_id, waiting.run_id, true, action);
      await joined.values;
      await collect(wireEvents(streamed));
      expect((await client.threads.get(thread_id)).status).toBe("busy");
      feed.end(input);
      await client.runs.join(thread_id, run.run_id);
      expect((await client.threads.get(thread_id)).status).toBe("idle");
      expect(feed.begun).not.toContain(`${input}-never`);
      expect(await statuses(thread_id)).toEqual(
        action === "interrupt" ? ["success", "interrupted"] : ["success"],
      );
    }
  });

  it("cancel: changes nothing about a run that has ended", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const run = await client.runs.create(thread_id, "five", { input: { input: "x" } });
    const values = await client.runs.join(thread_id, run.run_id);
    for (const wait of [true, false]) {
      for (const action of ["interrupt", "rollback"] as const)
        await client.runs.cancel(thread_id, run.run_id, wait, action);
    }
    expect((await client.runs.get(thread_id, run.run_id)).status).toBe("success");
    expect(await client.runs.join(thread_id, run.run_id)).toEqual(values);
    expect(await client.threads.getHistory(thread_id, { limit: 50 })).toHaveLength(7);
  });

  it("deletes a run, after stopping it", async () => {
    const { client } = server;
    const { thread_id, run, input } = await occupied();
    const joined = await beginJoin(server.url, run);
    await client.runs.delete(thread_id, run.run_id);
    await joined.values;
    await expect(client.runs.get(thread_id, run.run_id)).rejects.toMatchObject({ status: 404 });
    await expect(client.runs.delete(thread_id, run.run_id)).rejects.toMatchObject({ status: 404 });
    expect((await client.threads.get(thread_id)).status).toBe("idle");
    expect(await client.runs.list(thread_id)).toEqual([]);
    // The thread keeps what the run did.
    expect((await client.threads.getState<Values>(thread_id)).values.input).toBe(input);
  });

  it("starts a run when its time has come", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const create = (input: string, afterSeconds: number) =>
      client.runs.create(thread_id, "five", {
        input: { input },
        afterSeconds,
        multitaskStrategy: "enqueue",
      });
    const muchLater = await create("much later", 3_600);
    expect(muchLater.status).toBe("pending");
    expect((await client.threads.get(thread_id)).status).toBe("busy");
    // One that may start now does not wait for one that may not.
    const now = (await client.runs.wait(thread_id, "five", {
      input: { input: "now" },
      multitaskStrategy: "enqueue",
    })) as Values;
    expect(now).toMatchObject({ input: "now", trail: { length: 5 } });
    const before = Date.now();
    const later = await create("later", 1);
    const values = (await client.runs.join(thread_id, later.run_id)) as Values;
    expect(Date.now() - before).toBeGreaterThanOrEqual(1_000);
    expect(values.input).toBe("later");
    expect(values.trail).toHaveLength(10);
    expect((await client.runs.get(thread_id, muchLater.run_id)).status).toBe("pending");
    await client.runs.cancel(thread_id, muchLater.run_id);
    await eventually(async () => expect((await client.threads.get(thread_id)).status).toBe("idle"));
  });

  it("stops a run whose node never looks at its signal", async () => {
    const { client } = server;
    for (const action of ["interrupt", "rollback"] as const) {
      const { thread_id } = await client.threads.create();
      const run = await client.runs.create(thread_id, "deaf", { input: { input: "x" } });
      await eventually(async () =>
        expect((await client.runs.get(thread_id, run.run_id)).status).toBe("running"),
      );
      await client.runs.cancel(thread_id, run.run_id, true, action);
      expect(await statuses(thread_id)).toEqual(action === "interrupt" ? ["interrupted"] : []);
      expect((await client.threads.get(thread_id)).status).toMatch(/^(idle|interrupted)$/);
      const values = (await client.runs.wait(thread_id, "five", {
        input: { input: "y" },
      })) as Values;
      expect(values.trail).toHaveLength(5);
    }
  });
});
