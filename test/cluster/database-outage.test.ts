import { randomUUID } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { createLogCapture } from "../langfuse/harness.ts";
import { openDatabaseProxy, type DatabaseProxy } from "../support/database-proxy.ts";
import { createTestDatabases } from "../support/databases.ts";
import { createGate, five, registryOf } from "../support/graphs.ts";
import { beginJoin, eventually, request, startServer, wireEvents } from "../support/server.ts";

/** Follows a stream: resolves when its first event is there. */
async function follow(url: string) {
  const events = wireEvents(await fetch(url));
  await events.next();
  return {
    /** The data of the first such event that has `text` in it. */
    async until(name: string, text = ""): Promise<unknown> {
      for (;;) {
        const { done, value } = await events.next();
        if (done) throw new Error(`The stream ended without ${name}.`);
        if (value.event === name && JSON.stringify(value.data).includes(text)) return value.data;
      }
    },
  };
}

describe("a server whose database cannot be reached", () => {
  const databases = createTestDatabases("postgres");
  const ways: DatabaseProxy[] = [];
  // What carries nothing any more would hold up the end of the server.
  afterEach(() => ways.splice(0).forEach((way) => way.mend()));

  const start = async (graphs: Record<string, unknown> = { five }, leaseMs?: number) => {
    const { databaseUrl, dataDir } = await databases.configure();
    const way = await openDatabaseProxy(databaseUrl!);
    databases.defer(() => way.close());
    ways.push(way);
    const capture = createLogCapture();
    const server = await startServer(databases, registryOf(graphs), {
      log: capture.log,
      config: {
        database: { url: way.url, dataDir },
        workers: { concurrency: 10, graceMs: 0, leaseMs },
      },
    });
    capture.lines.splice(0);
    /** What was logged since the start at this level or a higher one. */
    const logged = (level: number): string[] =>
      capture.lines.filter((line) => line.level >= level).map(({ msg }) => msg);
    return { ...server, way, lines: capture.lines, logged };
  };

  it.each([
    ["/threads", {}],
    ["/threads/search", {}],
    [`/threads/${randomUUID()}`, undefined],
    [`/threads/${randomUUID()}/runs`, { assistant_id: "five", input: {} }],
    [`/threads/${randomUUID()}/commands`, { id: 1, method: "state.get" }],
    ["/runs/wait", { assistant_id: "five", input: {} }],
    ["/assistants/five", undefined],
    ["/assistants/search", {}],
    ["/runs/crons/search", {}],
    ["/store/items/search", { namespace_prefix: [] }],
  ])("answers 503, and not that it has a bug: %s", async (path, json) => {
    const { url, way, logged } = await start();
    way.cut();
    const answer = await request(url, path, { json });
    expect(answer.json).toMatchObject({ code: "unavailable", detail: expect.any(String) });
    expect(answer.status).toBe(503);
    expect(answer.headers.get("retry-after")).toBe("1");
    expect(logged(50)).not.toContain("request failed");
  });

  it("has waits, joins and streams pause when it goes away as the run ends, and go on", async () => {
    const gate = createGate();
    const { client, url, way, logged } = await start({ gate: gate.graph }, 3_000);
    const { thread_id: threadId } = await client.threads.create();
    const input = { input: "x" };
    const waited = client.runs.wait(threadId, "gate", { input });
    await gate.entered;
    const [run] = await client.runs.list(threadId);
    const { values: joined } = await beginJoin(url, run!);
    const streamed = await follow(`${url}/threads/${threadId}/runs/${run!.run_id}/stream`);
    const ofThread = await follow(`${url}/threads/${threadId}/stream?stream_mode=lifecycle`);
    way.cut();
    // The lease is over, and with it this execution.
    await eventually(() => expect(logged(30)).toContain("run"));
    const asked = await request(url, `/threads/${threadId}`);
    expect(asked.status).toBe(503);
    gate.release();
    way.mend();
    for (const values of [await waited, await joined]) {
      expect(values).toMatchObject({ trail: ["before", "gate"] });
    }
    expect(await streamed.until("values", '"gate"')).toMatchObject({ trail: ["before", "gate"] });
    expect(await ofThread.until("run_done")).toMatchObject({ status: "success" });
    expect((await client.runs.get(threadId, run!.run_id)).status).toBe("success");
  });

  it("says once that it is away and once that it is back, whatever is tried meanwhile", async () => {
    const { client, way, lines, logged } = await start();
    await client.threads.create();
    way.cut();
    // Several rounds of everything that looks for work.
    await eventually(() => expect(way.refused()).toBeGreaterThan(12));
    way.mend();
    await eventually(() => expect(logged(30)).toContain("The database is back."));
    expect(logged(40).toSorted()).toEqual([
      "A connection to the database was lost; it will be replaced.",
      "The LISTEN connection to the database was lost; reconnecting.",
      expect.stringMatching(/^The database cannot be reached \(.+\)\. .+ go on when it is back\.$/),
    ]);
    expect(logged(30).filter((msg) => msg === "The database is back.")).toHaveLength(1);
    expect(lines.filter(({ level, err }) => level > 20 && err !== undefined)).toEqual([]);
  });

  it("gives its metrics all the same where it says nothing, but for what it alone knows", async () => {
    const { client, url, way } = await start();
    await client.threads.create();
    way.silence();
    const answer = await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(12_000) });
    const text = await answer.text();
    expect(text).toMatch(/^process_resident_memory_bytes \d/m);
    expect(text).toMatch(/^aegra_webhooks_delivered_total 0$/m);
    expect(text).not.toMatch(/^aegra_(runs|webhooks)_waiting /m);
  });
});
