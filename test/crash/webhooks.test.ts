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

describe("kill -9 between the end of a run and its webhook", () => {
  const databases = createTestDatabases("postgres");
  const cleanups: (() => Promise<unknown>)[] = [];
  afterAll(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });

  it("loses no webhook: another process sends it, under the same id", async () => {
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
    const run = await first.client.runs.create(null, "agent", {
      input: {},
      webhook: receiver.url,
    });
    await until(async () => receiver.received[0], "the first attempt");
    await first.kill();

    const database = await openDatabase({ databaseUrl, dataDir });
    cleanups.push(() => database.close());
    const waiting = await database.query(
      "SELECT status, attempts FROM webhook_deliveries WHERE run_id = $1",
      [run.run_id],
    );
    expect(waiting.rows).toEqual([{ status: "waiting", attempts: [] }]);
    // As if the minute had gone by that the first process had for it.
    await database.query("UPDATE webhook_deliveries SET next_attempt_at = now()");
    await start();
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
