import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { openDatabase } from "../../src/storage/open.ts";
import { createTestDatabases } from "../support/databases.ts";
import { createFeed, registryOf } from "../support/graphs.ts";
import { eventually, startServer } from "../support/server.ts";

describe("the worker of a process that was silent for too long", () => {
  const databases = createTestDatabases("postgres");

  it("stops its earlier try when it takes up its own run again, and keeps the later one", async () => {
    const feed = createFeed();
    const { client, config } = await startServer(databases, registryOf({ feed: feed.graph }));
    const database = await openDatabase({
      databaseUrl: config.database.url,
      dataDir: config.database.dataDir,
    });
    databases.defer(() => database.close());
    const { thread_id: threadId } = await client.threads.create();
    const input = randomUUID();
    const { run_id: runId } = await client.runs.create(threadId, "feed", { input: { input } });
    await feed.entered(input);
    // As another process does after the lease; this one then finds the run in the queue.
    await database.query(
      "UPDATE runs SET status = 'pending', worker_id = NULL, lease_expires_at = NULL WHERE run_id = $1",
      [runId],
    );
    await feed.aborted(input);
    await eventually(() => expect(feed.begun).toEqual([input, input]));
    // It can be stopped only by a process that knows that it has it.
    await client.runs.cancel(threadId, runId, true);
    expect(await client.runs.get(threadId, runId)).toMatchObject({ status: "interrupted" });
    expect((await client.threads.get(threadId)).status).toBe("idle");
  });
});
