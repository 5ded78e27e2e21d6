import { describe, expect, it } from "vitest";
import { Client } from "pg";
import { createTestDatabases } from "../support/databases.ts";
import { five, registryOf } from "../support/graphs.ts";
import { collect, startServer } from "../support/server.ts";

describe("a run whose database connections break", () => {
  const databases = createTestDatabases("postgres");

  /** A thread with a past, whose checkpoints cannot be read until `open` is called. */
  const setUp = async () => {
    const { client, config } = await startServer(databases, registryOf({ five }));
    const { thread_id: threadId } = await client.threads.create();
    await client.runs.wait(threadId, "five", { input: { input: "first" } });
    const lock = new Client({ connectionString: config.database.url! });
    await lock.connect();
    databases.defer(() => lock.end());
    await lock.query("BEGIN; LOCK TABLE checkpoints");
    const ended = new Set<number>();
    return {
      client,
      threadId,
      /** Ends the connections that wait for the lock. Gives how many; one that takes its time to end counts once. */
      cut: async (): Promise<number> => {
        const { rows } = await lock.query<{ pid: number }>(
          `SELECT pid, pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted
             AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`,
        );
        const before = ended.size;
        for (const { pid } of rows) ended.add(pid);
        return ended.size - before;
      },
      open: () => lock.query("COMMIT"),
    };
  };

  it.each([
    { cuts: 1, attempts: [1] },
    { cuts: 4, attempts: [1, 2] },
  ])("goes on, in attempt $attempts after $cuts cuts", async ({ cuts, attempts }) => {
    const { client, threadId, cut, open } = await setUp();
    const { run_id: runId } = await client.runs.create(threadId, "five", {
      input: { input: "second" },
      streamResumable: true,
    });
    for (let left = cuts; left > 0;) {
      left -= Math.min(left, await cut());
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await open();
    const values = (await client.runs.join(threadId, runId)) as { trail: string[] };
    expect(values.trail).toHaveLength(10);
    const events = await collect(client.runs.joinStream(threadId, runId, { lastEventId: "-1" }));
    const said = events.flatMap(({ event, data }) =>
      (event as string) === "metadata" ? [(data as unknown as { attempt: number }).attempt] : [],
    );
    expect(said).toEqual(attempts);
    expect((await client.runs.get(threadId, runId)).status).toBe("success");
  });
});
