import type { Client } from "@langchain/langgraph-sdk";
import { beforeAll, expect, it } from "vitest";
import type { WebhookDelivery } from "../../src/protocol/webhooks.ts";
import { describeDatabases } from "../support/databases.ts";
import { approval, createFeed, failing, five, registryOf } from "../support/graphs.ts";
import { eventually, request, startServer, type TestServer } from "../support/server.ts";
import {
  isSigned,
  openWebhookReceiver,
  type ReceivedWebhook,
  type WebhookReceiver,
} from "../support/webhook-receiver.ts";

const SECRET = `whsec_${Buffer.from("a secret of the receiver and us").toString("base64")}`;

describeDatabases("webhooks", (databases) => {
  let server: TestServer;
  let client: Client;
  let receiver: WebhookReceiver;
  const feed = createFeed();
  beforeAll(async () => {
    receiver = await openWebhookReceiver();
    databases.defer(() => receiver.close());
    server = await startServer(
      databases,
      registryOf({ five, failing, approval, feed: feed.graph }),
      {
        config: {
          webhooks: {
            enabled: true,
            headers: { "X-Shared": "something", "webhook-id": "ours wins" },
            secret: SECRET,
            url: {},
            allowPrivateNetworks: true,
          },
        },
      },
    );
    client = server.client;
  });

  const arrived = (path: string): Promise<ReceivedWebhook> =>
    eventually(() => {
      const found = receiver.received.find((webhook) => webhook.path === path);
      if (!found) throw new Error(`nothing at ${path}`);
      return found;
    });
  const input = { input: "x" };

  it("tell the receiver how a run ended, signed and with the configured headers", async () => {
    const { thread_id } = await client.threads.create();
    const run = await client.runs.create(thread_id, "five", {
      input,
      metadata: { mine: 1 },
      webhook: `${receiver.url}/done?token=t`,
    });
    const webhook = await arrived("/done?token=t");
    const shown = await client.runs.get(thread_id, run.run_id);
    expect(webhook.json).toEqual({
      ...shown,
      status: "success",
      run_started_at: expect.any(String) as string,
      run_ended_at: shown.updated_at,
      webhook_sent_at: expect.any(String) as string,
      values: { input: "x", trail: ["one", "two", "three", "four", "five"] },
    });
    expect(webhook.headers).toMatchObject({
      "content-type": "application/json",
      "x-shared": "something",
      "user-agent": expect.stringMatching(/^aegra\//) as string,
      "webhook-id": expect.stringMatching(/^[0-9a-f-]{36}$/) as string,
    });
    const age = Date.now() / 1_000 - Number(webhook.headers["webhook-timestamp"]);
    expect(Math.abs(age)).toBeLessThan(60);
    expect(isSigned(webhook, SECRET)).toBe(true);
    expect(isSigned({ ...webhook, text: webhook.text.replace("success", "error") }, SECRET)).toBe(
      false,
    );

    const deliveries = await eventually(async () => {
      const { json } = await request(
        server.url,
        `/threads/${thread_id}/runs/${run.run_id}/webhooks`,
      );
      expect(json).toMatchObject([{ status: "delivered" }]);
      return json as WebhookDelivery[];
    });
    expect(deliveries).toEqual([
      {
        webhook_id: webhook.headers["webhook-id"],
        run_id: run.run_id,
        thread_id,
        url: `${receiver.url}/done?token=t`,
        status: "delivered",
        attempts: [
          {
            at: webhook.json["webhook_sent_at"],
            status_code: 204,
            error: null,
            duration_ms: expect.any(Number) as number,
          },
        ],
        next_attempt_at: null,
        created_at: expect.any(String) as string,
        ended_at: expect.any(String) as string,
      },
    ]);
    const metrics = await request(server.url, "/metrics");
    expect(metrics.text).toMatch(/^aegra_webhooks_delivered_total [1-9]/m);
  });

  it("are a field of every way to start a run", async () => {
    const { thread_id } = await client.threads.create();
    const to = (path: string) => ({ input, webhook: receiver.url + path });
    await client.runs.wait(thread_id, "five", to("/wait"));
    for await (const _part of client.runs.stream(thread_id, "five", to("/stream")));
    await client.runs.wait(null, "five", to("/stateless"));
    await request(server.url, "/runs", {
      json: { assistant_id: "five", ...to("/kept"), on_completion: "keep" },
    });
    await client.runs.createBatch([
      { assistantId: "five", ...to("/batch/1") },
      { assistantId: "five", ...to("/batch/2") },
    ]);
    for (const path of ["/wait", "/stream", "/stateless", "/kept", "/batch/1", "/batch/2"]) {
      expect((await arrived(path)).json).toMatchObject({
        status: "success",
        values: { input: "x" },
      });
    }
  });

  it("tell of failures, of questions and of runs that were stopped", async () => {
    const threads = await Promise.all([1, 2, 3].map(() => client.threads.create()));
    const [failed, asked, stopped] = threads.map(({ thread_id }) => thread_id) as [
      string,
      string,
      string,
    ];
    await client.runs.create(failed, "failing", { input, webhook: `${receiver.url}/failed` });
    expect((await arrived("/failed")).json).toMatchObject({
      status: "error",
      error: "The second node is broken",
      error_type: "TypeError",
      values: { trail: ["fine"] },
    });
    await client.runs.create(asked, "approval", { input, webhook: `${receiver.url}/asked` });
    expect((await arrived("/asked")).json).toMatchObject({
      status: "success",
      values: { __interrupt__: [{ value: { question: "Go on?" } }], trail: ["prepare"] },
    });
    const running = await client.runs.create(stopped, "feed", {
      input: { input: stopped },
      webhook: `${receiver.url}/stopped`,
    });
    await feed.entered(stopped);
    const waiting = await client.runs.create(stopped, "five", {
      input,
      multitaskStrategy: "enqueue",
      webhook: `${receiver.url}/waiting`,
    });
    await client.runs.cancel(stopped, waiting.run_id, true);
    expect((await arrived("/waiting")).json).toMatchObject({
      run_id: waiting.run_id,
      status: "interrupted",
      run_started_at: null,
      values: null,
    });
    await client.runs.cancel(stopped, running.run_id, true, "rollback");
    expect((await arrived("/stopped")).json).toMatchObject({
      run_id: running.run_id,
      status: "interrupted",
    });
    await expect(client.runs.get(stopped, running.run_id)).rejects.toMatchObject({ status: 404 });
  });

  it("go to a path on this server, without leaving it", async () => {
    const { thread_id } = await client.threads.create();
    const run = await client.runs.create(thread_id, "five", {
      input,
      webhook: "/runs/crons/count",
    });
    const path = `/threads/${thread_id}/runs/${run.run_id}/webhooks`;
    // That route takes no runs, and says so.
    await eventually(async () => {
      expect((await request(server.url, path)).json).toMatchObject([
        { status: "waiting", attempts: [{ status_code: 422, error: "answered 422" }] },
      ]);
    });
  });

  it("do not keep a run from ending when nobody is there", async () => {
    const { thread_id } = await client.threads.create();
    const webhook = "http://127.0.0.1:9/nobody";
    const run = await client.runs.create(thread_id, "five", { input, webhook });
    expect(await client.runs.join(thread_id, run.run_id)).toMatchObject({ input: "x" });
    const path = `/threads/${thread_id}/runs/${run.run_id}/webhooks`;
    await eventually(async () => {
      expect((await request(server.url, path)).json).toMatchObject([
        {
          status: "waiting",
          attempts: [{ status_code: null, error: expect.stringMatching(/ECONNREFUSED/) as string }],
        },
      ]);
    });
    // Left out where the database takes its time.
    await eventually(async () => {
      const { text } = await request(server.url, "/metrics");
      expect(text).toMatch(/^aegra_webhooks_waiting [1-9]/m);
    });
  });

  it("are refused with their name where they are no address, also on crons", async () => {
    const { thread_id } = await client.threads.create();
    const bad = { assistant_id: "five", webhook: "ftp://example.com" };
    for (const [path, json] of [
      [`/threads/${thread_id}/runs`, bad],
      ["/runs/wait", bad],
      ["/runs/stream", bad],
      ["/runs/batch", [bad]],
      ["/runs/crons", { ...bad, schedule: "0 0 1 1 *" }],
    ] as const) {
      expect(await request(server.url, path, { json })).toMatchObject({
        status: 422,
        json: { code: "invalid_request", detail: expect.stringMatching(/^webhook: /) as string },
      });
    }
    const cron = await client.crons.create("five", { schedule: "0 0 1 1 *" });
    await expect(
      client.crons.update(cron.cron_id, { webhook: "ftp://example.com" }),
    ).rejects.toMatchObject({ status: 422 });
    expect(await client.crons.update(cron.cron_id, { webhook: receiver.url })).toMatchObject({
      payload: { webhook: receiver.url },
    });
  });

  it("are refused where they are switched off", async () => {
    const { webhooks } = server.config;
    const off = await startServer(databases, registryOf({ five }), {
      config: { webhooks: { ...webhooks, enabled: false } },
    });
    expect(
      await request(off.url, "/runs/wait", {
        json: { assistant_id: "five", webhook: "https://example.com" },
      }),
    ).toMatchObject({
      status: 422,
      json: {
        code: "unsupported_field",
        detail: expect.stringMatching(/^webhook: .*http\.disable_webhooks/) as string,
      },
    });
  });
});
