import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { createCronRepository } from "../../src/storage/crons.ts";
import type { Database } from "../../src/storage/database.ts";
import { openDatabase } from "../../src/storage/open.ts";
import type { NewRun } from "../../src/storage/run-creation.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";
import { five, registryOf } from "../support/graphs.ts";
import { eventually, startServer, type TestServer } from "../support/server.ts";
import { openWebhookReceiver, type WebhookReceiver } from "../support/webhook-receiver.ts";

const MINUTELY = "* * * * *";

describe("crons of three servers on one PostgreSQL", () => {
  const databases = createTestDatabases("postgres");
  let servers: TestServer[];
  let database: Database;
  let receiver: WebhookReceiver;
  beforeAll(async () => {
    const graphs = registryOf({ five });
    receiver = await openWebhookReceiver();
    databases.defer(() => receiver.close());
    const webhooks = {
      enabled: true,
      headers: {},
      secret: undefined,
      url: {},
      allowPrivateNetworks: true,
    };
    const first = await startServer(databases, graphs, { config: { webhooks } });
    const config = { database: first.config.database, webhooks };
    servers = [
      first,
      await startServer(databases, graphs, { config }),
      await startServer(databases, graphs, { config }),
    ];
    database = await openDatabase({
      databaseUrl: first.config.database.url,
      dataDir: first.config.database.dataDir,
    });
    databases.defer(() => database.close());
  });

  it("each fire once for each of their times", async () => {
    const { client } = servers[0]!;
    const ids: string[] = [];
    for (let index = 0; index < 24; index += 1) {
      const cron = await client.crons.create("five", {
        schedule: "0 0 1 1 *",
        input: { input: String(index) },
        onRunCompleted: index % 2 === 0 ? "keep" : "delete",
        webhook: `${receiver.url}/${index}`,
      });
      ids.push(cron.cron_id);
    }
    for (let round = 1; round <= 2; round += 1) {
      await database.query(
        "UPDATE crons SET next_run_date = now() - interval '1 millisecond' WHERE cron_id = ANY($1)",
        [ids],
      );
      await eventually(async () => {
        const { rows } = await database.query(
          `SELECT 1 FROM crons WHERE cron_id = ANY($1) AND next_run_date > now()
             AND claimed_until IS NULL`,
          [ids],
        );
        expect(rows).toHaveLength(ids.length);
      });
      const { rows } = await database.query<{ runs: number }>(
        `SELECT count(*)::int AS runs FROM runs WHERE metadata ->> 'cron_id' = ANY($1::text[])
         GROUP BY metadata ->> 'cron_id'`,
        [ids],
      );
      expect(rows.map(({ runs }) => runs)).toEqual(Array(ids.length).fill(round));
    }
    await eventually(async () => {
      const { rows } = await database.query<{ statuses: string[]; workers: number }>(
        `SELECT array_agg(DISTINCT status) AS statuses, count(DISTINCT worker_id)::int AS workers
         FROM runs WHERE metadata ? 'cron_id'`,
      );
      expect(rows[0]?.statuses).toEqual(["success"]);
    });
    // And each of their runs is told of once.
    await eventually(() => expect(receiver.received).toHaveLength(2 * ids.length));
    expect(new Set(receiver.received.map(({ json }) => json["run_id"])).size).toBe(2 * ids.length);
  });

  it("lose nothing when the server that took a due cron is gone", async () => {
    const { client } = servers[0]!;
    const cron = await client.crons.create("five", {
      schedule: "0 0 1 1 *",
      onRunCompleted: "keep",
    });
    // As a server leaves it that dies between taking and firing.
    const { rows: taken } = await database.query<{ until: Date }>(
      `UPDATE crons SET next_run_date = now(), claimed_until = now() + interval '1.5 seconds'
       WHERE cron_id = $1 RETURNING claimed_until AS until`,
      [cron.cron_id],
    );
    const [run] = await eventually(async () => {
      const { rows } = await database.query<{ created_at: Date }>(
        "SELECT created_at FROM runs WHERE metadata ->> 'cron_id' = $1",
        [cron.cron_id],
      );
      expect(rows).toHaveLength(1);
      return rows;
    });
    // Not before its time was over.
    expect(run!.created_at.getTime()).toBeGreaterThanOrEqual(taken[0]!.until.getTime());
  });
});

