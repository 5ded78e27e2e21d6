import { randomUUID } from "node:crypto";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import {
  chat,
  createFeed,
  custom,
  failing,
  five,
  nested,
  plain,
  registryOf,
} from "../support/graphs.ts";
import {
  collect,
  request,
  startServer,
  wireEvents,
  type TestServer,
  type WireEvent,
} from "../support/server.ts";

describeDatabases("streams", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(
      databases,
      registryOf({ chat, custom, failing, five, nested, plain, feed: feed.graph }),
    );
  });

  /** The events of one run as they were on the wire. */
  const stream = async (body: object, options: { thread?: boolean } = {}) => {
    const { url, client } = server;
    const thread = options.thread === false ? undefined : await client.threads.create();
    const path = thread ? `/threads/${thread.thread_id}/runs/stream` : "/runs/stream";
    const response = await fetch(url + path, { method: "POST", body: JSON.stringify(body) });
    expect(response.status).toBe(200);
    const events = await collect(wireEvents(response));
    // Whatever the mode: the run introduces itself, and ids count from 0 without a gap.
    expect(events[0]).toMatchObject({ event: "metadata", data: { attempt: 1 } });
    expect(events.map(({ id }) => id)).toEqual(events.map((_, index) => String(index)));
    return { response, events: events.slice(1), thread_id: thread?.thread_id };
  };
  const names = (events: WireEvent[]) => events.map(({ event }) => event);
  const dataOf = (events: WireEvent[], name: string) =>
    events.filter(({ event }) => event === name).map(({ data }) => data);
  const trails = (data: unknown[]) => data.map((values) => (values as { trail: string[] }).trail);

  it("tells where the run is and how it is read", async () => {
    const { response, events, thread_id } = await stream({
      assistant_id: "five",
      input: { input: "x" },
    });
    const { headers } = response;
    expect(headers.get("content-type")).toMatch(/^text\/event-stream/);
    expect(headers.get("cache-control")).toBe("no-store");
    const place = headers.get("content-location")!;
    expect(place).toMatch(new RegExp(`^/threads/${thread_id}/runs/[0-9a-f-]{36}$`));
    expect(headers.get("location")).toBe(`${place}/stream`);
    // Without a mode: values.
    expect(new Set(names(events))).toEqual(new Set(["values"]));

    const { response: stateless } = await stream(
      { assistant_id: "five", input: { input: "x" } },
      { thread: false },
    );
    expect(stateless.headers.get("content-location")).toMatch(/^\/runs\/[0-9a-f-]{36}$/);
    expect(stateless.headers.get("location")).toMatch(/^\/runs\/[0-9a-f-]{36}\/stream$/);
  });

  it("values: the state after each step", async () => {
    for (const thread of [true, false]) {
      const { events } = await stream(
        { assistant_id: "five", input: { input: "x" }, stream_mode: "values" },
        { thread },
      );
      expect(names(events)).toEqual(Array.from({ length: 6 }, () => "values"));
      expect(trails(dataOf(events, "values")).map((trail) => (trail ?? []).length)).toEqual([
        0, 1, 2, 3, 4, 5,
      ]);
    }
  });

  it("updates: what each node wrote", async () => {
    const { events } = await stream({
      assistant_id: "five",
      input: { input: "x" },
      stream_mode: ["updates"],
    });
    expect(events.map(({ event, data }) => [event, data])).toEqual(
      ["one", "two", "three", "four", "five"].map((name) => [
        "updates",
        { [name]: { trail: [name] } },
      ]),
    );
  });

  it("custom: what a node sent", async () => {
    const { events } = await stream({
      assistant_id: "custom",
      input: { input: "x" },
      stream_mode: ["custom"],
    });
    expect(events.map(({ event, data }) => [event, data])).toEqual([
      ["custom", { progress: 1 }],
      ["custom", { progress: 2 }],
    ]);
  });

  it("messages-tuple: each token with its metadata", async () => {
    const { events } = await stream({
      assistant_id: "chat",
      input: { messages: [{ type: "human", content: "Hi" }] },
      stream_mode: "messages-tuple",
    });
    expect(new Set(names(events))).toEqual(new Set(["messages"]));
    const tuples = dataOf(events, "messages") as [Record<string, unknown>, object][];
    expect(tuples.map(([chunk]) => chunk["content"]).join("")).toBe("Hello there!");
    for (const [chunk, metadata] of tuples) {
      expect(chunk).toMatchObject({ type: "ai", id: tuples[0]![0]["id"] });
      expect(metadata).toMatchObject({ langgraph_node: "model", graph_id: "chat" });
    }
  });

  it("messages: each message so far, and once it is whole", async () => {
    for (const thread of [true, false]) {
      const { events } = await stream(
        {
          assistant_id: "chat",
          input: { messages: [{ type: "human", content: "Hi", id: "question" }] },
          stream_mode: "messages",
        },
        { thread },
      );
      expect(names(events).slice(0, 3)).toEqual([
        "messages/complete",
        "messages/metadata",
        "messages/partial",
      ]);
      const partials = (dataOf(events, "messages/partial") as [{ content: string }][]).map(
        ([{ content }]) => content,
      );
      expect(partials.at(0)).toBe("H");
      expect(partials.at(-1)).toBe("Hello there!");
      for (const [index, content] of partials.entries())
        expect(partials[index + 1] ?? content).toContain(content);
      const complete = dataOf(events, "messages/complete").flat() as { content: string }[];
      expect(complete.map(({ content }) => content)).toEqual(["Hi", "Hello there!"]);
    }
  });

  it("messages: one that was not streamed is complete at once", async () => {
    const { events } = await stream({
      assistant_id: "plain",
      input: { messages: [{ type: "human", content: "Hi", id: "question" }] },
      stream_mode: ["messages"],
    });
    const complete = dataOf(events, "messages/complete").flat() as { id: string }[];
    expect(complete.map(({ id }) => id)).toEqual(["question", "reply"]);
  });

  it("debug, tasks and checkpoints: what happens inside, without LangGraph's internals", async () => {
    const { events, thread_id } = await stream({
      assistant_id: "five",
      input: { input: "x" },
      stream_mode: ["debug", "tasks", "checkpoints"],
    });
    const debug = dataOf(events, "debug") as { type: string; payload: object }[];
    expect(debug.filter(({ type }) => type === "task")).toHaveLength(5);
    expect(debug.filter(({ type }) => type === "task_result")).toHaveLength(5);
    const checkpoints = debug.filter(({ type }) => type === "checkpoint");
    expect(checkpoints.length).toBeGreaterThanOrEqual(6);
    expect(checkpoints.at(-1)!.payload).toMatchObject({
      values: { trail: ["one", "two", "three", "four", "five"] },
      checkpoint: { thread_id, checkpoint_ns: "" },
      config: { configurable: { thread_id } },
    });
    expect(dataOf(events, "tasks")).toHaveLength(10);
    expect(dataOf(events, "tasks")[0]).toMatchObject({ name: "one", input: { input: "x" } });
    expect(dataOf(events, "checkpoints").at(-1)).toMatchObject({ next: [] });
    expect(JSON.stringify(events)).not.toMatch(/__pregel_(?!pull|push)/);
  });

  it("events: LangChain's own", async () => {
    const { events } = await stream({
      assistant_id: "chat",
      input: { messages: [{ type: "human", content: "Hi" }] },
      stream_mode: ["events"],
    });
    const kinds = (dataOf(events, "events") as { event: string }[]).map(({ event }) => event);
    expect(new Set(names(events))).toEqual(new Set(["events"]));
    expect(kinds[0]).toBe("on_chain_start");
    expect(kinds.at(-1)).toBe("on_chain_end");
    expect(kinds.filter((kind) => kind === "on_chat_model_stream")).toHaveLength(12);
    expect(JSON.stringify(events)).not.toMatch(/__pregel_(?!pull|push)/);
  });

  it("several modes at once, in the order things happened", async () => {
    const { events } = await stream({
      assistant_id: "custom",
      input: { input: "x" },
      stream_mode: ["values", "updates", "custom"],
    });
    expect(names(events)).toEqual(["values", "custom", "custom", "updates", "values"]);
    const { events: mixed } = await stream({
      assistant_id: "chat",
      input: { messages: [{ type: "human", content: "Hi" }] },
      stream_mode: ["messages", "messages-tuple", "values", "events"],
    });
    expect(new Set(names(mixed))).toEqual(
      new Set([
        "values",
        "messages",
        "messages/metadata",
        "messages/partial",
        "messages/complete",
        "events",
      ]),
    );
  });

  it("subgraphs: theirs too, with their place in the name", async () => {
    for (const stream_mode of [
      ["updates", "values"],
      ["updates", "values", "events"],
    ]) {
      const { events } = await stream({
        assistant_id: "nested",
        input: { input: "x" },
        stream_mode,
        stream_subgraphs: true,
      });
      const inner = names(events).filter((name) => name.includes("|"));
      expect(inner).toContainEqual(expect.stringMatching(/^updates\|child:[0-9a-f-]{36}$/));
      expect(inner).toContainEqual(expect.stringMatching(/^values\|child:[0-9a-f-]{36}$/));
      const update = events.find(({ event }) => event.startsWith("updates|"));
      expect(update?.data).toEqual({ inner: { trail: ["inner"] } });
      // The run's values are those of the graph itself, not of its last subgraph.
      expect(trails(dataOf(events, "values")).at(-1)).toEqual(["outer", "outer", "inner"]);
    }
    const { events } = await stream({
      assistant_id: "nested",
      input: { input: "x" },
      stream_mode: ["updates"],
    });
    expect(names(events)).toEqual(["updates", "updates"]);
  });

  it("ends with an error event when the graph fails, and with nothing after it", async () => {
    for (const stream_mode of [["values"], ["updates"], ["messages"], ["events"], ["debug"]]) {
      const { events, response } = await stream({
        assistant_id: "failing",
        input: { input: "x" },
        stream_mode,
      });
      expect(events.at(-1)).toMatchObject({
        event: "error",
        data: { error: "TypeError", message: "The second node is broken" },
      });
      expect(dataOf(events, "error")).toHaveLength(1);
      expect(JSON.stringify(events)).not.toMatch(/\.ts:\d|node_modules|"stack"/);
      const run = await request(server.url, response.headers.get("content-location")!);
      expect(run.json).toMatchObject({ status: "error" });
    }
  });

  it("gives every event to every reader", async () => {
    const { url, client } = server;
    const { thread_id } = await client.threads.create();
    const input = randomUUID();
    const first = await fetch(`${url}/threads/${thread_id}/runs/stream`, {
      method: "POST",
      body: JSON.stringify({
        assistant_id: "feed",
        input: { input },
        stream_mode: ["custom", "values"],
      }),
    });
    const path = first.headers.get("location")!;
    await feed.entered(input);
    feed.push(input, "early");
    const second = await fetch(url + path);
    const readers = [first, second].map((response) => collect(wireEvents(response)));
    feed.push(input, "middle");
    const third = await fetch(url + path);
    feed.push(input, "late");
    readers.push(collect(wireEvents(third)));
    feed.end(input);
    const [one, two, three] = await Promise.all(readers);
    expect(dataOf(one!, "custom")).toEqual(["early", "middle", "late"]);
    expect(two).toEqual(one);
    expect(three).toEqual(one);
    // And to one who comes when it is over.
    expect(await collect(wireEvents(await fetch(url + path)))).toEqual(one);
  });

  it("shows an event when it happens, not when the run ends", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const input = randomUUID();
    const parts = client.runs.stream(thread_id, "feed", {
      input: { input },
      streamMode: ["custom"],
    });
    const next = async () => (await parts.next()).value as { event: string; data: unknown };
    expect(await next()).toMatchObject({ event: "metadata" });
    for (const item of ["a", { b: ["ü", "\u2028", "line\nbreak", "\u0000"] }, null, 5]) {
      await feed.entered(input);
      feed.push(input, item);
      expect((await next()).data).toEqual(item);
    }
    feed.end(input);
    expect(await parts.next()).toMatchObject({ done: true });
  });

  it("shows only the asked modes to one who joins", async () => {
    const { client, url } = server;
    const { thread_id } = await client.threads.create();
    const run = await client.runs.create(thread_id, "chat", {
      input: { messages: [{ type: "human", content: "Hi" }] },
      streamMode: ["values", "updates", "messages", "messages-tuple"],
      streamSubgraphs: true,
    });
    await client.runs.join(thread_id, run.run_id);
    const join = async (streamMode: never) =>
      new Set(
        (await collect(client.runs.joinStream(thread_id, run.run_id, { streamMode }))).map(
          ({ event }) => event,
        ),
      );
    expect(await join("updates" as never)).toEqual(new Set(["metadata", "updates"]));
    expect(await join(["values", "updates"] as never)).toEqual(
      new Set(["metadata", "values", "updates"]),
    );
    expect(await join("messages-tuple" as never)).toEqual(new Set(["metadata", "messages"]));
    expect(await join("messages" as never)).toEqual(
      new Set(["metadata", "messages/metadata", "messages/partial", "messages/complete"]),
    );
    const comma = await request(
      url,
      `/threads/${thread_id}/runs/${run.run_id}/stream?stream_mode=values,updates`,
    );
    expect(comma.status).toBe(200);
    const wrong = await request(
      url,
      `/threads/${thread_id}/runs/${run.run_id}/stream?stream_mode=nonsense`,
    );
    expect(wrong).toMatchObject({
      status: 422,
      json: { detail: expect.stringMatching(/stream_mode.*"values"/) as string },
    });
  });
});
