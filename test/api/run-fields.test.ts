import { randomUUID } from "node:crypto";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import {
  approval,
  createFeed,
  five,
  nested,
  registryOf,
  single,
  twoQuestions,
  type Trail,
} from "../support/graphs.ts";
import { collect, request, startServer, wireEvents, type TestServer } from "../support/server.ts";

type Values = typeof Trail.State;
interface ShownRun {
  run_id: string;
  status: string;
  cancel_reason: string | null;
  resumed_from: string | null;
  dropped_interrupts: { id: string; value: unknown }[] | null;
}

describeDatabases("fields of a run", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    const settings = single((_state, { configurable: { model, tone, size } = {} }) => ({
      trail: [JSON.stringify({ model, tone, size })],
    }));
    const graphs = { five, approval, nested, settings, twoQuestions, feed: feed.graph };
    server = await startServer(databases, registryOf(graphs));
  });
  const post = (path: string, json: object, headers: Record<string, string> = {}) =>
    request(server.url, path, { json: { assistant_id: "five", ...json }, headers });
  const shown = async (threadId: string, index = 0) =>
    (await server.client.runs.list(threadId, { limit: 50 }))[index] as unknown as ShownRun;

  it("refuses by name what a run of this kind cannot do", async () => {
    const { thread_id } = await server.client.threads.create();
    const thread = `/threads/${thread_id}`;
    for (const [path, json, field] of [
      [`${thread}/runs`, { on_completion: "delete" }, "on_completion"],
      [`${thread}/runs/wait`, { on_completion: "complete" }, "on_completion"],
      [`${thread}/runs`, { on_disconnect: "cancel" }, "on_disconnect"],
      ["/runs", { on_disconnect: "cancel" }, "on_disconnect"],
      ["/runs/wait", { durability: "sync" }, "durability"],
      ["/runs/stream", { durability: "async" }, "durability"],
      ["/runs", { checkpoint_during: true }, "checkpoint_during"],
      ["/runs/wait", { checkpoint_id: "x" }, "checkpoint_id"],
      ["/runs/wait", { interrupt_before: ["one"] }, "interrupt_before"],
      ["/runs", { langsmith_tracer: { project_name: "p" } }, "langsmith_tracer"],
    ] as const) {
      const answer = await post(path, json);
      expect({ path, json, status: answer.status, text: answer.text }).toMatchObject({
        status: 422,
        text: expect.stringContaining(field) as string,
      });
    }
    expect(await server.client.runs.list(thread_id)).toEqual([]);
  });

  it("takes what is true anyway", async () => {
    const { thread_id } = await server.client.threads.create();
    for (const [path, json] of [
      [`/threads/${thread_id}/runs/wait`, { on_completion: "keep" }],
      [`/threads/${thread_id}/runs/wait`, { strict_resume: true }],
      ["/runs/wait", { if_not_exists: "create" }],
      ["/runs/wait", { if_not_exists: "reject", multitask_strategy: "enqueue" }],
      ["/runs/wait", { durability: "exit", on_disconnect: "cancel" }],
      ["/runs/wait", { checkpoint_during: false, on_completion: "delete" }],
    ] as const) {
      const answer = await post(path, { input: { input: "x" }, ...json });
      expect({ path, sent: json, ...answer }).toMatchObject({
        status: 200,
        json: { input: "x" },
      });
    }
  });

  it("a run with an input of its own drops the question that waits, and says so", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const asked = (await client.runs.wait(thread_id, "approval", {
      input: { input: "x" },
    })) as unknown as { __interrupt__: { id: string; value: unknown }[] };
    const asking = await shown(thread_id);
    expect(asking).toMatchObject({ status: "success", dropped_interrupts: null });

    // One that brings nothing new goes on from the question, and it is asked again.
    await client.runs.wait(thread_id, "approval", { input: null });
    expect(await shown(thread_id)).toMatchObject({
      resumed_from: asking.run_id,
      dropped_interrupts: null,
    });
    const again = await shown(thread_id);

    await client.runs.wait(thread_id, "five", { input: { input: "y" } });
    expect(await shown(thread_id)).toMatchObject({
      resumed_from: null,
      dropped_interrupts: [{ id: asked.__interrupt__[0]!.id, value: { question: "Go on?" } }],
    });
    expect(await client.threads.get(thread_id)).toMatchObject({ status: "idle", interrupts: {} });

    // Nor does an answer in a queue count as dropping.
    await client.runs.wait(thread_id, "approval", { input: { input: "x" } });
    await client.runs.wait(thread_id, "approval", { command: { resume: "yes" } });
    const answered = await shown(thread_id);
    expect(answered).toMatchObject({ dropped_interrupts: null });
    expect(answered.resumed_from).toBe((await shown(thread_id, 1)).run_id);
    expect(answered.resumed_from).not.toBe(again.run_id);
  });

  it("strict_resume: an answer to no question fails, and the thread waits on", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "twoQuestions", { input: { input: "x" } });
    const before = await client.threads.get(thread_id);
    const { checkpoint } = await client.threads.getState(thread_id);
    const ids = Object.values(before.interrupts).map(([one]) => one!.id!);
    const unknown = "0".repeat(32);
    for (const resume of [{ [unknown]: "?" }, "to which?", { [ids[0]!]: "a", [unknown]: "?" }]) {
      await expect(
        client.runs.wait(thread_id, "twoQuestions", { command: { resume }, strictResume: true }),
      ).rejects.toThrow(/^UnknownInterruptError: /);
      expect(await shown(thread_id)).toMatchObject({ status: "error", dropped_interrupts: null });
      expect(await client.threads.get(thread_id)).toEqual({
        ...before,
        updated_at: expect.any(String) as string,
        state_updated_at: expect.any(String) as string,
      });
      expect((await client.threads.getState(thread_id)).checkpoint).toEqual(checkpoint);
    }
    const values = (await client.runs.wait(thread_id, "twoQuestions", {
      command: { resume: { [ids[0]!]: "a", [ids[1]!]: "b" } },
      strictResume: true,
    })) as Values;
    expect(values.trail).toHaveLength(2);
    expect((await client.threads.get(thread_id)).status).toBe("idle");
  });

  it("streams only the namespaces that were asked for", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create();
    const run = { stream_mode: ["values", "updates"], stream_subgraphs: true };
    const stream = async (query: string) => {
      const response = await fetch(`${url}/threads/${thread_id}/runs/stream${query}`, {
        method: "POST",
        body: JSON.stringify({ assistant_id: "nested", input: { input: "x" }, ...run }),
      });
      return collect(wireEvents(response));
    };
    const all = await stream("");
    const inner = all.map(({ event }) => event).find((event) => event.startsWith("values|child"))!;
    expect(inner).toBeDefined();
    const root = await stream("?namespace=");
    expect(root.map(({ event }) => event)).toEqual(
      all.map(({ event }) => event).filter((event) => !event.includes("|")),
    );
    // A namespace names one execution of a subgraph; a reader that joins has seen it.
    const [last] = await client.runs.list(thread_id);
    const path = `${url}/threads/${thread_id}/runs/${last!.run_id}/stream`;
    const replay = await collect(
      wireEvents(await fetch(path, { headers: { "Last-Event-ID": "-1" } })),
    );
    const namespace = replay.map(({ event }) => event).find((event) => event.includes("|child"))!;
    const only = encodeURIComponent(namespace.slice(namespace.indexOf("|") + 1));
    const joined = await collect(wireEvents(await fetch(`${path}?namespace=${only}`)));
    expect(joined).toEqual(
      replay.filter(({ event }) => event === "metadata" || event.includes("|child")),
    );
    expect(joined.length).toBeGreaterThan(1);
  });

  it("a join goes on after the state its reader shows", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create();
    const { run_id } = await client.runs.create(thread_id, "five", {
      input: { input: "x" },
      streamMode: ["values", "updates"],
    });
    await client.runs.join(thread_id, run_id);
    const path = `${url}/threads/${thread_id}/runs/${run_id}/stream`;
    const read = async (query: string, lastEventId = "-1") =>
      collect(wireEvents(await fetch(path + query, { headers: { "Last-Event-ID": lastEventId } })));
    const all = await read("");
    const history = await client.threads.getHistory<Values>(thread_id, { limit: 20 });
    const place = history.find(({ values }) => values.trail?.length === 3)!;
    const query = `?checkpoint_id=${place.checkpoint.checkpoint_id!}`;
    const shown = all.findIndex(
      ({ event, data }) => event === "values" && (data as Values).trail.length === 3,
    );
    expect(await read(query)).toEqual([all[0], ...all.slice(shown + 1)]);
    expect(await read(`${query}&stream_mode=updates`)).toEqual([
      all[0],
      ...all.slice(shown + 1).filter(({ event }) => event === "updates"),
    ]);
    // One the run has not made, and a reader who has seen more than that.
    expect(await read(`?checkpoint_id=${randomUUID()}`)).toEqual(all);
    expect(await read(query, "1")).toEqual(all.slice(2));
    // Also while the run goes on.
    const input = randomUUID();
    const running = await client.runs.create(thread_id, "feed", {
      input: { input },
      streamMode: ["values", "custom"],
    });
    await feed.entered(input);
    feed.push(input, "early");
    const head = (await client.threads.getState(thread_id)).checkpoint.checkpoint_id!;
    const joined = collect(
      client.runs.joinStream(thread_id, running.run_id, { lastEventId: "-1", checkpointId: head }),
    );
    feed.push(input, "late");
    feed.end(input);
    expect((await joined).map(({ event, data }) => [event, data as unknown])).toEqual([
      ["metadata", expect.anything()],
      ["custom", "early"],
      ["custom", "late"],
      ["values", expect.objectContaining({ input })],
    ]);
  });

  it("lists runs newest first: pages, statuses and fields", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create();
    const ids: string[] = [];
    for (let index = 0; index < 5; index += 1) {
      const { run_id } = await client.runs.create(thread_id, index === 2 ? "nested" : "five", {
        input: { input: "x" },
        multitaskStrategy: "enqueue",
      });
      ids.unshift(run_id);
    }
    await client.runs.join(thread_id, ids[0]!);
    const list = async (query: Parameters<typeof client.runs.list>[1]) =>
      (await client.runs.list(thread_id, query)).map(({ run_id }) => run_id);
    expect(await list({})).toEqual(ids);
    expect(await list({ limit: 2 })).toEqual(ids.slice(0, 2));
    expect(await list({ limit: 2, offset: 3 })).toEqual(ids.slice(3));
    expect(await list({ offset: 9 })).toEqual([]);
    expect(await list({ status: "success", limit: 1, offset: 4 })).toEqual([ids[4]]);
    expect(await list({ status: "error" })).toEqual([]);
    expect(await client.runs.list(thread_id, { limit: 1, select: ["run_id", "status"] })).toEqual([
      { run_id: ids[0], status: "success" },
    ]);
    for (const query of ["limit=0", "limit=1001", "offset=-1", "status=done", "select=nothing"]) {
      const answer = await request(url, `/threads/${thread_id}/runs?${query}`);
      expect({ query, status: answer.status }).toEqual({ query, status: 422 });
    }
  });

  it("cancel: a reason, a wait, and at once", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create();
    const start = async () => {
      const input = randomUUID();
      const run = await client.runs.create(thread_id, "feed", { input: { input } });
      await feed.entered(input);
      return `/threads/${thread_id}/runs/${run.run_id}/cancel`;
    };
    const path = await start();
    for (const query of ["reason=taken&action=rollback", "reason=other", "wait=maybe"]) {
      const answer = await request(url, `${path}?${query}`, { method: "POST" });
      expect({ query, status: answer.status }).toEqual({ query, status: 422 });
    }
    const taken = await request(url, `${path}?reason=taken&wait=1`, { method: "POST" });
    expect(taken).toMatchObject({ status: 204, text: "" });
    expect(await shown(thread_id)).toMatchObject({
      status: "interrupted",
      cancel_reason: expect.stringMatching(/^taken:/) as string,
    });
    const asked = await request(url, `${await start()}?wait=0`, { method: "POST" });
    expect(asked).toMatchObject({ status: 202, text: "" });
  });

  it("Idempotency-Key: a request sent again gets the run of the first", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const key = { "Idempotency-Key": randomUUID() };
    const input = randomUUID();
    const body = { assistant_id: "feed", input: { input }, metadata: { a: 1, b: 2 } };
    const first = await post(`/threads/${thread_id}/runs`, body, key);
    expect(first).toMatchObject({ status: 200, json: { status: "pending" } });
    const { run_id } = first.json as ShownRun;
    await feed.entered(input);
    // While it runs the thread is busy, which is no reason to refuse its own request.
    const same = { metadata: { b: 2, a: 1 }, input: { input }, assistant_id: "feed" };
    const again = await Promise.all(
      Array.from({ length: 4 }, () => post(`/threads/${thread_id}/runs`, same, key)),
    );
    for (const answer of again) expect(answer).toMatchObject({ status: 200, json: { run_id } });
    const waited = post(`/threads/${thread_id}/runs/wait`, body, key);
    feed.end(input);
    expect((await waited).json).toMatchObject({ trail: [input] });
    expect(await post(`/threads/${thread_id}/runs`, body, key)).toMatchObject({
      json: { run_id, status: "success" },
    });
    const streamed = await post(`/threads/${thread_id}/runs/stream`, body, key);
    expect(streamed.text).toContain(run_id);
    expect(await client.runs.list(thread_id)).toHaveLength(1);

    for (const other of [
      await post(`/threads/${thread_id}/runs`, { ...body, metadata: { a: 2 } }, key),
      await post("/runs", body, key),
      await post("/runs", body, { "Idempotency-Key": "two words" }),
    ]) {
      expect(other).toMatchObject({
        status: 422,
        json: { detail: expect.stringContaining("Idempotency-Key") as string },
      });
    }
    // A run that is deleted gives its key up.
    await client.runs.delete(thread_id, run_id);
    const next = await post(`/threads/${thread_id}/runs`, body, key);
    expect((next.json as ShownRun).run_id).not.toBe(run_id);
  });

  it("Idempotency-Key: of requests that come at once one makes the run", async () => {
    const { client } = server;
    for (let round = 0; round < 8; round += 1) {
      const key = { "Idempotency-Key": randomUUID() };
      const { thread_id } = await client.threads.create();
      const [onThread, without, batch] = [`/threads/${thread_id}/runs`, "/runs", "/runs/batch"];
      const path = [onThread, without, batch][round % 3]!;
      const json = { assistant_id: "five", input: { input: "x" }, on_completion: "keep" };
      const answers = await Promise.all(
        Array.from({ length: 5 }, () =>
          request(server.url, path, { json: path === batch ? [json, json] : json, headers: key }),
        ),
      );
      const ids = answers.map(({ json: made, status, text }) => {
        expect({ path, status, text }).toMatchObject({ status: 200 });
        return (Array.isArray(made) ? made : [made]).map((run) => (run as ShownRun).run_id);
      });
      expect(new Set(ids.map(String)).size).toBe(1);
      expect(new Set(ids[0]).size).toBe(path === batch ? 2 : 1);
    }
  });

  it("starts a whole batch or nothing of it", async () => {
    const before = await server.client.threads.count();
    const good = { assistant_id: "five", input: { input: "x" }, on_completion: "keep" };
    for (const bad of [
      { assistant_id: "nowhere" },
      { assistant_id: "five", durability: "sync" },
      { assistant_id: "five", on_disconnect: "cancel" },
      { assistant_id: "five", checkpoint_id: "x" },
      { assistant_id: "five", nonsense: 1 },
    ]) {
      const answer = await request(server.url, "/runs/batch", { json: [good, bad] });
      expect({ bad, status: answer.status }).toEqual({
        bad,
        status: bad.assistant_id === "nowhere" ? 404 : 422,
      });
    }
    expect(await server.client.threads.count()).toBe(before);
    const answer = await request(server.url, "/runs/batch", {
      json: Array.from({ length: 25 }, () => good),
    });
    const runs = answer.json as { run_id: string; thread_id: string }[];
    expect(runs).toHaveLength(25);
    for (const { run_id, thread_id } of runs) {
      expect(await server.client.runs.join(thread_id, run_id)).toMatchObject({
        trail: { length: 5 },
      });
    }
  });

  it("what a run asks for in its configurable holds for the thread, above its assistant's", async () => {
    const { client } = server;
    const assistant = await client.assistants.create({
      graphId: "settings",
      config: { configurable: { model: "small", tone: "kind" } },
    });
    const { thread_id } = await client.threads.create();
    const seen = async (configurable?: Record<string, unknown>) => {
      const { trail } = (await client.runs.wait(thread_id, assistant.assistant_id, {
        input: { input: "x" },
        ...(configurable && { config: { configurable } }),
      })) as Values;
      return JSON.parse(trail.at(-1)!) as unknown;
    };
    expect(await seen({ model: "large", size: 1 })).toEqual({
      model: "large",
      tone: "kind",
      size: 1,
    });
    expect(await seen({ size: 2 })).toEqual({ model: "large", tone: "kind", size: 2 });
    const thread = (await client.threads.get(thread_id)) as { config?: unknown };
    expect(thread.config).toMatchObject({
      configurable: { model: "large", tone: "kind", size: 2 },
    });
    // A change of the assistant reaches its threads, but for what they asked for themselves.
    await client.assistants.update(assistant.assistant_id, {
      config: { configurable: { model: "tiny", tone: "curt" } },
    });
    expect(await seen()).toEqual({ model: "large", tone: "curt", size: 2 });
    expect(await seen({ model: "tiny" })).toEqual({ model: "tiny", tone: "curt", size: 2 });
    const copy = await client.threads.copy(thread_id);
    const copied = (await client.runs.wait(copy.thread_id, "settings", {
      input: { input: "x" },
    })) as Values;
    expect(JSON.parse(copied.trail.at(-1)!)).toEqual({ model: "tiny", size: 2 });
  });
});

