import { randomUUID } from "node:crypto";
import { WebSocket } from "ws";
import { beforeAll, describe, expect, it } from "vitest";
import { as, configureAuth } from "../support/auth.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";
import { approval, createFeed, five, registryOf } from "../support/graphs.ts";
import { createClient, request, startServer, type TestServer } from "../support/server.ts";
import { subscribe } from "../support/thread-stream.ts";

/** A socket whose messages are in the test's hands. */
function dial(url: string, headers: Record<string, string> = {}) {
  const socket = new WebSocket(url.replace("http", "ws"), { headers });
  const messages: unknown[] = [];
  const waiting: ((message: unknown) => void)[] = [];
  socket.on("message", (data: Buffer) => {
    const message: unknown = JSON.parse(data.toString());
    const waiter = waiting.shift();
    if (waiter) waiter(message);
    else messages.push(message);
  });
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    socket.on("close", (code, reason) => resolve({ code, reason: reason.toString() }));
  });
  return {
    closed,
    opened: new Promise<void>((resolve) => {
      socket.on("open", resolve);
    }),
    send: (message: unknown) =>
      socket.send(typeof message === "string" ? message : JSON.stringify(message)),
    next: () =>
      messages.length > 0
        ? Promise.resolve(messages.shift())
        : new Promise<unknown>((resolve) => {
            waiting.push(resolve);
          }),
    close: () => socket.close(),
  };
}

