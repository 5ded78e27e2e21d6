import { randomUUID } from "node:crypto";
import { createServer, connect, type AddressInfo, type Socket } from "node:net";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { chat, createFeed, failing, five, registryOf } from "../support/graphs.ts";
import {
  collect,
  createClient,
  eventually,
  request,
  startServer,
  wireEvents,
  type TestServer,
  type WireEvent,
} from "../support/server.ts";

describeDatabases("coming back to a run", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ chat, failing, five, feed: feed.graph }));
  });

  const create = async (graph: string, options: object = {}) => {
    const { client } = server;
    const { thread_id } = await client.threads.create();
    const input = randomUUID();
    const run = await client.runs.create(thread_id, graph, {
      input: graph === "chat" ? { messages: [{ type: "human", content: "Hi" }] } : { input },
      ...options,
    });
    return { thread_id, run_id: run.run_id, input };
  };
  const read = async (
    { thread_id, run_id }: { thread_id: string; run_id: string },
    lastEventId?: string,
  ) => {
    const response = await fetch(`${server.url}/threads/${thread_id}/runs/${run_id}/stream`, {
      headers: lastEventId === undefined ? {} : { "last-event-id": lastEventId },
    });
    expect(response.status).toBe(200);
    return collect(wireEvents(response));
  };
  const ids = (events: WireEvent[]) => events.map(({ id }) => Number(id));

  it("goes on after the event that was seen last", async () => {
    const place = await create("chat", { streamMode: ["messages-tuple", "values"] });
    const all = await read(place);
    expect(ids(all)).toEqual(all.map((_, index) => index));
    expect(await read(place, "-1")).toEqual(all);
    expect(await read(place, "")).toEqual(all);
    for (const seen of [0, 3, all.length - 2])
      expect(await read(place, String(seen))).toEqual(all.slice(seen + 1));
    expect(await read(place, String(all.length - 1))).toEqual([]);
    expect(await read(place, "4000")).toEqual([]);
  });

  it("goes on in the middle of a run, and waits for the rest", async () => {
    const place = await create("feed", { streamMode: ["custom"] });
    await feed.entered(place.input);
    feed.push(place.input, "a", "b");
    const early = server.client.runs.joinStream(place.thread_id, place.run_id, {
      lastEventId: "-1",
    });
    await early.next();
    await early.next();
    const seen = (await early.next()).value as { id: string; data: unknown };
    expect(seen.data).toBe("b");
    await early.return(undefined);
    const rest = read(place, seen.id);
    feed.push(place.input, "c");
    feed.end(place.input);
    expect((await rest).map(({ id, data }) => [Number(id), data])).toEqual([
      [Number(seen.id) + 1, "c"],
    ]);
  });

  it("refuses an id that no event can have", async () => {
    const { thread_id, run_id } = await create("five");
    for (const id of ["abc", "1.5", "-2", "1e99", "0x10", " 1 2"]) {
      const answer = await request(server.url, `/threads/${thread_id}/runs/${run_id}/stream`, {
        headers: { "last-event-id": id },
      });
      expect(answer).toMatchObject({
        status: 422,
        json: { detail: expect.stringContaining("Last-Event-ID") as string },
      });
    }
  });

  it("joins a run that is over", async () => {
    const { client, url } = server;
    const good = await create("five");
    const values = await client.runs.join(good.thread_id, good.run_id);
    expect(values).toMatchObject({ trail: { length: 5 } });
    expect(await client.runs.join(good.thread_id, good.run_id)).toEqual(values);
    const bad = await create("failing");
    const answer = await request(url, `/threads/${bad.thread_id}/runs/${bad.run_id}/join`);
    expect(answer).toMatchObject({
      status: 200,
      json: { __error__: { error: "TypeError", message: "The second node is broken" } },
    });
    expect(answer.headers.get("content-location")).toBe(
      `/threads/${bad.thread_id}/runs/${bad.run_id}`,
    );
  });

  it("finds a run only where it is", async () => {
    const { client, url } = server;
    const { run_id, thread_id } = await create("five");
    const other = await client.threads.create();
    for (const path of ["", "/join", "/stream"]) {
      for (const place of [
        `/threads/${other.thread_id}/runs/${run_id}`,
        `/threads/${thread_id}/runs/${randomUUID()}`,
      ]) {
        expect(await request(url, place + path)).toMatchObject({
          status: 404,
          json: { code: "not_found" },
        });
      }
    }
    expect(
      (await request(url, `/THREADS/${thread_id}/runs/${run_id}`.replace("THREADS", "threads")))
        .status,
    ).toBe(200);
    expect(
      (await request(url, `/threads/${thread_id.toUpperCase()}/runs/${run_id.toUpperCase()}`))
        .status,
    ).toBe(200);
  });

  it("follows a run without a thread", async () => {
    const { client } = server;
    const input = randomUUID();
    const run = await client.runs.create(null, "feed", {
      input: { input },
      streamMode: ["custom"],
    });
    await feed.entered(input);
    const reading = collect(client.runs.joinStream(null, run.run_id));
    feed.push(input, 1);
    feed.end(input);
    const all = await reading;
    expect(all.map(({ event, data }) => [event, data]).slice(1)).toEqual([["custom", 1]]);
    expect(await collect(client.runs.joinStream(null, run.run_id))).toEqual(all);
    expect(await client.runs.join(run.thread_id, run.run_id)).toMatchObject({ trail: [input] });
    // It left nothing but the run itself.
    await expect(client.threads.get(run.thread_id)).rejects.toMatchObject({ status: 404 });
  });

  it("is done by the client itself when its connection breaks", async () => {
    const proxy = await openProxy(Number(new URL(server.url).port));
    const client = createClient(proxy.url);
    const { thread_id } = await client.threads.create();
    const input = randomUUID();
    const parts = client.runs.stream(thread_id, "feed", {
      input: { input },
      streamMode: ["custom"],
    });
    const seen: unknown[] = [];
    const reading = (async () => {
      for await (const part of parts) seen.push(part.data);
    })();
    await feed.entered(input);
    feed.push(input, "one");
    await eventually(() => expect(seen).toContain("one"));
    proxy.cut();
    feed.push(input, "two");
    await eventually(() => expect(seen).toContain("two"));
    feed.push(input, "three");
    proxy.cut();
    feed.end(input);
    await reading;
    expect(seen.slice(1)).toEqual(["one", "two", "three"]);
    expect((await client.runs.list(thread_id)).map(({ status }) => status)).toEqual(["success"]);
    await proxy.close();
  });
});

