import { Client as Client15 } from "@langchain/langgraph-sdk";
import { Client as Client12 } from "langgraph-sdk-1-12";
import { Client as Client8 } from "langgraph-sdk-1-8";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { createTestDatabases } from "../support/databases.ts";
import { approval, chat, createFeed, five, registryOf } from "../support/graphs.ts";
import { collect, startServer, type TestServer } from "../support/server.ts";

/** The surface the versions share, as the newest one types it. */
const versions = [
  ["1.8", Client8 as unknown as typeof Client15],
  ["1.12", Client12 as unknown as typeof Client15],
  ["1.15", Client15],
] as const;

const databases = createTestDatabases("pglite");
const feed = createFeed();
let server: TestServer;
beforeAll(async () => {
  server = await startServer(databases, registryOf({ chat, five, approval, feed: feed.graph }));
});
afterAll(() => feed.end());

describe.each(versions)("the SDK %s", (version, Client) => {
  let client: Client15;
  beforeEach(() => {
    client = new Client({ apiUrl: server.url, apiKey: null, callerOptions: { maxRetries: 0 } });
  });

  it("works with assistants", async () => {
    const created = await client.assistants.create({ graphId: "five", name: `mine ${version}` });
    const patched = await client.assistants.update(created.assistant_id, {
      metadata: { version },
    });
    expect(patched).toMatchObject({ version: 2, name: `mine ${version}` });
    const found = await client.assistants.search({ metadata: { version } });
    expect(found.map(({ assistant_id: id }) => id)).toEqual([created.assistant_id]);
    expect(await client.assistants.getVersions(created.assistant_id)).toHaveLength(2);
    expect((await client.assistants.getGraph("five")).nodes.length).toBeGreaterThan(5);
    expect((await client.assistants.getSchemas("five")).graph_id).toBe("five");
    await client.assistants.delete(created.assistant_id);
    await expect(client.assistants.get(created.assistant_id)).rejects.toThrow(/404/);
  });

  it("works with threads, their state and history", async () => {
    const thread = await client.threads.create({ metadata: { version }, graphId: "five" });
    await client.runs.wait(thread.thread_id, "five", { input: { input: "x" } });
    expect(await client.threads.search({ metadata: { version }, limit: 5 })).toHaveLength(1);
    const state = await client.threads.getState<{ trail: string[] }>(thread.thread_id);
    expect(state.values.trail).toEqual(["one", "two", "three", "four", "five"]);
    const history = await client.threads.getHistory(thread.thread_id, { limit: 3 });
    expect(history).toHaveLength(3);
    await client.threads.updateState(thread.thread_id, {
      values: { trail: ["written"] },
      asNode: "five",
    });
    const copy = await client.threads.copy(thread.thread_id);
    const copied = await client.threads.getState<{ trail: string[] }>(copy.thread_id);
    expect(copied.values.trail.at(-1)).toBe("written");
    await client.threads.update(thread.thread_id, { metadata: { more: 1 } });
    expect((await client.threads.get(thread.thread_id)).metadata).toMatchObject({
      version,
      more: 1,
    });
    await client.threads.delete(thread.thread_id);
    await expect(client.threads.get(thread.thread_id)).rejects.toThrow(/404/);
  });

  it("streams in every mode", async () => {
    const thread = await client.threads.create();
    const parts = await collect(
      client.runs.stream(thread.thread_id, "chat", {
        input: { messages: [{ role: "user", content: "Hi" }] },
        streamMode: [
          "values",
          "updates",
          "messages",
          "messages-tuple",
          "debug",
          "custom",
          "events",
        ],
        streamSubgraphs: true,
        onRunCreated: ({ run_id: id }) => expect(id).toMatch(/^[0-9a-f-]{36}$/),
      }),
    );
    const names = new Set(parts.map(({ event }) => event.split("|")[0]));
    for (const name of [
      "metadata",
      "values",
      "updates",
      "messages/partial",
      "messages",
      "debug",
      "events",
    ]) {
      expect(names).toContain(name);
    }
    const values = parts.findLast(({ event }) => event === "values");
    expect(values?.data).toMatchObject({
      messages: [{ type: "human" }, { type: "ai", content: "Hello there!" }],
    });
  });

  it("asks and goes on with the answer", async () => {
    const thread = await client.threads.create();
    const asked = await client.runs.wait(thread.thread_id, "approval", { input: { input: "x" } });
    expect(asked).toMatchObject({ __interrupt__: [{ value: { question: "Go on?" } }] });
    expect((await client.threads.get(thread.thread_id)).status).toBe("interrupted");
    const answered = await client.runs.wait(thread.thread_id, "approval", {
      command: { resume: "yes" },
    });
    expect(answered).toMatchObject({ trail: ["prepare", "answer:yes", "done"] });
  });

  it("starts a run, joins its stream, and cancels another", async () => {
    const thread = await client.threads.create();
    const run = await client.runs.create(thread.thread_id, "feed", {
      input: { input: `joined ${version}` },
      streamMode: ["custom", "values"],
      streamResumable: true,
    });
    await feed.entered(`joined ${version}`);
    feed.push(`joined ${version}`, { n: 1 });
    feed.end(`joined ${version}`);
    const parts = await collect(
      client.runs.joinStream(thread.thread_id, run.run_id, { streamMode: ["custom"] }),
    );
    expect(parts.filter(({ event }) => event === "custom").map(({ data }) => data)).toEqual([
      { n: 1 },
    ]);
    expect(await client.runs.join(thread.thread_id, run.run_id)).toMatchObject({
      trail: [`joined ${version}`],
    });
    const stopped = await client.runs.create(thread.thread_id, "feed", {
      input: { input: `stopped ${version}` },
      multitaskStrategy: "enqueue",
    });
    await feed.entered(`stopped ${version}`);
    await client.runs.cancel(thread.thread_id, stopped.run_id, true);
    const runs = await client.runs.list(thread.thread_id);
    expect(runs.map(({ status }) => status)).toEqual(["interrupted", "success"]);
  });

  it("runs without a thread", async () => {
    const values = await client.runs.wait(null, "five", { input: { input: "x" } });
    expect(values).toMatchObject({ trail: ["one", "two", "three", "four", "five"] });
    const parts = await collect(
      client.runs.stream(null, "five", { input: { input: "x" }, streamMode: "updates" }),
    );
    expect(parts.map(({ event }) => event)).toEqual([
      "metadata",
      ...Array.from({ length: 5 }, () => "updates"),
    ]);
  });

  it("works with the store", async () => {
    const namespace = ["versions", version.replace(".", "-")];
    await client.store.putItem(namespace, "key", { version });
    expect(await client.store.getItem(namespace, "key")).toMatchObject({ value: { version } });
    const { items } = await client.store.searchItems(namespace, { filter: { version } });
    expect(items).toHaveLength(1);
    const { namespaces } = await client.store.listNamespaces({ prefix: ["versions"] });
    expect(namespaces).toContainEqual(namespace);
    await client.store.deleteItem(namespace, "key");
    expect(await client.store.getItem(namespace, "key")).toBeNull();
  });
});