describeDatabases("commands that are refused", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ approval, feed: feed.graph, five }));
  });
  const send = async (threadId: string, method: string, params?: object) => {
    const { status, json } = await request(server.url, `/threads/${threadId}/commands`, {
      json: { id: 7, method, ...(params && { params }) },
    });
    return { status, ...(json as object) };
  };
  const refused = (error: string, message: RegExp) => ({
    status: 200,
    type: "error",
    id: 7,
    error,
    message: expect.stringMatching(message) as string,
  });

  it("say why, by the protocol's names", async () => {
    const id = randomUUID();
    const assistant_id = "five";
    const cases: [string, object | undefined, ReturnType<typeof refused>][] = [
      ["run.stop", {}, refused("unknown_command", /run\.stop/)],
      ["run.start", undefined, refused("invalid_argument", /assistant_id/)],
      ["run.start", { assistant_id: "none" }, refused("invalid_argument", /No assistant found/)],
      ["run.start", { assistant_id, forkFrom: "x" }, refused("invalid_argument", /forkFrom/)],
      [
        "run.start",
        { assistant_id, langsmith_tracer: {} },
        refused("invalid_argument", /langsmith_tracer/),
      ],
      [
        "run.start",
        { assistant_id, config: { callbacks: [] } },
        refused("invalid_argument", /callbacks/),
      ],
      [
        "run.start",
        { assistant_id, multitask_strategy: "reject", multitaskStrategy: "enqueue" },
        refused("invalid_argument", /different things/),
      ],
      ["input.respond", { interrupt_id: "x", response: 1 }, refused("no_such_run", /not found/)],
      ["input.respond", {}, refused("invalid_argument", /./)],
      ["state.get", {}, refused("no_such_run", /not found/)],
      ["agent.getTree", {}, refused("no_such_run", /not found/)],
      ["subscription.subscribe", { channels: ["values"] }, refused("not_supported", /HTTP/)],
    ];
    for (const [method, params, expected] of cases) {
      expect({ method, params, answer: await send(id, method, params) }).toEqual({
        method,
        params,
        answer: expected,
      });
    }
    expect(await request(server.url, `/threads/${id}`)).toMatchObject({ status: 404 });
  });

  it("say what is not there on a thread", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    expect(await send(thread_id, "agent.getTree", {})).toEqual(
      refused("no_such_run", /No run has started/),
    );
    await client.runs.wait(thread_id, "approval", { input: { input: "x" } });
    const interrupt_id = "0".repeat(32);
    expect(await send(thread_id, "input.respond", { interrupt_id, response: 1 })).toEqual(
      refused("no_such_interrupt", /Nobody waits/),
    );
    expect(await send(thread_id, "state.get", { namespace: ["none:1"] })).toEqual(
      refused("no_such_namespace", /none:1/),
    );
    const message = { role: "user", content: "Hi" };
    expect(await send(thread_id, "input.inject", { namespace: ["a"], message })).toEqual(
      refused("not_supported", /root/),
    );
  });

  it("leave a busy thread alone where that is the strategy", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const input = randomUUID();
    const start = (multitask_strategy: string) =>
      send(thread_id, "run.start", { assistant_id: "feed", input: { input }, multitask_strategy });
    const first = await start("reject");
    expect(first).toMatchObject({ type: "success" });
    await feed.entered(input);
    expect(await start("reject")).toEqual(refused("invalid_argument", /already running/));
    expect(await start("rollback")).toMatchObject({ type: "success" });
    feed.end(input);
    const runs = await client.runs.list(thread_id);
    await client.runs.join(thread_id, runs[0]!.run_id);
    expect(await client.runs.list(thread_id)).toMatchObject([{ status: "success" }]);
  });

  it("take input for an answer where one is waited for", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "approval", { input: { input: "x" } });
    const answer = await send(thread_id, "run.start", { assistant_id: "approval", input: "yes" });
    const { run_id } = (answer as unknown as { result: { run_id: string } }).result;
    expect(await client.runs.join(thread_id, run_id)).toMatchObject({
      trail: ["prepare", "answer:yes", "done"],
    });
  });

  it("say of a strict answer that came too late which question it was for", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "approval", { input: { input: "x" } });
    const { interrupts } = await client.threads.get(thread_id);
    const interrupt_id = Object.values(interrupts).flat()[0]!.id!;
    // While this run is at work the thread still shows the question, which is gone afterwards.
    const input = randomUUID();
    await client.runs.create(thread_id, "feed", { input: { input } });
    await feed.entered(input);
    const params = { interrupt_id, response: "yes", strict_resume: true };
    expect(await send(thread_id, "input.respond", params)).toMatchObject({ type: "success" });
    const again = await send(thread_id, "input.respond", params);
    expect(again).toEqual(refused("no_such_interrupt", /Nobody waits/));
    const live = await subscribe(url, thread_id, { channels: ["lifecycle"], since: 1 });
    feed.end(input);
    await live.untilRunEnd();
    await live.untilRunEnd();
    expect((await live.untilRunEnd()).at(-1)!.params.data).toMatchObject({
      event: "failed",
      error: expect.any(String),
      reason: expect.any(String),
      interrupt_ids: [interrupt_id],
      pending_ids: [],
    });
    live.close();
  });

  it("come over a socket as well, and do not end it", async () => {
    const socket = dial(`${server.url}/threads/${randomUUID()}/stream/events`);
    await socket.opened;
    socket.send("{");
    expect(await socket.next()).toMatchObject({ type: "error", id: null });
    socket.send({ id: 1, method: 2 });
    expect(await socket.next()).toMatchObject({ id: 1, error: "invalid_argument" });
    socket.send({ id: 2, method: "subscription.subscribe", params: { channels: ["all"] } });
    expect(await socket.next()).toMatchObject({ id: 2, error: "invalid_argument" });
    socket.send({ id: 3, method: "subscription.unsubscribe", params: { subscription_id: "x" } });
    expect(await socket.next()).toMatchObject({ id: 3, error: "no_such_subscription" });
    socket.send({ id: 4, method: "subscription.reconnect", params: { run_id: randomUUID() } });
    expect(await socket.next()).toMatchObject({ id: 4, error: "no_such_run" });
    socket.send({ id: 5, method: "run.start", params: { assistant_id: "five" } });
    expect(await socket.next()).toMatchObject({ id: 5, type: "success" });
    socket.close();
  });

  it("take up subscriptions of another socket", async () => {
    const threadId = randomUUID();
    const path = `${server.url}/threads/${threadId}/stream/events`;
    const first = dial(path);
    await first.opened;
    first.send({ id: 1, method: "run.start", params: { assistant_id: "five", input: {} } });
    const { result: started } = (await first.next()) as { result: { run_id: string } };
    const params = { channels: ["lifecycle"] };
    first.send({ id: 2, method: "subscription.subscribe", params });
    const { result } = (await first.next()) as { result: { subscription_id: string } };
    const running = (await first.next()) as { event_id: string };
    const completed = await first.next();
    first.close();

    const second = dial(path);
    await second.opened;
    const none = { run_id: started.run_id, subscriptions: ["gone"] };
    second.send({ id: 0, method: "subscription.reconnect", params: none });
    expect(await second.next()).toMatchObject({ id: 0, result: { restored: false } });
    second.send({
      id: 1,
      method: "subscription.reconnect",
      params: {
        run_id: started.run_id,
        last_event_id: running.event_id,
        subscriptions: [result.subscription_id],
      },
    });
    expect(await second.next()).toMatchObject({
      result: {
        restored: true,
        current_namespaces: [{ namespace: [], status: "completed" }],
      },
    });
    expect(await second.next()).toEqual(completed);
    second.close();
  });

  it("refuses a subscription that is none", async () => {
    const path = `/threads/${randomUUID()}/stream/events`;
    for (const json of [{}, { channels: [] }, { channels: ["custom:"] }, { channels: ["x"] }]) {
      expect(await request(server.url, path, { json })).toMatchObject({ status: 422 });
    }
    expect(await request(server.url, path)).toMatchObject({ status: 426 });
  });
});

