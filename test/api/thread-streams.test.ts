import { randomUUID } from "node:crypto";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { createFeed, failing, five, registryOf } from "../support/graphs.ts";
import {
  eventually,
  request,
  startServer,
  wireEvents,
  type TestServer,
  type WireEvent,
} from "../support/server.ts";

interface Part {
  id?: string;
  event: string;
  data: unknown;
}

describeDatabases("a thread that is joined", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ failing, feed: feed.graph, five }));
  });

  /** Joins a thread with the official client, and collects up to the `count`th end of a run. */
  const join = (threadId: string, options: object = {}, count = 1) => {
    const controller = new AbortController();
    const parts: Part[] = [];
    const read = async (): Promise<Part[]> => {
      const stream = server.client.threads.joinStream(threadId, {
        ...options,
        signal: controller.signal,
      });
      for await (const part of stream) {
        parts.push(part as Part);
        if (parts.filter(({ event }) => event === "run_done").length === count) break;
      }
      controller.abort();
      return parts;
    };
    return { parts, done: read() };
  };
  /** Joins by hand: resolves when the server has begun to follow the thread. */
  const begin = async (threadId: string, mode: string) => {
    const controller = new AbortController();
    const response = await fetch(`${server.url}/threads/${threadId}/stream?stream_mode=${mode}`, {
      signal: controller.signal,
    });
    const events = wireEvents(response);
    return {
      next: async () => (await events.next()).value as WireEvent,
      close: () => controller.abort(),
    };
  };
  const names = (parts: Part[]): string[] => parts.map(({ event }) => event);

  it("tells what its runs tell, one after another, with ids to go on after", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const input = randomUUID();
    const first = await client.runs.create(thread_id, "feed", {
      input: { input },
      streamMode: ["custom"],
    });
    const second = await client.runs.create(thread_id, "failing", {
      input: { input: "x" },
      streamMode: ["updates"],
      multitaskStrategy: "enqueue",
    });
    await feed.entered(input);
    const joined = join(thread_id, {}, 2);
    await eventually(() => expect(joined.parts.length).toBeGreaterThan(0));
    feed.push(input, { n: 1 });
    feed.end(input);
    const parts = await joined.done;
    expect(names(parts)).toEqual([
      "metadata",
      "custom",
      "run_done",
      "metadata",
      "updates",
      "error",
      "run_done",
    ]);
    expect(parts[0]!.data).toMatchObject({ run_id: first.run_id, attempt: 1 });
    expect(parts[2]!.data).toEqual({ run_id: first.run_id, status: "success" });
    expect(parts[6]!.data).toEqual({ run_id: second.run_id, status: "error" });
    const ids = parts.map(({ id }) => Number(id));
    expect(ids).toEqual(ids.toSorted((left, right) => left - right));

    for (const [index, { id }] of parts.slice(0, -1).entries()) {
      const ends = parts.slice(index + 1).filter(({ event }) => event === "run_done").length;
      const rest = join(thread_id, { lastEventId: id }, ends);
      expect(await rest.done).toEqual(parts.slice(index + 1));
    }
    expect(await join(thread_id, { lastEventId: "-1" }, 2).done).toEqual(parts);
  });

  it("tells of starts and ends alone, or of the state", async () => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const lives = await begin(thread_id, "lifecycle");
    const states = await begin(thread_id, "state_update");
    await client.runs.wait(thread_id, "five", { input: { input: "x" } });
    expect((await lives.next()).event).toBe("metadata");
    expect(await lives.next()).toMatchObject({ event: "run_done", data: { status: "success" } });

    const trail = ["one", "two", "three", "four", "five"];
    const state = { event: "state_update", data: { thread_id, status: "idle", values: { trail } } };
    expect(await states.next()).toMatchObject(state);
    await client.threads.updateState(thread_id, { values: { trail: ["by hand"] } });
    state.data.values.trail.push("by hand");
    expect(await states.next()).toMatchObject(state);
    lives.close();
    states.close();
  });

  it("is refused where it is not there, or the place is none", async () => {
    const { url, client } = server;
    const { thread_id } = await client.threads.create();
    expect(await request(url, `/threads/${randomUUID()}/stream`)).toMatchObject({ status: 404 });
    for (const [path, headers] of [
      [`/threads/${thread_id}/stream?stream_mode=values`, {}],
      [`/threads/${thread_id}/stream`, { "last-event-id": "x" }],
    ] as const) {
      expect(await request(url, path, { headers })).toMatchObject({ status: 422 });
    }
  });
});