describeDatabases("firing a cron", (databases) => {
  let database: Database;
  beforeAll(async () => {
    database = await databases.open();
  });
  const setUp = async () => {
    for (const table of ["crons", "runs", "threads"]) await database.query(`DELETE FROM ${table}`);
    const assistantId = randomUUID();
    await database.query(
      "INSERT INTO assistants (assistant_id, graph_id, name) VALUES ($1, 'five', 'five')",
      [assistantId],
    );
    const crons = createCronRepository(database);
    const cron = await crons.create(
      {
        cron_id: randomUUID(),
        assistant_id: assistantId,
        thread_id: null,
        schedule: MINUTELY,
        timezone: null,
        enabled: true,
        end_time: null,
        on_run_completed: "keep",
        payload: {},
        metadata: {},
        user_id: null,
        origin: { base_url: "http://localhost" },
        next_run_date: null,
      },
      undefined,
    );
    // With microseconds, which JavaScript does not have.
    await database.query("UPDATE crons SET next_run_date = now() - interval '1.000001 seconds'");
    const run = (id: string = randomUUID()): NewRun => ({
      run_id: id,
      thread_id: randomUUID(),
      assistant_id: assistantId,
      graph_id: "five",
      metadata: {},
      kwargs: {
        config: {},
        stream_mode: [],
        subgraphs: false,
        resumable: false,
        on_disconnect: "continue",
      },
      thread_config: { configurable: {} },
      settings: {},
      multitask_strategy: "enqueue",
      user_id: undefined,
      temporary: false,
      origin: { trigger: "cron", assistant_name: "five", assistant_version: 1 },
      afterSeconds: 0,
      filter: undefined,
      claim: undefined,
      logged: "on_demand",
    });
    const count = async (): Promise<{ runs: number; threads: number }> => {
      const { rows } = await database.query<{ runs: number; threads: number }>(
        "SELECT (SELECT count(*)::int FROM runs) AS runs, (SELECT count(*)::int FROM threads) AS threads",
      );
      return rows[0]!;
    };
    return { crons, cronId: cron!.cron_id, run, count };
  };

  it("happens once, however many try", async () => {
    const { crons, cronId, run, count } = await setUp();
    const [taken] = await crons.claimDue(10, 60_000);
    expect(await crons.claimDue(10, 60_000)).toEqual([]);
    const next = new Date(taken!.now.getTime() + 60_000);
    const firing = { cron_id: cronId, due: taken!.due, next, newThread: { a: 1 } };
    const fired = await Promise.all(
      Array.from({ length: 8 }, () => crons.fire({ ...firing, run: run() })),
    );
    expect(fired.map(({ kind }) => kind).toSorted()).toEqual([
      "created",
      ...Array<string>(7).fill("elsewhere"),
    ]);
    expect(await count()).toEqual({ runs: 1, threads: 1 });
    expect((await crons.get(cronId, undefined))?.next_run_date).toEqual(next);
  });

  it("is undone as a whole when its run cannot be written, and can be tried again", async () => {
    const { crons, cronId, run, count } = await setUp();
    const [taken] = await crons.claimDue(10, 0);
    const firing = { cron_id: cronId, due: taken!.due, next: null, newThread: {} };
    await expect(crons.fire({ ...firing, run: run("no id") })).rejects.toThrow("uuid");
    expect(await count()).toEqual({ runs: 0, threads: 0 });
    const [again] = await crons.claimDue(10, 0);
    expect(again?.due).toBe(taken!.due);
    expect(await crons.fire({ ...firing, run: run() })).toMatchObject({ kind: "created" });
    expect(await crons.claimDue(10, 0)).toEqual([]);
  });

  it("does not happen after a change of its times", async () => {
    const { crons, cronId, run, count } = await setUp();
    const [taken] = await crons.claimDue(10, 60_000);
    await crons.update(
      cronId,
      (cron) => ({ ...cron, enabled: false, next_run_date: null }),
      undefined,
    );
    const firing = { cron_id: cronId, due: taken!.due, next: null, newThread: {} };
    expect(await crons.fire({ ...firing, run: run() })).toEqual({ kind: "elsewhere" });
    expect(await count()).toEqual({ runs: 0, threads: 0 });
  });
});