describe("who may send commands, and open sockets", () => {
  const databases = createTestDatabases("postgres");
  let server: TestServer;
  beforeAll(async () => {
    const auth = await configureAuth(`
auth.on("threads", ({ user }) => ({ owner: user.identity }));
auth.on("threads:create_run", ({ value, user }) => {
  if (user.identity === "reader") return false;
  value.metadata = { ...value.metadata, owner: user.identity };
  return { owner: user.identity };
});`);
    const cors = { allow_origins: ["https://app.example"] };
    server = await startServer(databases, registryOf({ approval, five }), {
      config: { ...auth, http: { cors } as never },
    });
  });

  it("closes the sockets of those who may not have one, for good", async () => {
    const path = `${server.url}/threads/${randomUUID()}/stream/events`;
    expect(await dial(path).closed).toEqual({ code: 4401, reason: "Say who you are" });
    const wrong = `${server.url}/threads/none/stream/events`;
    expect(await dial(wrong, as("ada")).closed).toMatchObject({ code: 4422 });
    const foreign = { ...as("ada"), origin: "https://evil.example" };
    expect(await dial(path, foreign).closed).toMatchObject({ code: 4403 });
    const own = dial(path, { ...as("ada"), origin: "https://app.example" });
    await own.opened;
    own.send({ id: 1, method: "state.get", params: {} });
    expect(await own.next()).toMatchObject({ id: 1, error: "no_such_run" });
    own.close();
    await own.closed;
  });

  it("asks about every command, over HTTP and over a socket", async () => {
    const threadId = randomUUID();
    const start = { id: 1, method: "run.start", params: { assistant_id: "five", input: {} } };
    const read = { id: 2, method: "state.get", params: {} };
    const post = (token: string, json: object) =>
      request(server.url, `/threads/${threadId}/commands`, { json, headers: as(token) });
    expect(
      await request(server.url, `/threads/${threadId}/commands`, { json: start }),
    ).toMatchObject({ status: 401 });
    expect(await post("reader", start)).toMatchObject({ json: { error: "permission_denied" } });
    expect(await post("ada", start)).toMatchObject({ json: { type: "success" } });
    const thread = await createClient(server.url, as("ada")).threads.get(threadId);
    expect(thread.metadata).toMatchObject({ owner: "ada" });
    expect(await post("ada", read)).toMatchObject({ json: { type: "success" } });
    expect(await post("eve", read)).toMatchObject({ json: { error: "no_such_run" } });

    const path = `${server.url}/threads/${threadId}/stream/events`;
    const socket = dial(path, as("reader"));
    await socket.opened;
    socket.send(start);
    expect(await socket.next()).toMatchObject({ id: 1, error: "permission_denied" });
    socket.send(read);
    expect(await socket.next()).toMatchObject({ id: 2, error: "no_such_run" });
    socket.close();
  });
});
