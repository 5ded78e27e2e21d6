import { randomUUID } from "node:crypto";
import { afterEach, describe, expect, it } from "vitest";
import { createLogCapture } from "../langfuse/harness.ts";
import { openDatabaseProxy, type DatabaseProxy } from "../support/database-proxy.ts";
import { createTestDatabases } from "../support/databases.ts";
import { createGate, five, registryOf } from "../support/graphs.ts";
import { eventually, request, startServer } from "../support/server.ts";

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
    /** What was logged at this level or a higher one. */
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
});