describeDatabases("coming back after a restart", (databases) => {
  it("finds a resumable run's events in the database, and how any other run ended", async () => {
    const before = await startServer(databases, registryOf({ chat, failing, five }));
    const { client } = before;
    const { thread_id } = await client.threads.create();
    const run = async (graph: string, streamResumable: boolean) => {
      const { run_id } = await client.runs.create(thread_id, graph, {
        input: graph === "chat" ? { messages: [{ type: "human", content: "Hi" }] } : { input: "x" },
        streamMode: ["messages-tuple", "values", "updates"],
        streamResumable,
      });
      await client.runs.join(thread_id, run_id);
      const events = await collect(client.runs.joinStream(thread_id, run_id));
      return { run_id, events };
    };
    const kept = await run("chat", true);
    const keptFailure = await run("failing", true);
    const gone = await run("five", false);
    const goneFailure = await run("failing", false);

    const after = await before.restart();
    const read = (run_id: string, lastEventId?: string) =>
      collect(after.client.runs.joinStream(thread_id, run_id, lastEventId ? { lastEventId } : {}));
    expect(kept.events.length).toBeGreaterThan(10);
    expect(await read(kept.run_id)).toEqual(kept.events);
    expect(await read(kept.run_id, "5")).toEqual(kept.events.slice(6));
    expect(await read(kept.run_id, String(kept.events.length - 1))).toEqual([]);
    expect(await read(keptFailure.run_id)).toEqual(keptFailure.events);
    expect(await read(keptFailure.run_id, "-1")).toEqual(keptFailure.events);

    expect(await read(gone.run_id)).toEqual([
      { id: "0", event: "metadata", data: { run_id: gone.run_id, attempt: 1 } },
      { id: "1", event: "values", data: gone.events.at(-1)!.data },
    ]);
    expect((await read(goneFailure.run_id)).at(-1)).toMatchObject({
      event: "error",
      data: { error: "TypeError" },
    });
    // One who has seen a part is told the end as well, under an id it has not seen.
    expect(await read(gone.run_id, "3")).toEqual([
      { id: "4", event: "values", data: gone.events.at(-1)!.data },
    ]);
    expect(await read(goneFailure.run_id, "3")).toMatchObject([{ id: "4", event: "error" }]);
    expect(await after.client.runs.join(thread_id, gone.run_id)).toEqual(gone.events.at(-1)!.data);
    await expect(
      after.client.runs.wait(thread_id, "five", { input: { input: "y" } }),
    ).resolves.toMatchObject({ input: "y" });
  });
});

/** A TCP proxy whose connections can be cut. */
async function openProxy(
  target: number,
): Promise<{ url: string; cut: () => void; close: () => Promise<void> }> {
  const sockets = new Set<Socket>();
  const proxy = createServer((inbound) => {
    const outbound = connect(target, "127.0.0.1");
    for (const socket of [inbound, outbound]) {
      sockets.add(socket);
      socket.on("error", () => {});
      socket.on("close", () => sockets.delete(socket));
    }
    inbound.pipe(outbound);
    outbound.pipe(inbound);
    inbound.on("close", () => outbound.destroy());
    outbound.on("close", () => inbound.destroy());
  });
  await new Promise<void>((resolve) => {
    proxy.listen(0, "127.0.0.1", resolve);
  });
  const cut = (): void => sockets.forEach((socket) => socket.destroy());
  const close = async (): Promise<void> => {
    cut();
    await new Promise((resolve) => proxy.close(resolve));
  };
  return { url: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`, cut, close };
}
