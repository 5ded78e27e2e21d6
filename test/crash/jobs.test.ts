import { Client } from "pg";
import { afterAll, describe, expect, it } from "vitest";
import { openDatabase } from "../../src/storage/open.ts";
import { createProject, startChild, until } from "../support/child-server.ts";
import { createTestDatabases } from "../support/databases.ts";
import { openWebhookReceiver } from "../support/webhook-receiver.ts";

const GRAPH = `
import { Annotation, StateGraph } from "@langchain/langgraph";
export const graph = new StateGraph(Annotation.Root({ answer: Annotation<string> }))
  .addNode("only", async () => ({ answer: "42" }))
  .addEdge("__start__", "only")
  .compile();
`;

/** Lets ten crons fire, and keeps the eleventh waiting in its transaction until lock 7 is given back. */
async function holdCrons(databaseUrl: string): Promise<Client> {
  const client = new Client({ connectionString: databaseUrl });
  await client.connect();
  await client.query("SELECT pg_advisory_lock(7)");
  await client.query(`
    CREATE FUNCTION hold_crons() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      IF (SELECT count(*) FROM runs WHERE metadata ? 'cron_id') >= 10 THEN
        PERFORM pg_advisory_xact_lock_shared(7);
      END IF;
      RETURN NEW;
    END $$;
    CREATE TRIGGER hold_crons BEFORE INSERT ON runs
      FOR EACH ROW WHEN (NEW.metadata ? 'cron_id') EXECUTE FUNCTION hold_crons();
  `);
  return client;
}

describe("kill -9 of the process that does the deployment's work", () => {
  const databases = createTestDatabases("postgres");
  const cleanups: (() => Promise<unknown>)[] = [];
  afterAll(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });

  it("loses no webhook and no time of a cron: another process goes on, and nothing is done twice", async () => {
    const receiver = await openWebhookReceiver();
    cleanups.push(() => receiver.close());
    const { databaseUrl, dataDir } = await databases.configure();
    const project = await createProject({
      "graph.ts": GRAPH,
      "aegra.json": JSON.stringify({
        graphs: { agent: "./graph.ts:graph" },
        webhooks: { allow_private_networks: true },
      }),
    });
    cleanups.push(project.remove);
    const start = async () => {
      const child = await startChild(project.folder, { DATABASE_URL: databaseUrl });
      cleanups.push(() => child.kill());
      return child;
    };

    receiver.answers.push("hang");
    const first = await start();
    const database = await openDatabase({ databaseUrl, dataDir });
    cleanups.push(() => database.close());
    const cronIds: string[] = [];
    for (let index = 0; index < 60; index += 1) {
      const cron = await first.client.crons.create("agent", { schedule: "0 0 1 1 *", input: {} });
      cronIds.push(cron.cron_id);
    }
    const gate = await holdCrons(databaseUrl!);
    cleanups.push(() => gate.end());

    // Last of all: the attempt does not hang for ever, and the process is to die in it.
    const run = await first.client.runs.create(null, "agent", {
      input: {},
      webhook: receiver.url,
    });
    await until(async () => receiver.received[0], "the first attempt");

    const firings = async (): Promise<Map<string, number>> => {
      const { rows } = await database.query<{ cron_id: string; runs: number }>(
        `SELECT metadata ->> 'cron_id' AS cron_id, count(*)::int AS runs FROM runs
         WHERE metadata ? 'cron_id' GROUP BY 1`,
      );
      return new Map(rows.map((row) => [row.cron_id, row.runs]));
    };
    await database.query("UPDATE crons SET next_run_date = now()");
    await until(async () => ((await firings()).size > 0 ? true : undefined), "a cron to fire");
    await first.kill();
    await gate.query("SELECT pg_advisory_unlock(7)");
    const before = (await firings()).size;
    // In the middle of it; otherwise this shows nothing.
    expect(before).toBeLessThan(cronIds.length);

    const waiting = await database.query(
      "SELECT status, attempts FROM webhook_deliveries WHERE run_id = $1",
      [run.run_id],
    );
    expect(waiting.rows).toEqual([{ status: "waiting", attempts: [] }]);
    // As if the time had gone by that the first process had for them.
    await database.query("UPDATE webhook_deliveries SET next_attempt_at = now()");
    await database.query("UPDATE crons SET claimed_until = now() WHERE claimed_until > now()");
    await start();
    await until(
      async () => ((await firings()).size === cronIds.length ? true : undefined),
      "every cron to fire",
    );
    expect([...(await firings()).values()]).toEqual(cronIds.map(() => 1));
    const due = await database.query("SELECT 1 FROM crons WHERE next_run_date <= now()");
    expect(due.rows).toEqual([]);
    const second = await until(async () => receiver.received[1], "the second attempt");
    expect(second.json).toMatchObject({
      run_id: run.run_id,
      status: "success",
      values: { answer: "42" },
    });
    expect(second.headers["webhook-id"]).toBe(receiver.received[0]?.headers["webhook-id"]);
    await until(async () => {
      const { rows } = await database.query(
        "SELECT 1 FROM webhook_deliveries WHERE status = 'delivered'",
      );
      return rows[0];
    }, "the delivery to be noted");
    expect(receiver.received).toHaveLength(2);
  });
});
