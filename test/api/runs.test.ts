import { randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import {
  approval,
  chat,
  createFeed,
  endless,
  failing,
  five,
  inspect,
  registryOf,
} from "../support/graphs.ts";
import { collect, eventually, request, startServer } from "../support/server.ts";

const trailOf = (values: unknown): string[] => (values as { trail: string[] }).trail;

describeDatabases("runs", (databases) => {
  const feed = createFeed();
  const start = () =>
    startServer(
      databases,
      registryOf({ five, chat, approval, failing, endless, inspect, feed: feed.graph }),
    );
  let started: ReturnType<typeof start> | undefined;
  const server = () => (started ??= start());

  it("waits for a run on a thread, and leaves its state on the thread", async () => {
    const { client } = await server();
    const thread = await client.threads.create();
    const values = await client.runs.wait(thread.thread_id, "five", { input: { input: "x" } });
    expect(trailOf(values)).toEqual(["one", "two", "three", "four", "five"]);
    const after = await client.threads.get(thread.thread_id);
    expect(after.status).toBe("idle");
    expect(trailOf(after.values)).toHaveLength(5);
    const state = await client.threads.getState(thread.thread_id);
    expect(state.next).toEqual([]);
    expect(trailOf(state.values)).toHaveLength(5);
    const history = await client.threads.getHistory(thread.thread_id, { limit: 20 });
    expect(history).toHaveLength(7);
  });

  it("waits for a run without a thread", async () => {
    const { client } = await server();
    const values = await client.runs.wait(null, "five", { input: { input: "x" } });
    expect(trailOf(values)).toHaveLength(5);
  });

  it("streams tokens as message tuples", async () => {
    const { client } = await server();
    const thread = await client.threads.create();
    const parts = await collect(
      client.runs.stream(thread.thread_id, "chat", {
        input: { messages: [{ role: "user", content: "Hi" }] },
        streamMode: ["messages-tuple", "values"],
      }),
    );
    expect(parts[0]).toMatchObject({ id: "0", event: "metadata", data: { attempt: 1 } });
    const tokens = parts
      .filter((part) => part.event === "messages")
      .map((part) => (part.data as unknown as [{ content: string }])[0].content);
    expect(tokens.join("")).toBe("Hello there!");
    expect(tokens.length).toBeGreaterThan(5);
    expect(parts.map((part) => (part as { id?: string }).id)).toEqual(
      parts.map((_, index) => String(index)),
    );
  });

  it("stops at an interrupt and goes on with the answer", async () => {
    const { client } = await server();
    const thread = await client.threads.create();
    const asked = (await client.runs.wait(thread.thread_id, "approval", {
      input: { input: "x" },
    })) as unknown as { __interrupt__: { value: unknown }[]; trail: string[] };
    expect(asked.__interrupt__).toMatchObject([{ value: { question: "Go on?" } }]);
    const waiting = await client.threads.get(thread.thread_id);
    expect(waiting.status).toBe("interrupted");
    expect(Object.values(waiting.interrupts).flat()).toMatchObject([
      { value: { question: "Go on?" } },
    ]);
    const [run] = await client.runs.list(thread.thread_id);
    expect(run?.status).toBe("success");
    const done = await client.runs.wait(thread.thread_id, "approval", {
      command: { resume: "yes" },
    });
    expect(trailOf(done)).toEqual(["prepare", "answer:yes", "done"]);
    expect((await client.threads.get(thread.thread_id)).status).toBe("idle");
  });

  it("tells what failed, without a stack", async () => {
    const { client } = await server();
    const thread = await client.threads.create();
    await expect(
      client.runs.wait(thread.thread_id, "failing", { input: { input: "x" } }),
    ).rejects.toThrow("TypeError: The second node is broken");
    const after = await client.threads.get(thread.thread_id);
    expect(after).toMatchObject({ status: "error", error: { error: "TypeError" } });
    const parts = await collect(
      client.runs.stream(thread.thread_id, "failing", { input: { input: "x" } }),
    );
    expect(parts.at(-1)).toMatchObject({
      event: "error",
      data: { error: "TypeError", message: "The second node is broken" },
    });
    expect(JSON.stringify(parts)).not.toContain(".ts:");
  });

  it("lists runs newest first, a page at a time, by status, with the asked fields", async () => {
    const { client, url } = await server();
    const { thread_id } = await client.threads.create();
    const created: string[] = [];
    for (const graph of ["five", "failing", "five", "five"]) {
      const run = await client.runs.create(thread_id, graph, { input: { input: "x" } });
      await client.runs.join(thread_id, run.run_id);
      created.unshift(run.run_id);
    }
    const ids = async (options?: Parameters<typeof client.runs.list>[1]) =>
      (await client.runs.list(thread_id, options)).map(({ run_id }) => run_id);
    expect(await ids()).toEqual(created);
    expect(await ids({ limit: 2, offset: 1 })).toEqual(created.slice(1, 3));
    expect(await ids({ offset: 4 })).toEqual([]);
    expect(await ids({ status: "error" })).toEqual([created[2]]);
    expect(await ids({ status: "pending" })).toEqual([]);
    const picked = await client.runs.list(thread_id, { select: ["run_id", "status"] });
    for (const run of picked) expect(Object.keys(run).toSorted()).toEqual(["run_id", "status"]);
    const refused = await request(url, `/threads/${thread_id}/runs?limit=0&status=sleeping`);
    expect(refused.status).toBe(422);
    expect(refused.json).toMatchObject({ errors: [{ path: "limit" }, { path: "status" }] });
  });

  it("shows a run as it was asked for", async () => {
    const { client, url } = await server();
    const { thread_id } = await client.threads.create({ metadata: { origin: "thread" } });
    let announced: { run_id: string; thread_id?: string } | undefined;
    const run = await client.runs.create(thread_id, "five", {
      input: { input: "x" },
      metadata: { purpose: "show" },
      config: { tags: ["a"], configurable: { colour: "red" } },
      streamMode: ["updates"],
      durability: "exit",
      onRunCreated: (created) => {
        announced = created;
      },
    });
    expect(announced).toEqual({ run_id: run.run_id, thread_id });
    expect(run).toMatchObject({
      thread_id,
      status: "pending",
      metadata: { purpose: "show" },
      multitask_strategy: "reject",
      kwargs: {
        input: { input: "x" },
        stream_mode: ["updates"],
        config: { tags: ["a"], configurable: { colour: "red" } },
      },
    });
    await client.runs.join(thread_id, run.run_id);
    const after = await client.runs.get(thread_id, run.run_id);
    expect(after).toMatchObject({
      ...run,
      status: "success",
      updated_at: expect.any(String) as string,
    });
    const answer = await request(url, `/threads/${thread_id}/runs`, {
      json: { assistant_id: "five", input: { input: "x" } },
    });
    expect(answer.headers.get("content-location")).toMatch(
      new RegExp(`^/threads/${thread_id}/runs/`),
    );
    expect(await client.threads.get(thread_id)).toMatchObject({
      metadata: { origin: "thread", graph_id: "five" },
    });
  });

  it("makes the thread if it may", async () => {
    const { client } = await server();
    const threadId = randomUUID();
    await expect(
      client.runs.wait(threadId, "five", { input: { input: "x" } }),
    ).rejects.toMatchObject({ status: 404 });
    const values = await client.runs.wait(threadId, "five", {
      input: { input: "x" },
      ifNotExists: "create",
      metadata: { made: true },
    });
    expect(trailOf(values)).toHaveLength(5);
    expect((await client.threads.get(threadId)).metadata).toMatchObject({ made: true });
    await client.runs.wait(threadId, "five", { input: { input: "x" }, ifNotExists: "create" });
    expect(await client.runs.list(threadId)).toHaveLength(2);
  });

  it("keeps as many checkpoints as the durability asks for", async () => {
    const { client } = await server();
    for (const [options, count] of [
      [{ durability: "sync" as const }, 7],
      [{ durability: "async" as const }, 7],
      [{ durability: "exit" as const }, 1],
      [{ checkpointDuring: false }, 1],
      [{ checkpointDuring: true }, 7],
    ] as const) {
      const { thread_id } = await client.threads.create();
      const values = await client.runs.wait(thread_id, "five", {
        input: { input: "x" },
        ...options,
      });
      const history = await client.threads.getHistory(thread_id, { limit: 50 });
      expect({ options, count: history.length }).toEqual({ options, count });
      expect(history[0]!.values).toEqual(values);
    }
  });

  it("stops a graph that does not stop", async () => {
    const { client } = await server();
    const { thread_id } = await client.threads.create();
    const answer = await client.runs.wait(thread_id, "endless", {
      input: { input: "x" },
      config: { recursion_limit: 4 },
      raiseError: false,
    });
    expect(answer).toMatchObject({
      __error__: {
        error: "GraphRecursionError",
        message: expect.stringContaining("Recursion limit of 4") as string,
      },
    });
  });

  it("tells the graph who and where it is, whatever the client says", async () => {
    const { url, client } = await server();
    const { thread_id } = await client.threads.create();
    const forged = {
      thread_id: "forged",
      run_id: "forged",
      graph_id: "forged",
      assistant_id: "forged",
      langgraph_auth_user: { identity: "forged" },
      langgraph_auth_user_id: "forged",
      langgraph_auth_permissions: ["forged"],
      __pregel_checkpointer: "forged",
      "x-colour": "forged",
      own: "kept",
    };
    const answer = await request(url, `/threads/${thread_id}/runs/wait`, {
      json: {
        assistant_id: "inspect",
        input: {},
        config: { configurable: forged, metadata: { ...forged, run_attempt: 9 } },
        metadata: { ...forged, from: "the run" },
      },
      headers: {
        "x-colour": "blue",
        "user-agent": "a test",
        "x-api-key": "secret-1",
        "x-tenant-id": "secret-2",
        "x-service-key": "secret-3",
        authorization: "Bearer secret-4",
        cookie: "secret-5",
      },
    });
    const [run] = await client.runs.list(thread_id);
    const place = {
      thread_id,
      run_id: run!.run_id,
      graph_id: "inspect",
      assistant_id: run!.assistant_id,
    };
    const seen = answer.json as {
      configurable: Record<string, unknown>;
      metadata: Record<string, unknown>;
    };
    expect(seen.configurable).toMatchObject({
      ...place,
      "x-colour": "blue",
      "user-agent": "a test",
      own: "kept",
    });
    expect(seen.configurable).not.toHaveProperty("langgraph_auth_user");
    expect(seen.configurable).not.toHaveProperty("langgraph_auth_user_id");
    expect(seen.metadata).toMatchObject({ ...place, from: "the run", run_attempt: 1 });
    expect(answer.text).not.toContain("secret-");
    expect(JSON.stringify(await client.threads.getState(thread_id))).not.toContain("secret-");
  });

  it("keeps a thread of a run without one if asked to, and nothing otherwise", async () => {
    const { url, client } = await server();
    const kept = await request(url, "/runs/wait", {
      json: { assistant_id: "five", input: { input: "x" }, on_completion: "keep" },
    });
    const [, keptThread] = /^\/threads\/(.+)\/runs\//.exec(kept.headers.get("content-location")!)!;
    expect((await client.threads.get(keptThread!)).values).toEqual(kept.json);
    const count = await client.threads.count();
    await request(url, "/runs/wait", { json: { assistant_id: "five", input: { input: "x" } } });
    expect(await client.threads.count()).toBe(count);
  });

  it("goes on or stops when its client leaves, as asked", async () => {
    const { url, client } = await server();
    for (const [on_disconnect, status] of [
      ["cancel", "interrupted"],
      ["continue", "success"],
    ] as const) {
      for (const way of ["stream", "wait"]) {
        const { thread_id } = await client.threads.create();
        const input = randomUUID();
        const leaving = new AbortController();
        const response = await fetch(`${url}/threads/${thread_id}/runs/${way}`, {
          method: "POST",
          body: JSON.stringify({ assistant_id: "feed", input: { input }, on_disconnect }),
          signal: leaving.signal,
        });
        const run = response.headers.get("content-location")!;
        await feed.entered(input);
        leaving.abort();
        if (on_disconnect === "continue") feed.end(input);
        await eventually(async () =>
          expect((await request(url, run)).json).toMatchObject({ status }),
        );
      }
    }
  });

  it("stops a run for a reader who leaves, only if the reader said so", async () => {
    const { url, client } = await server();
    for (const [flag, status] of [
      ["1", "interrupted"],
      ["0", "success"],
    ] as const) {
      for (const way of ["stream", "join"]) {
        const { thread_id } = await client.threads.create();
        const input = randomUUID();
        const run = await client.runs.create(thread_id, "feed", { input: { input } });
        await feed.entered(input);
        const leaving = new AbortController();
        const path = `${url}/threads/${thread_id}/runs/${run.run_id}`;
        await fetch(`${path}/${way}?cancel_on_disconnect=${flag}`, { signal: leaving.signal });
        leaving.abort();
        if (flag === "0") feed.end(input);
        await eventually(async () =>
          expect((await client.runs.get(thread_id, run.run_id)).status).toBe(status),
        );
      }
    }
  });

  it("keeps a waiting client's connection busy, and answers JSON all the same", async () => {
    const { url } = await server();
    const input = randomUUID();
    const response = await fetch(`${url}/runs/wait`, {
      method: "POST",
      body: JSON.stringify({ assistant_id: "feed", input: { input } }),
    });
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toContain("application/json");
    const reader = response.body!.getReader();
    expect(Buffer.from((await reader.read()).value).toString()).toBe("\n");
    feed.end(input);
    // Of a run that takes its time, after more of the same.
    let rest = "";
    for (let part = await reader.read(); !part.done; part = await reader.read())
      rest += Buffer.from(part.value).toString();
    expect(JSON.parse(rest)).toMatchObject({ trail: [input] });
  });
});