describeDatabases("a run that takes too long", (databases) => {
  it("ends as a timeout, for the client and the thread", async () => {
    const deaf = single(() => new Promise(() => {}));
    // Long enough for the run that is not to be touched.
    const server = await startServer(databases, registryOf({ deaf, five }), {
      config: { workers: { concurrency: 4, graceMs: 0, runTimeoutMs: 8_000 } },
    });
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const error = {
      error: "TimeoutError",
      message: "The run took longer than 8 s, which is the limit of this server.",
    };
    const [answer, events] = await Promise.all([
      client.runs.wait(thread_id, "deaf", { input: { input: "x" }, raiseError: false }),
      collect(client.runs.stream(null, "deaf", { input: { input: "x" } })),
    ]);
    expect(answer).toEqual({ __error__: error });
    const [run] = await client.runs.list(thread_id);
    expect(run!.status).toBe("timeout");
    expect(await client.threads.get(thread_id)).toMatchObject({ status: "error", error });
    expect(await client.runs.list(thread_id, { status: "timeout" })).toHaveLength(1);
    expect(events.at(-1)).toMatchObject({ event: "error", data: error });
    // The thread is free for the next one, and a run within the limit is not touched.
    const values = await client.runs.wait(thread_id, "five", { input: { input: "y" } });
    expect(values).toMatchObject({ trail: { length: 5 } });
  });
});
