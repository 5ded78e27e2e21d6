import { randomUUID } from "node:crypto";
import type { Event } from "@langchain/protocol";
import { beforeAll, describe, expect, it } from "vitest";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";
import { approval, chat, createFeed, failing, five, registryOf } from "../support/graphs.ts";
import { collect, eventually, request, startServer, type TestServer } from "../support/server.ts";
import { brief, subscribe } from "../support/thread-stream.ts";

const ALL = ["values", "updates", "messages", "lifecycle", "input", "custom"];

/** Sends a command, and gives its result. */
async function command(
  { url }: TestServer,
  threadId: string,
  method: string,
  params: object,
): Promise<Record<string, unknown>> {
  const answer = await request(url, `/threads/${threadId}/commands`, {
    json: { id: 1, method, params },
  });
  expect(answer).toMatchObject({ status: 200, json: { type: "success", id: 1 } });
  return (answer.json as { result: Record<string, unknown> }).result;
}

const seqs = (events: Event[]): number[] => events.map(({ seq }) => seq!);

describeDatabases("the events of a thread", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(
      databases,
      registryOf({ approval, chat, failing, feed: feed.graph, five }),
    );
  });
  const start = (threadId: string, graph: string, input: unknown, params: object = {}) =>
    command(server, threadId, "run.start", { assistant_id: graph, input, ...params });

  it("can be waited for before the thread is there, and run through its runs", async () => {
    const threadId = randomUUID();
    const waiting = await subscribe(server.url, threadId, { channels: ALL });
    await start(threadId, "chat", { messages: [{ role: "user", content: "Hi" }] });
    const first = await waiting.untilRunEnd();
    await start(threadId, "five", { input: "x" });
    const second = await waiting.untilRunEnd();
    expect(first.map(brief)[0]).toBe("running");
    expect(first.map(brief)).toContain("messages@model");
    expect(second.map(brief).at(-1)).toBe("completed");

    const all = [...first, ...second];
    expect(seqs(all)).toEqual(seqs(all).toSorted((left, right) => left - right));
    expect(new Set(all.map(({ event_id }) => event_id)).size).toBe(all.length);
    expect(seqs(all).every(Number.isSafeInteger)).toBe(true);
    waiting.close();
  });

  it("begin after the place that a client names", async () => {
    const threadId = randomUUID();
    await start(threadId, "five", { input: "x" });
    const whole = await subscribe(server.url, threadId, { channels: ALL });
    const events = await whole.untilRunEnd();
    await start(threadId, "five", { input: "y" });
    events.push(...(await whole.untilRunEnd()));
    whole.close();
    for (const [index, event] of events.entries()) {
      const rest = await subscribe(server.url, threadId, { channels: ALL, since: event.seq });
      const expected = events.slice(index + 1);
      const seen: Event[] = [];
      while (seen.length < expected.length) seen.push(await rest.next());
      expect(seen).toEqual(expected);
      rest.close();
    }
  });

  it("are those of the whole thread after a restart", async () => {
    const threadId = randomUUID();
    const before = await subscribe(server.url, threadId, { channels: ALL });
    await start(threadId, "approval", { input: "x" });
    const asked = await before.untilRunEnd();
    before.close();
    server = await server.restart();

    const after = await subscribe(server.url, threadId, { channels: ALL });
    expect(await after.untilRunEnd()).toEqual(asked);
    const { interrupt_id } = asked.find(({ method }) => method === "input.requested")!.params
      .data as { interrupt_id: string };
    await command(server, threadId, "input.respond", {
      namespace: [],
      interrupt_id,
      response: "yes",
    });
    const answered = await after.untilRunEnd();
    expect(answered.map(brief)).toContain("input.answered");
    expect(answered.at(-1)!.params.data).toMatchObject({ event: "completed" });
    expect(answered[0]!.seq).toBeGreaterThan(asked.at(-1)!.seq!);
    after.close();
  });

  it("go on when a run is taken up a second time", async () => {
    const threadId = randomUUID();
    const input = randomUUID();
    await start(threadId, "feed", { input });
    await feed.entered(input);
    feed.push(input, "first");
    const before = await subscribe(server.url, threadId, { channels: ALL });
    const seen: Event[] = [];
    while (seen.at(-1)?.method !== "custom") seen.push(await before.next());
    before.close();
    const begun = feed.begun.length;
    server = await server.restart();
    await eventually(() => expect(feed.begun.length).toBeGreaterThan(begun));
    feed.push(input, "second");
    feed.end(input);
    const after = await subscribe(server.url, threadId, {
      channels: ["lifecycle", "custom"],
      since: seen.at(-1)!.seq,
    });
    const rest = await after.untilRunEnd();
    expect(rest.map(({ params }) => params.data)).toEqual([
      { event: "running", graph_name: "feed", attempt: 2 },
      { payload: "second" },
      { event: "completed", graph_name: "feed" },
    ]);
    after.close();
  });

  it("tell of runs of the first API: how they stand, and their values", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const live = await subscribe(server.url, thread_id, { channels: ALL });
    await client.runs.wait(thread_id, "approval", { input: { input: "x" } });
    expect((await live.untilRunEnd()).map(brief)).toEqual([
      "running",
      "values",
      "values",
      "input.requested",
      "interrupted",
    ]);
    await client.runs.create(thread_id, "approval", {
      command: { resume: "yes" },
      streamMode: ["updates"],
    });
    const resumed = await live.untilRunEnd();
    expect(resumed.map(brief)).toEqual(["running", "updates", "updates", "values", "completed"]);
    expect(resumed.at(-2)!.params.data).toMatchObject({
      trail: ["prepare", "answer:yes", "done"],
    });
    await client.runs.create(thread_id, "failing", { input: { input: "x" } });
    expect((await live.untilRunEnd()).at(-1)!.params.data).toMatchObject({
      event: "failed",
      error: "The second node is broken",
    });
    live.close();
  });

  it("tell of a run that was stopped before it could start", async () => {
    const { client } = server;
    const threadId = randomUUID();
    const input = randomUUID();
    const first = await start(threadId, "feed", { input });
    await feed.entered(input);
    const second = await start(threadId, "five", { input: "x" });
    const live = await subscribe(server.url, threadId, { channels: ["lifecycle"] });
    await client.runs.cancel(threadId, String(second["run_id"]));
    feed.end(input);
    const ends = [...(await live.untilRunEnd()), ...(await live.untilRunEnd())];
    expect(ends.map((event) => [event.event_id!.split(":")[1], brief(event)])).toEqual([
      [first["run_id"], "running"],
      [first["run_id"], "completed"],
      [second["run_id"], "running"],
      [second["run_id"], "interrupted"],
    ]);
    live.close();
  });

  it("are read by the first API as those of stream modes", async () => {
    const threadId = randomUUID();
    const { run_id } = await start(threadId, "approval", { input: "x" });
    const parts = await collect(server.client.runs.joinStream(threadId, String(run_id)));
    expect(parts.map(({ event }) => event)).toEqual([
      "metadata",
      "checkpoints",
      "values",
      "tasks",
      "updates",
      "tasks",
      "checkpoints",
      "values",
      "tasks",
      "values",
      "tasks",
    ]);
    expect(parts.find(({ event }) => event === "updates")).toMatchObject({
      data: { prepare: { trail: ["prepare"] } },
    });
    expect(parts.at(-2)).toMatchObject({
      data: { __interrupt__: [{ value: { question: "Go on?" } }] },
    });
    expect(await server.client.runs.join(threadId, String(run_id))).toMatchObject({
      __interrupt__: [{ value: { question: "Go on?" } }],
    });
  });
});

