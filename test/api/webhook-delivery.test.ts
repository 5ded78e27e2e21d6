import { randomUUID } from "node:crypto";
import { pino } from "pino";
import { afterEach, beforeAll, beforeEach, expect, it } from "vitest";
import { Webhooks, type WebhooksOptions } from "../../src/engine/webhooks.ts";
import type { WebhookDelivery } from "../../src/protocol/webhooks.ts";
import type { Database } from "../../src/storage/database.ts";
import { toJson } from "../../src/storage/json.ts";
import { createRunQueue } from "../../src/storage/run-queue.ts";
import { encodeResult } from "../../src/storage/run-result.ts";
import { createRunRepository } from "../../src/storage/runs.ts";
import { createWebhookRepository, type WebhookRepository } from "../../src/storage/webhooks.ts";
import { describeDatabases } from "../support/databases.ts";
import { eventually } from "../support/server.ts";
import {
  openWebhookReceiver,
  type ReceiverAnswer,
  type WebhookReceiver,
} from "../support/webhook-receiver.ts";

/** Enough for every receiver that answers. Those of which none does are given less. */
const TIMEOUT_MS = 60_000;
const HANG_MS = 300;

describeDatabases("delivering webhooks", (databases) => {
  let database: Database;
  let rows: WebhookRepository;
  let receiver: WebhookReceiver;
  beforeAll(async () => {
    database = await databases.open();
    rows = createWebhookRepository(database);
    receiver = await openWebhookReceiver();
    databases.defer(() => receiver.close());
  });
  beforeEach(async () => {
    await database.query("DELETE FROM webhook_deliveries");
    receiver.received.length = 0;
    receiver.answers.length = 0;
  });

  const opened: Webhooks[] = [];
  afterEach(async () => {
    for (const webhooks of opened.splice(0)) await webhooks.close();
  });
  const open = (
    config: Partial<WebhooksOptions["config"]> = {},
    timeoutMs = TIMEOUT_MS,
  ): Webhooks => {
    const webhooks = new Webhooks({
      webhooks: rows,
      config: {
        enabled: true,
        headers: {},
        secret: undefined,
        url: {},
        allowPrivateNetworks: true,
        ...config,
      },
      secret: "secret",
      show: ({ run_id, status }) => ({ run_id, status }),
      serialise: toJson,
      loopback: async () => new Response(null, { status: 204 }),
      userAgent: "test",
      timeoutMs,
      log: pino({ level: "silent" }),
    });
    webhooks.open();
    opened.push(webhooks);
    return webhooks;
  };

  /** A run that has ended, with its webhook. */
  const end = async (url: string): Promise<string> => {
    const workerId = randomUUID();
    const runId = randomUUID();
    await createRunRepository(database).create({
      run_id: runId,
      thread_id: randomUUID(),
      assistant_id: randomUUID(),
      graph_id: "five",
      metadata: {},
      kwargs: {
        config: {},
        stream_mode: [],
        subgraphs: false,
        resumable: false,
        on_disconnect: "continue",
        webhook: url,
      },
      thread_config: { configurable: {} },
      settings: {},
      multitask_strategy: "reject",
      user_id: undefined,
      temporary: true,
      origin: { trigger: "api", assistant_name: "five", assistant_version: 1 },
      afterSeconds: 0,
      filter: undefined,
      logged: "on_demand",
      claim: { workerId, leaseMs: 60_000 },
    });
    await createRunQueue(database).finish(
      { run_id: runId, worker_id: workerId, attempt: 1 },
      encodeResult({
        status: "success",
        interrupted: false,
        output: { answer: 42 },
        error: undefined,
        values: undefined,
        interrupts: {},
      }),
      { logged: false, webhook: url },
    );
    return runId;
  };
  const delivery = async (runId: string): Promise<WebhookDelivery> => (await rows.ofRun(runId))[0]!;
  const attempts = (runId: string, count: number): Promise<WebhookDelivery> =>
    eventually(async () => {
      const found = await delivery(runId);
      expect(found.attempts).toHaveLength(count);
      return found;
    });
  /** As if the time to wait had gone by. */
  const hurry = (): Promise<unknown> =>
    database.query(
      "UPDATE webhook_deliveries SET next_attempt_at = now() WHERE status = 'waiting'",
    );

  it("tries again after whatever is no success, under the same id, until it is one", async () => {
    const failures: [ReceiverAnswer, number | null, RegExp][] = [
      [{ status: 500 }, 500, /answered 500/],
      [{ status: 429, headers: { "Retry-After": "7200" } }, 429, /answered 429/],
      [{ status: 307, headers: { Location: `${receiver.url}/else` } }, 307, /not followed/],
      ["hang", null, /no answer within 0.3 seconds/],
      ["drop", null, /./],
      [{ status: 404 }, 404, /answered 404/],
    ];
    receiver.answers.push(...failures.map(([answer]) => answer));
    const runId = await end(`${receiver.url}/hook`);
    const waits: number[] = [];
    for (const [index, [answer, status, reason]] of failures.entries()) {
      // Each time another process.
      const webhooks = open({}, answer === "hang" ? HANG_MS : TIMEOUT_MS);
      const found = await attempts(runId, index + 1);
      expect(found.status).toBe("waiting");
      expect(found.attempts[index]).toMatchObject({
        status_code: status,
        error: expect.stringMatching(reason) as string,
      });
      const { at } = found.attempts[index]!;
      waits.push(Math.round((found.next_attempt_at!.getTime() - Date.parse(at)) / 1_000));
      expect(
        (await database.query("SELECT 1 FROM webhook_deliveries WHERE run IS NULL")).rows,
      ).toEqual([]);
      await webhooks.close();
      await hurry();
    }
    const webhooks = open();
    const done = await attempts(runId, failures.length + 1);
    expect(done).toMatchObject({ status: "delivered", next_attempt_at: null });
    expect(
      (await database.query("SELECT 1 FROM webhook_deliveries WHERE run IS NULL")).rows,
    ).toHaveLength(1);
    expect(receiver.received.every(({ path }) => path === "/hook")).toBe(true);
    expect(new Set(receiver.received.map(({ headers }) => headers["webhook-id"])).size).toBe(1);
    // Longer each time, give or take a fifth, and as long as the receiver asks.
    const expected = [5, 7_200, 120, 600, 3_600, 10_800];
    for (const [index, wait] of waits.entries()) {
      expect(wait).toBeGreaterThan(expected[index]! * 0.75 - 5);
      expect(wait).toBeLessThan(expected[index]! * 1.25 + 1);
    }
    expect(webhooks.done()).toEqual({ delivered: 1, failed: 0 });
    expect(await rows.counts()).toEqual({ waiting: 0, oldest_seconds: 0 });
  });

  it("gives up after eight attempts, and at once where the receiver is gone for good", async () => {
    receiver.answers.push(...Array.from({ length: 8 }, () => ({ status: 503 })), { status: 410 });
    const webhooks = open();
    const runId = await end(receiver.url);
    for (let count = 1; count <= 8; count += 1) {
      await attempts(runId, count);
      await hurry();
      webhooks.poke();
    }
    expect(await delivery(runId)).toMatchObject({ status: "failed", next_attempt_at: null });
    const gone = await end(receiver.url);
    webhooks.poke();
    expect(await attempts(gone, 1)).toMatchObject({ status: "failed" });
    expect(receiver.received).toHaveLength(9);
    expect(webhooks.done()).toEqual({ delivered: 0, failed: 2 });
  });

  it("makes no connection into a private network, whatever was accepted before", async () => {
    const webhooks = open({ allowPrivateNetworks: false });
    for (const url of [receiver.url, receiver.url.replace("127.0.0.1", "localhost")]) {
      const runId = await end(url);
      webhooks.poke();
      const found = await attempts(runId, 1);
      expect(found).toMatchObject({
        status: "failed",
        attempts: [
          {
            status_code: null,
            error: expect.stringContaining("private network") as string,
          },
        ],
      });
    }
    expect(receiver.received).toEqual([]);
  });

  it("sends each one once, however many processes look", async () => {
    const runs = await Promise.all(
      Array.from({ length: 40 }, (_, i) => end(`${receiver.url}/${i}`)),
    );
    [open(), open(), open()].forEach((webhooks) => webhooks.poke());
    for (const run of runs) await attempts(run, 1);
    expect(receiver.received.map(({ path }) => path).toSorted()).toEqual(
      Array.from({ length: 40 }, (_, i) => `/${i}`).toSorted(),
    );
  });

  it("is not held up by receivers that hang, and gives back what it cannot finish", async () => {
    receiver.answers.push(...Array.from({ length: 10 }, () => "hang" as const));
    // Long enough for the one that is not held up, which is told of while they hang.
    const webhooks = open({}, 8_000);
    const hanging = await Promise.all(
      Array.from({ length: 10 }, () => end(`${receiver.url}/hang`)),
    );
    webhooks.poke();
    await eventually(() => expect(receiver.received).toHaveLength(10));
    const fine = await end(`${receiver.url}/fine`);
    webhooks.poke();
    expect(await attempts(fine, 1)).toMatchObject({ status: "delivered" });
    await Promise.all(hanging.map((run) => attempts(run, 1)));
  });

  it("is left to others by a process that dies with it", async () => {
    const runId = await end(`${receiver.url}/again`);
    const [taken] = await rows.claim(10, 60_000);
    expect(taken).toMatchObject({ attempts: 0, url: `${receiver.url}/again` });
    await hurry();
    open();
    expect(await attempts(runId, 1)).toMatchObject({ status: "delivered" });
    // The one that was taken for dead comes back, and changes nothing.
    const late = { at: "", status_code: 500, error: "late", duration_ms: 1 };
    expect(await rows.record(taken!, late, { status: "failed" })).toBe(false);
    expect(await delivery(runId)).toMatchObject({ status: "delivered" });
  });

  it("forgets old ones", async () => {
    const runId = await end(receiver.url);
    open();
    await attempts(runId, 1);
    expect(await rows.sweep(60_000, 10)).toBe(0);
    await database.query("UPDATE webhook_deliveries SET ended_at = now() - interval '2 minutes'");
    expect(await rows.sweep(60_000, 10)).toBe(1);
  });
});
