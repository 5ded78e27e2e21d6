import { expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { createGate, five, registryOf } from "../support/graphs.ts";
import { startServer } from "../support/server.ts";

const trailOf = (values: unknown): string[] => (values as { trail: string[] }).trail;

describeDatabases("copies, batches and bulk cancel", (databases) => {
  const gate = createGate();
  const start = () => startServer(databases, registryOf({ five, gate: gate.graph }));
  let started: ReturnType<typeof start> | undefined;
  const server = () => (started ??= start());

  it("copies a thread with its history, and each goes its own way", async () => {
    const { client } = await server();
    const thread = await client.threads.create({ metadata: { topic: "bees" } });
    await client.runs.wait(thread.thread_id, "five", { input: { input: "x" } });
    const copy = await client.threads.copy(thread.thread_id);
    expect(copy.thread_id).not.toBe(thread.thread_id);
    expect(copy).toMatchObject({ status: "idle", metadata: { topic: "bees" } });
    const history = await client.threads.getHistory(copy.thread_id, { limit: 50 });
    expect(history).toHaveLength(7);
    await client.runs.wait(copy.thread_id, "five", { input: { input: "y" } });
    expect(trailOf((await client.threads.getState(copy.thread_id)).values)).toHaveLength(10);
    expect(trailOf((await client.threads.getState(thread.thread_id)).values)).toHaveLength(5);
    await client.threads.delete(thread.thread_id);
    expect(trailOf((await client.threads.getState(copy.thread_id)).values)).toHaveLength(10);
    await expect(client.threads.copy(thread.thread_id)).rejects.toThrow("404");
  });

  it("starts a batch in order, as the SDK sends it; one with a mistake starts nothing", async () => {
    const { client, url } = await server();
    const runs = await client.runs.createBatch([
      { assistantId: "five", input: { input: "a" }, metadata: { n: 1 } },
      { assistantId: "five", input: { input: "b" }, metadata: { n: 2 }, streamMode: "updates" },
    ] as never);
    expect(runs.map((run) => run.metadata?.["n"])).toEqual([1, 2]);
    for (const run of runs) {
      const events = await (await fetch(`${url}/runs/${run.run_id}/stream`)).text();
      expect(events).toContain("five");
    }
    await expect(
      client.runs.createBatch([{ assistantId: "five" }, { assistantId: "absent" }] as never),
    ).rejects.toThrow("404");
    await expect(
      client.runs.createBatch([{ assistantId: "five", surprise: 1 }] as never),
    ).rejects.toThrow("surprise");
  });

  it("stops the runs of a thread that are named, and all with a status", async () => {
    const { client } = await server();
    const { thread_id: threadId } = await client.threads.create();
    const runs = [];
    for (let index = 0; index < 3; index += 1) {
      runs.push(
        await client.runs.create(threadId, "gate", {
          input: { input: "x" },
          multitaskStrategy: "enqueue",
        }),
      );
    }
    await gate.entered;
    const statuses = async () =>
      (await client.runs.list(threadId)).map((run) => run.status).toReversed();
    await client.runs.cancelMany({ threadId, runIds: [runs[1]!.run_id] });
    expect(await statuses()).toEqual(["running", "interrupted", "pending"]);
    await client.runs.cancelMany({ threadId, status: "all" });
    await expect
      .poll(statuses, { timeout: 10_000 })
      .toEqual(["interrupted", "interrupted", "interrupted"]);
    expect((await client.threads.get(threadId)).status).toBe("idle");
    const unknown = "00000000-0000-4000-8000-000000000000";
    await expect(client.runs.cancelMany({ threadId, runIds: [unknown] })).rejects.toThrow("404");
  });
});
