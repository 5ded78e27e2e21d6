import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import { saveRows } from "../../src/storage/checkpoint-statement.ts";
import type { Database, Queryable } from "../../src/storage/database.ts";
import { createRunEventRepository } from "../../src/storage/run-events.ts";
import { createRunQueue, type Lease } from "../../src/storage/run-queue.ts";
import { createTestDatabases } from "../support/databases.ts";

/** A transaction that stays open until it is told to end. */
async function hold(database: Database): Promise<{ tx: Queryable; end: () => Promise<void> }> {
  let release = (): void => {};
  const released = new Promise<void>((resolve) => (release = resolve));
  let begun = (_tx: Queryable): void => {};
  const opened = new Promise<Queryable>((resolve) => (begun = resolve));
  const ended = database.transaction(async (tx) => {
    begun(tx);
    await released;
  });
  return {
    tx: await opened,
    end: async () => {
      release();
      await ended;
    },
  };
}

// One session cannot meet itself, so this is about PostgreSQL alone.
describe("a lease that ends while its worker writes", () => {
  const databases = createTestDatabases("postgres");

  const setUp = async () => {
    const database = await databases.open();
    const lease: Lease = { run_id: randomUUID(), worker_id: randomUUID(), attempt: 1 };
    const threadId = randomUUID();
    await database.query(
      `INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, kwargs, multitask_strategy, worker_id,
         attempt, lease_expires_at)
       VALUES ($1, $2, $3, 'g', 'running', '{}', 'enqueue', $4, 1, now() - interval '1 second')`,
      [lease.run_id, threadId, randomUUID(), lease.worker_id],
    );
    const writers: Record<string, (on: Queryable) => Promise<boolean>> = {
      events: async (on) => {
        const events = [{ id: 0, event: "custom", data: '"a"' }];
        const nobody = { channel: "none", payloads: [] };
        return (await createRunEventRepository(on).append([{ lease, events }], nobody)).size > 0;
      },
      checkpoints: async (on) => {
        const guard = { runId: lease.run_id, attempt: 1 };
        const bytes = new TextEncoder().encode("{}");
        const write = {
          threadId,
          namespace: "",
          checkpointId: randomUUID(),
          taskId: randomUUID(),
          idx: 0,
          channel: "c",
          type: "json",
          taskPath: "",
          bytes,
          replaces: false,
        };
        const rows = { checkpoints: [], blobs: [], writes: [write], byteCount: bytes.byteLength };
        return !(await saveRows(on, [{ rows, guard }])).has(guard);
      },
    };
    const written = async (): Promise<number> => {
      const { rows } = await database.query<{ count: number }>(
        `SELECT (SELECT count(*) FROM run_events) + (SELECT count(*) FROM checkpoint_writes) AS count`,
      );
      return rows[0]!.count;
    };
    return { database, lease, queue: createRunQueue(database), writers, written };
  };

  it.each(["events", "checkpoints"])("is not taken away before %s are written", async (what) => {
    const { database, queue, writers, lease, written } = await setUp();
    const writing = await hold(database);
    expect(await writers[what]!(writing.tx)).toBe(true);
    const overdue = { held: [], everything: false };
    expect(await queue.recover(overdue)).toEqual([]);
    await writing.end();
    expect(await queue.recover(overdue)).toEqual([{ run_id: lease.run_id, attempt: 1 }]);
    expect(await written()).toBe(1);
  });

  it.each(["events", "checkpoints"])(
    "lets no %s through that began before it was taken",
    async (what) => {
      const { database, queue, writers, written } = await setUp();
      const taking = await hold(database);
      const others = createRunQueue({ ...taking.tx, transaction: (work) => work(taking.tx) });
      expect(await others.recover({ held: [], everything: false })).toHaveLength(1);
      // It sees the row as it was, and waits for the one who changes it.
      const late = writers[what]!(database);
      await expect
        .poll(async () => {
          const { rows } = await database.query(
            `SELECT 1 FROM pg_stat_activity
             WHERE wait_event_type = 'Lock' AND datname = current_database()`,
          );
          return rows.length;
        })
        .toBeGreaterThan(0);
      await taking.end();
      expect(await late).toBe(false);
      expect(await written()).toBe(0);
      const claim = { workerId: randomUUID(), leaseMs: 1_000, limit: 1 };
      expect(await queue.claim(claim)).toMatchObject([{ attempt: 2, losses: 1 }]);
    },
  );
});
