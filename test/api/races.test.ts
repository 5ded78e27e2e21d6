import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { Queryable } from "../../src/storage/database.ts";
import { describeDatabases } from "../support/databases.ts";
import { createFeed, five, registryOf, type Trail } from "../support/graphs.ts";
import {
  collect,
  eventually,
  request,
  startServer,
  wireEvents,
  type TestServer,
} from "../support/server.ts";

type Values = typeof Trail.State;

/** Times a race is run; each is another interleaving. */
const TIMES = 15;

describeDatabases("races", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five, feed: feed.graph }));
  });
  // When all races are over, the rows must agree with each other.
  afterAll(async () => {
    feed.end();
    await server.inspect(assertConsistent);
  });

  const times = async (race: (index: number) => Promise<void>) => {
    // A few at once, so that they disturb each other.
    for (let index = 0; index < TIMES; index += 5)
      await Promise.all([0, 1, 2, 3, 4].map((offset) => race(index + offset)));
  };
  const post = (path: string, json: object = {}) => request(server.url, path, { json });
  const settled = (thread_id: string) =>
    eventually(async () => {
      const thread = await server.client.threads.get<Values>(thread_id);
      expect(thread.status).not.toBe("busy");
      return thread;
    });

  it("reject: of runs that come at once exactly one wins", async () => {
    await times(async () => {
      const { thread_id } = await server.client.threads.create();
      const input = randomUUID();
      const answers = await Promise.all(
        Array.from({ length: 6 }, () =>
          post(`/threads/${thread_id}/runs`, { assistant_id: "feed", input: { input } }),
        ),
      );
      const statuses = answers.map(({ status }) => status).toSorted((a, b) => a - b);
      expect(statuses).toEqual([200, 422, 422, 422, 422, 422]);
      feed.end(input);
      const thread = await settled(thread_id);
      expect(thread).toMatchObject({ status: "idle", values: { trail: [input] } });
      expect(await server.client.runs.list(thread_id)).toHaveLength(1);
    });
  });

  it("if_not_exists: of runs that come at once each finds the same thread", async () => {
    await times(async () => {
      const thread_id = randomUUID();
      const answers = await Promise.all(
        Array.from({ length: 4 }, (_, index) =>
          post(`/threads/${thread_id}/runs/wait`, {
            assistant_id: "five",
            input: { input: String(index) },
            if_not_exists: "create",
            multitask_strategy: "enqueue",
          }),
        ),
      );
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200]);
      const lengths = answers.map(({ json }) => (json as Values).trail.length);
      expect(lengths.toSorted((a, b) => a - b)).toEqual([5, 10, 15, 20]);
    });
  });

  it("enqueue: a burst keeps its order", async () => {
    const { thread_id } = await server.client.threads.create();
    const runs: string[] = [];
    for (let index = 0; index < 40; index += 1) {
      const { json } = await post(`/threads/${thread_id}/runs`, {
        assistant_id: "five",
        input: { input: String(index), trail: [`#${index}`] },
        multitask_strategy: "enqueue",
      });
      runs.push((json as { run_id: string }).run_id);
    }
    const values = (await server.client.runs.join(thread_id, runs.at(-1)!)) as Values;
    expect(values.trail.filter((entry) => entry.startsWith("#"))).toEqual(
      runs.map((_, index) => `#${index}`),
    );
    expect(values.trail).toHaveLength(40 * 6);
  });

  it("cancel against finish: the run ends once, and the thread is free", async () => {
    await times(async (index) => {
      const { client } = server;
      const { thread_id } = await client.threads.create();
      const input = randomUUID();
      const run = await client.runs.create(thread_id, "feed", { input: { input } });
      await feed.entered(input);
      const action = index % 2 === 0 ? "interrupt" : "rollback";
      const cancelled = client.runs.cancel(thread_id, run.run_id, index % 3 === 0, action);
      if (index % 4 < 2) await new Promise(setImmediate);
      feed.end(input);
      await cancelled;
      const thread = await settled(thread_id);
      const [left] = await client.runs.list(thread_id);
      if (action === "interrupt") expect(["success", "interrupted"]).toContain(left?.status);
      else if (left) expect(left.status).toBe("success");
      expect(thread.status).toBe("idle");
      const values = (await client.runs.wait(thread_id, "five", {
        input: { input: "y" },
      })) as Values;
      expect(values.trail.slice(-5)).toEqual(["one", "two", "three", "four", "five"]);
    });
  });

  it("cancel against the start of a waiting run: it ends in one way", async () => {
    await times(async (index) => {
      const { client } = server;
      const { thread_id } = await client.threads.create();
      const input = randomUUID();
      await client.runs.create(thread_id, "feed", { input: { input } });
      const next = await client.runs.create(thread_id, "five", {
        input: { input: "y" },
        multitaskStrategy: "enqueue",
      });
      await feed.entered(input);
      feed.end(input);
      if (index % 2 === 0) await new Promise(setImmediate);
      await client.runs.cancel(thread_id, next.run_id, true);
      expect(["success", "interrupted"]).toContain(
        (await client.runs.get(thread_id, next.run_id)).status,
      );
      expect((await settled(thread_id)).status).toBe("idle");
    });
  });

  it("interrupt: of runs that come at once all end, and the last one is done", async () => {
    await times(async () => {
      const { thread_id } = await server.client.threads.create();
      await Promise.all(
        Array.from({ length: 4 }, (_, index) =>
          post(`/threads/${thread_id}/runs`, {
            assistant_id: "five",
            input: { input: String(index) },
            multitask_strategy: "interrupt",
          }),
        ),
      );
      await settled(thread_id);
      const runs = await server.client.runs.list(thread_id);
      expect(runs).toHaveLength(4);
      expect(runs[0]!.status).toBe("success");
      for (const { status } of runs) expect(["success", "interrupted"]).toContain(status);
    });
  });

  it("delete of a thread against its runs: the thread is gone, and no answer fails", async () => {
    await times(async () => {
      const { thread_id } = await server.client.threads.create();
      const answers = await Promise.all([
        post(`/threads/${thread_id}/runs/wait`, { assistant_id: "five", input: { input: "x" } }),
        request(server.url, `/threads/${thread_id}`, { method: "DELETE" }),
        post(`/threads/${thread_id}/runs`, {
          assistant_id: "five",
          input: { input: "x" },
          multitask_strategy: "enqueue",
        }),
        post(`/threads/${thread_id}/state`, { values: { input: "z" } }),
        request(server.url, `/threads/${thread_id}/state`),
      ]);
      for (const { status, text } of answers)
        expect({ status, text }).toMatchObject({ status: expect.toSatisfy(isAnswer) as number });
      await eventually(async () =>
        expect((await request(server.url, `/threads/${thread_id}`)).status).toBe(404),
      );
    });
  });

  it("update of the state against a run's start: neither loses what the other wrote", async () => {
    await times(async (index) => {
      const { thread_id } = await server.client.threads.create({ graphId: "five" });
      const update = () =>
        post(`/threads/${thread_id}/state`, { values: { trail: ["update"] }, as_node: "five" });
      const run = () =>
        post(`/threads/${thread_id}/runs/wait`, { assistant_id: "five", input: { input: "x" } });
      const order = index % 2 === 0 ? [update, run, update] : [run, update, update];
      const answers = await Promise.all(
        order.map(async (send) => ({ update: send === update, ...(await send()) })),
      );
      const expected = { update: 0, run: 0 };
      for (const { update: isUpdate, status, text } of answers) {
        expect({ status, text }).toMatchObject({
          status: expect.toSatisfy((code) => code === 200 || (isUpdate && code === 409)) as number,
        });
        if (status === 200) expected[isUpdate ? "update" : "run"] += 1;
      }
      const { values } = await server.client.threads.getState<Values>(thread_id);
      expect({
        update: values.trail.filter((entry) => entry === "update").length,
        run: values.trail.length - values.trail.filter((entry) => entry === "update").length,
      }).toEqual({ update: expected.update, run: expected.run * 5 });
      expect((await settled(thread_id)).values.trail).toEqual(values.trail);
    });
  });

  it("updates of the state that come at once: each is on top of the others", async () => {
    await times(async () => {
      const { thread_id } = await server.client.threads.create({ graphId: "five" });
      const answers = await Promise.all(
        Array.from({ length: 5 }, (_, index) =>
          post(`/threads/${thread_id}/state`, { values: { trail: [`${index}`] }, as_node: "one" }),
        ),
      );
      expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
      const { values } = await server.client.threads.getState<Values>(thread_id);
      expect(values.trail.toSorted()).toEqual(["0", "1", "2", "3", "4"]);
    });
  });

  it("copy against write: the copy is the original as it was at one moment", async () => {
    await times(async () => {
      const { thread_id } = await server.client.threads.create();
      const running = post(`/threads/${thread_id}/runs/wait`, {
        assistant_id: "five",
        input: { input: "x" },
      });
      const copies = await Promise.all([
        server.client.threads.copy(thread_id),
        new Promise((resolve) => setTimeout(resolve, 5)).then(() =>
          server.client.threads.copy(thread_id),
        ),
      ]);
      const whole = ((await running).json as Values).trail;
      for (const copy of copies) {
        const state = await server.client.threads.getState<Values>(copy.thread_id);
        const history = await server.client.threads.getHistory<Values>(copy.thread_id);
        const trail = state.values.trail ?? [];
        expect(trail).toEqual(whole.slice(0, trail.length));
        // Every step before it is there too, each with its values.
        expect(history.map(({ values }) => (values.trail ?? []).length).slice(0, -1)).toEqual(
          history.slice(0, -1).map((_, index) => Math.max(0, trail.length - index)),
        );
        expect(copy).toMatchObject({
          status: expect.stringMatching(/^(idle|interrupted)$/) as string,
        });
        if (trail.length > 0) expect((copy.values as Values | null)?.trail).toEqual(trail);
      }
    });
  });

  it("join against the end: every reader sees the whole run", async () => {
    await times(async (index) => {
      const { thread_id } = await server.client.threads.create();
      const { json } = await post(`/threads/${thread_id}/runs`, {
        assistant_id: "five",
        input: { input: "x" },
        stream_mode: "updates",
        stream_resumable: index % 2 === 0,
      });
      const { run_id } = json as { run_id: string };
      const path = `${server.url}/threads/${thread_id}/runs/${run_id}`;
      const read = async () =>
        (await collect(wireEvents(await fetch(`${path}/stream`)))).map(({ id }) => id);
      const [joined, ...streams] = await Promise.all([
        server.client.runs.join(thread_id, run_id) as Promise<unknown>,
        read(),
        read(),
        read().then(read),
      ]);
      expect((joined as Values).trail).toHaveLength(5);
      for (const ids of streams) expect(ids).toEqual(["0", "1", "2", "3", "4", "5"]);
    });
  });

  it("stateless runs: many at once do not mix", async () => {
    const answers = await Promise.all(
      Array.from({ length: 60 }, (_, index) =>
        post("/runs/wait", { assistant_id: "five", input: { input: `run ${index}` } }),
      ),
    );
    for (const [index, { json }] of answers.entries())
      expect(json).toMatchObject({ input: `run ${index}`, trail: { length: 5 } });
  });
});