describe("two servers with one thread", () => {
  const databases = createTestDatabases("postgres");
  const feed = createFeed();
  let one: TestServer;
  let two: TestServer;
  beforeAll(async () => {
    const graphs = registryOf({ feed: feed.graph, five });
    one = await startServer(databases, graphs);
    two = await startServer(databases, graphs, { config: { database: one.config.database } });
  });

  it("tell the same, wherever the run is executed", async () => {
    const threadId = randomUUID();
    const input = randomUUID();
    const body = { channels: ALL };
    const here = await subscribe(one.url, threadId, body);
    const there = await subscribe(two.url, threadId, body);
    await command(one, threadId, "run.start", { assistant_id: "feed", input: { input } });
    await feed.entered(input);
    const first = await there.next();
    expect(brief(first)).toBe("running");
    feed.push(input, "live");
    const seen: Event[] = [first];
    while (seen.at(-1)?.method !== "custom") seen.push(await there.next());
    feed.end(input);
    seen.push(...(await there.untilRunEnd()));
    expect(seen).toEqual(await here.untilRunEnd());

    await two.client.runs.wait(threadId, "five", { input: { input: "x" } });
    const ends = await Promise.all([here.untilRunEnd(), there.untilRunEnd()]);
    // What the run of the first API told on its way is gone for who looks when it has ended; its end is not.
    for (const end of ends) {
      expect(end.map(brief)[0]).toBe("running");
      expect(end.at(-1)!.params.data).toMatchObject({ event: "completed" });
      expect(end.findLast(({ method }) => method === "values")!.params.data).toMatchObject({
        trail: [input, "one", "two", "three", "four", "five"],
      });
    }
    expect(ends[0].at(-1)!.seq).toBe(ends[1].at(-1)!.seq);
    here.close();
    there.close();
  });
});
