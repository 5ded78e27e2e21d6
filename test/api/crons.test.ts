import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Client, Cron, CronCreateResponse } from "@langchain/langgraph-sdk";
import { beforeAll, describe, expect, it } from "vitest";
import { systemAssistantId } from "../../src/engine/new-run.ts";
import { as, configureAuth, OWNER_FILTER } from "../support/auth.ts";
import { describeDatabases } from "../support/databases.ts";
import { createFeed, five, inspect, registryOf } from "../support/graphs.ts";
import {
  createClient,
  eventually,
  request,
  startServer,
  type TestServer,
} from "../support/server.ts";

const AUTH = `
import { createRequire } from "node:module";
const { Auth } = createRequire(${JSON.stringify(import.meta.filename)})("@langchain/langgraph-sdk/auth");
export const auth = new Auth().authenticate(async (request) => ({
  identity: request.headers.get("authorization"), permissions: ["read"], team: { id: 7 },
}));
`;

/** A schedule that is not due while a test runs. */
const NEW_YEAR = "0 0 1 1 *";
const FOREIGN_ID = "00000000-0000-4000-8000-000000000000";

describeDatabases("crons", (databases) => {
  let server: TestServer;
  let client: Client;
  const feed = createFeed();
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five, inspect, feed: feed.graph }));
    client = server.client;
  });

  describe("as a resource", () => {
    it("are made without a thread and on one, and read back as they were made", async () => {
      const cron = await client.crons.create("five", {
        schedule: "0 9 * * 1",
        timezone: "Europe/Berlin",
        input: { input: "x" },
        metadata: { team: "a" },
        config: { configurable: { flavour: "mint" } },
        context: { tone: "kind" },
        interruptBefore: ["two"],
        onRunCompleted: "keep",
        endTime: "2100-01-01T00:00:00Z",
        streamMode: ["values", "updates"],
        durability: "exit",
      });
      expect(cron).toEqual({
        cron_id: expect.any(String) as string,
        assistant_id: systemAssistantId("five"),
        thread_id: null,
        schedule: "0 9 * * 1",
        timezone: "Europe/Berlin",
        enabled: true,
        end_time: "2100-01-01T00:00:00.000Z",
        on_run_completed: "keep",
        payload: {
          input: { input: "x" },
          config: { configurable: { flavour: "mint" } },
          context: { tone: "kind" },
          interrupt_before: ["two"],
          stream_mode: ["values", "updates"],
          durability: "exit",
        },
        metadata: { team: "a" },
        user_id: null,
        next_run_date: expect.stringMatching(/T0[78]:00:00.000Z$/) as string,
        created_at: expect.any(String) as string,
        updated_at: expect.any(String) as string,
      });
      const { json } = await request(server.url, `/runs/crons/${cron.cron_id}`);
      expect(json).toEqual(cron);

      const { thread_id } = await client.threads.create();
      const onThread = await client.crons.createForThread(thread_id, "five", {
        schedule: NEW_YEAR,
        input: null,
      });
      expect(onThread).toMatchObject({
        thread_id,
        timezone: null,
        end_time: null,
        on_run_completed: null,
        next_run_date: expect.stringMatching(/-01-01T00:00:00.000Z$/) as string,
      });
    });

    it("change in what a patch names, and keep the rest", async () => {
      const cron = (await client.crons.create("five", {
        schedule: NEW_YEAR,
        input: { input: "x" },
        context: { a: 1 },
        metadata: { one: 1 },
        endTime: "2100-01-01",
      })) as unknown as Cron;
      const change = (patch: object): Promise<Cron> => client.crons.update(cron.cron_id, patch);
      expect(await change({ metadata: { two: 2 }, input: { input: "y" } })).toMatchObject({
        metadata: { one: 1, two: 2 },
        payload: { input: { input: "y" }, context: { a: 1 } },
        schedule: NEW_YEAR,
        next_run_date: cron.next_run_date,
        end_time: "2100-01-01T00:00:00.000Z",
      });
      expect(await change({ endTime: null })).toMatchObject({ end_time: null });
      expect(await change({ enabled: false })).toMatchObject({
        enabled: false,
        next_run_date: null,
      });
      expect(await change({ schedule: "0 12 1 1 *", timezone: "Asia/Tokyo" })).toMatchObject({
        next_run_date: null,
      });
      expect(await change({ enabled: true })).toMatchObject({
        next_run_date: expect.stringMatching(/-01-01T03:00:00.000Z$/) as string,
      });
      expect(await change({ endTime: "2020-01-01T00:00:00+02:00" })).toMatchObject({
        end_time: "2019-12-31T22:00:00.000Z",
        next_run_date: null,
      });
    });

    it("are deleted, also with their thread and their assistant", async () => {
      const { thread_id } = await client.threads.create();
      const assistant = await client.assistants.create({ graphId: "five" });
      const crons = [
        await client.crons.create("five", { schedule: NEW_YEAR }),
        await client.crons.createForThread(thread_id, "five", { schedule: NEW_YEAR }),
        await client.crons.create(assistant.assistant_id, { schedule: NEW_YEAR }),
      ];
      await client.crons.delete(crons[0]!.cron_id);
      await client.threads.delete(thread_id);
      await client.assistants.delete(assistant.assistant_id);
      for (const { cron_id } of crons) {
        expect(await request(server.url, `/runs/crons/${cron_id}`)).toMatchObject({ status: 404 });
        await expect(client.crons.delete(cron_id)).rejects.toMatchObject({ status: 404 });
        await expect(client.crons.update(cron_id, {})).rejects.toMatchObject({ status: 404 });
      }
    });

    it("are searched and counted", async () => {
      const { thread_id } = await client.threads.create();
      const made: CronCreateResponse[] = [];
      for (const index of [0, 1, 2]) {
        made.push(
          await client.crons.createForThread(thread_id, "inspect", {
            schedule: `0 0 ${3 - index} 1 *`,
            metadata: { batch: thread_id, index },
            enabled: index !== 1,
          }),
        );
      }
      const ids = made.map(({ cron_id }) => cron_id);
      const find = async (query: object): Promise<string[]> =>
        (await client.crons.search({ threadId: thread_id, ...query })).map(
          ({ cron_id }) => cron_id,
        );
      expect(await find({})).toEqual(ids.toReversed());
      expect(await find({ sortBy: "created_at", sortOrder: "asc", limit: 2 })).toEqual(
        ids.slice(0, 2),
      );
      expect(await find({ enabled: true, sortBy: "next_run_date", sortOrder: "asc" })).toEqual([
        ids[2],
        ids[0],
      ]);
      expect(await find({ metadata: { index: 1 } })).toEqual([ids[1]]);
      expect(await find({ assistantId: "inspect", offset: 2 })).toEqual([ids[0]]);
      expect(await find({ assistantId: systemAssistantId("five") })).toEqual([]);
      const selected = await client.crons.search({
        threadId: thread_id,
        limit: 1,
        select: ["cron_id", "now"],
      });
      expect(selected).toEqual([{ cron_id: ids[2], now: expect.any(String) as string }]);
      expect(await client.crons.count({ threadId: thread_id })).toBe(3);
      expect(await client.crons.count({ metadata: { batch: thread_id, index: 2 } })).toBe(1);
      const page = await request(server.url, "/runs/crons/search", {
        json: { thread_id, limit: 2 },
      });
      expect(page.headers.get("x-pagination-total")).toBe("3");
      expect(page.headers.get("x-pagination-next")).toBe("2");
      expect(page.json).toHaveLength(2);
    });

    it.each([
      [{ schedule: "*/5 * * * * *" }, "schedule", /seconds are not supported/],
      [{ schedule: "nonsense" }, "schedule", /five fields/],
      [{ schedule: "0 0 30 2 *" }, "schedule", /never comes/],
      [{ timezone: "Mars/Phobos" }, "timezone", /not a time zone/],
      [{ end_time: "tomorrow" }, "end_time", /ISO 8601/],
      [{ end_time: "2020-01-01" }, "end_time", /before the first time/],
      [{ enabled: "yes" }, "enabled", /boolean/],
      [{ on_run_completed: "explode" }, "on_run_completed", /delete/],
      [{ interrupt_before: ["one"] }, "interrupt_before", /needs a thread/],
      [{ webhook: "http://127.0.0.1:1/" }, "webhook", /webhooks\.allow_private_networks/],
      [{ after_seconds: 4 }, "after_seconds", /Unsupported/],
      [{ assistant_id: undefined }, "assistant_id", /string/],
    ])("are refused with the name of the field: %j", async (field, path, message) => {
      const answer = await request(server.url, "/runs/crons", {
        json: { assistant_id: "five", schedule: NEW_YEAR, ...field },
      });
      expect(answer).toMatchObject({
        status: 422,
        json: { errors: [{ path, message: expect.stringMatching(message) as string }] },
      });
    });

    it("are refused where their assistant or thread does not exist, or a patch does not fit", async () => {
      const payload = { schedule: NEW_YEAR };
      for (const refused of [
        () => client.crons.create(FOREIGN_ID, payload),
        () => client.crons.create("unknown", payload),
        () => client.crons.createForThread(FOREIGN_ID, "five", payload),
      ]) {
        await expect(refused()).rejects.toMatchObject({ status: 404 });
      }
      const { thread_id } = await client.threads.create();
      const onThread = await client.crons.createForThread(thread_id, "five", payload);
      for (const patch of [
        { schedule: "x" },
        { timezone: "" },
        { onRunCompleted: "keep" },
      ] as const) {
        await expect(client.crons.update(onThread.cron_id, patch)).rejects.toMatchObject({
          status: 422,
        });
      }
    });
  });

  it("belong to their owners, with the threads they are on", async () => {
    const scoped = await startServer(databases, registryOf({ five }), {
      config: await configureAuth(`${OWNER_FILTER}
auth.on(["crons:create", "crons:update"], ({ value, user }) => {
  value.metadata = { ...value.metadata, owner: user.identity };
  value.payload.context = { tenant: user.identity };
  if (value.payload.input === "forbidden") return false;
  return { owner: user.identity };
});`),
    });
    const ada = createClient(scoped.url, as("ada"));
    const eve = createClient(scoped.url, as("eve"));
    const { thread_id } = await ada.threads.create();
    const payload = { schedule: NEW_YEAR };
    const cron = await ada.crons.createForThread(thread_id, "five", payload);
    expect(cron).toMatchObject({
      metadata: { owner: "ada" },
      payload: { context: { tenant: "ada" } },
      user_id: "ada",
    });
    await expect(
      ada.crons.create("five", { ...payload, input: "forbidden" as never }),
    ).rejects.toMatchObject({ status: 403 });
    await expect(eve.crons.createForThread(thread_id, "five", payload)).rejects.toMatchObject({
      status: 404,
    });
    expect(await ada.crons.count()).toBe(1);
    expect(await eve.crons.count()).toBe(0);
    expect(await eve.crons.search()).toEqual([]);
    const path = `/runs/crons/${cron.cron_id}`;
    expect((await request(scoped.url, path, { headers: as("ada") })).status).toBe(200);
    expect((await request(scoped.url, path, { headers: as("eve") })).status).toBe(404);
    await expect(eve.crons.update(cron.cron_id, {})).rejects.toMatchObject({ status: 404 });
    await expect(eve.crons.delete(cron.cron_id)).rejects.toMatchObject({ status: 404 });
    const metadata = { owner: "eve", more: 1 };
    expect(await ada.crons.update(cron.cron_id, { metadata })).toMatchObject({
      metadata: { owner: "ada", more: 1 },
      payload: { context: { tenant: "ada" } },
    });
    await ada.crons.delete(cron.cron_id);
  });

  it("fire once for the times that went by while no server ran, with their maker's identity", async () => {
    const { dataDir } = await databases.configure();
    const file = join(dataDir, "auth.ts");
    await writeFile(file, AUTH);
    const first = await startServer(databases, registryOf({ inspect, five, feed: feed.graph }), {
      config: { auth: { module: { path: file, exportName: "auth" }, disable_studio_auth: true } },
    });
    const headers = { authorization: "ada", "x-secret": "s" };
    const ada = createClient(first.url, headers);
    const { thread_id: threadId } = await ada.threads.create();
    const { thread_id: busyId } = await ada.threads.create();
    // Not due once more while the test runs, at whatever time that is.
    const yearly = { schedule: NEW_YEAR, metadata: { tag: "t" }, input: { input: "cron" } };
    const onThread = await ada.crons.createForThread(threadId, "inspect", yearly);
    const kept = await ada.crons.create("inspect", { ...yearly, onRunCompleted: "keep" });
    const gone = await ada.crons.create("inspect", yearly);
    const disabled = await ada.crons.create("inspect", { ...yearly, enabled: false });
    const waiting = await ada.crons.createForThread(busyId, "five", yearly);
    const { thread_id: lastId } = await ada.threads.create();
    const last = await ada.crons.createForThread(lastId, "five", {
      ...yearly,
      endTime: "2099-01-01",
    });
    await first.inspect((database) =>
      database.query(
        `UPDATE crons SET next_run_date = now() - interval '5 years', end_time =
           CASE WHEN cron_id = $1 THEN now() - interval '1 minute' END WHERE enabled`,
        [last.cron_id],
      ),
    );

    const second = await first.restart();
    const after = createClient(second.url, headers);
    const blocker = await after.runs.create(busyId, "feed", {
      input: { input: busyId },
      multitaskStrategy: "enqueue",
    });
    const crons = await eventually(async () => {
      const found = await after.crons.search({ enabled: true });
      expect(found).toHaveLength(5);
      for (const { cron_id, next_run_date } of found) {
        if (cron_id === last.cron_id) expect(next_run_date).toBeNull();
        else expect(new Date(next_run_date!).getTime()).toBeGreaterThan(Date.now());
      }
      return found;
    });
    expect(crons.map(({ user_id }) => user_id)).toEqual(Array(5).fill("ada"));
    await eventually(async () => {
      expect(await after.runs.list(threadId)).toMatchObject([
        { status: "success", metadata: { cron_id: onThread.cron_id, tag: "t" } },
      ]);
    });
    const { values } = await after.threads.get(threadId);
    expect(values).toMatchObject({
      configurable: {
        user_id: "ada",
        langgraph_auth_user: { identity: "ada", team: { id: 7 } },
        langgraph_auth_permissions: ["read"],
      },
    });
    expect(values).not.toHaveProperty("configurable.x-secret");

    const [keptThread] = await eventually(async () => {
      const threads = await after.threads.search({ metadata: { cron_id: kept.cron_id } });
      expect(threads.map(({ status }) => status)).toEqual(["idle"]);
      return threads;
    });
    expect(await after.runs.list(keptThread!.thread_id)).toMatchObject([{ status: "success" }]);

    feed.end(busyId);
    await eventually(async () => {
      const runs = await after.runs.list(busyId);
      expect(runs.map(({ status }) => status)).toEqual(["success", "success"]);
      expect(runs.map(({ run_id }) => run_id)).toContain(blocker.run_id);
    });

    const rows = await second.inspect((database) =>
      database.query<{ cron_id: string; trigger: string; user_id: string; temporary: boolean }>(
        `SELECT metadata ->> 'cron_id' AS cron_id, origin ->> 'trigger' AS trigger, user_id, temporary
         FROM runs WHERE metadata ? 'cron_id'`,
      ),
    );
    const fired = [onThread, kept, gone, waiting, last].map(({ cron_id }) => cron_id);
    expect(rows.rows.map(({ cron_id }) => cron_id).toSorted()).toEqual(fired.toSorted());
    expect(rows.rows).not.toContainEqual(expect.objectContaining({ cron_id: disabled.cron_id }));
    for (const row of rows.rows) {
      expect(row).toMatchObject({
        trigger: "cron",
        user_id: "ada",
        temporary: row.cron_id === gone.cron_id,
      });
    }
  });
});