function isAnswer(status: number): boolean {
  return status < 500;
}

async function assertConsistent(database: Queryable): Promise<void> {
  const query = async (sql: string) => (await database.query(sql)).rows;
  expect(
    await query(`SELECT t.thread_id, t.status, t.active_runs, count(r.run_id)::integer AS runs
      FROM threads t LEFT JOIN runs r ON r.thread_id = t.thread_id AND r.status IN ('pending', 'running')
      GROUP BY t.thread_id
      HAVING t.active_runs <> count(r.run_id) OR (t.status = 'busy') <> (count(r.run_id) > 0)`),
  ).toEqual([]);
  expect(
    await query(`SELECT run_id, status, ended_at, lease_expires_at FROM runs
      WHERE (status IN ('pending', 'running')) <> (ended_at IS NULL)
         OR (status <> 'running' AND lease_expires_at IS NOT NULL)`),
  ).toEqual([]);
  // Whose thread is gone is gone.
  expect(
    await query(`SELECT run_id, status FROM runs r
      WHERE NOT temporary AND NOT EXISTS (SELECT 1 FROM threads t WHERE t.thread_id = r.thread_id)`),
  ).toEqual([]);
  for (const table of ["checkpoints", "checkpoint_blobs", "checkpoint_writes"]) {
    expect({
      table,
      orphans: await query(`SELECT DISTINCT thread_id FROM ${table} c
        WHERE NOT EXISTS (SELECT 1 FROM threads t WHERE t.thread_id::text = c.thread_id)`),
    }).toEqual({ table, orphans: [] });
  }
}
