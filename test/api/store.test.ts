import { randomUUID } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { openProject } from "../fixtures/project.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";
import { registryOf, single } from "../support/graphs.ts";
import { eventually, request, startServer, type TestServer } from "../support/server.ts";

/** Reads what the store has of its input, and writes beside it. */
const remember = single(async ({ input }, config) => {
  const found = await config.store?.get(["shared", input], "told");
  await config.store?.put(["shared", input], "noticed", { by: "the graph" });
  return { trail: [JSON.stringify(found?.value ?? null)] };
});

describeDatabases("store", (databases) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ remember }));
  });

  it("keeps items", async () => {
    const { store } = server.client;
    const namespace = ["keep", randomUUID()];
    expect(await store.getItem(namespace, "a")).toBeNull();
    const value = { text: "ü😀", list: [1, null, { deep: true }], "odd.key": 1 };
    await store.putItem(namespace, "a", value);
    const item = await store.getItem(namespace, "a");
    expect(item).toMatchObject({ namespace, key: "a", value });
    expect(Date.parse(item!.createdAt)).toBeGreaterThan(0);
    await store.putItem(namespace, "a", { other: 1 });
    const again = await store.getItem(namespace, "a");
    expect(again!.value).toEqual({ other: 1 });
    expect(again!.createdAt).toBe(item!.createdAt);
    expect(Date.parse(again!.updatedAt)).toBeGreaterThanOrEqual(Date.parse(item!.updatedAt));
    await store.deleteItem(namespace, "a");
    expect(await store.getItem(namespace, "a")).toBeNull();
    await store.deleteItem(namespace, "a");
  });

  it("keeps namespaces apart, whatever they are called", async () => {
    const { store } = server.client;
    const own = randomUUID();
    const namespaces = [
      [own, "a"],
      [own, "a", "b"],
      [own, "ab"],
      [own, "a%"],
      [own, "a_"],
      [own, "A"],
      [own, "ä"],
    ];
    for (const namespace of namespaces)
      await store.putItem(namespace, "key", { at: namespace.join("/") });
    for (const namespace of namespaces)
      expect((await store.getItem(namespace, "key"))?.value).toEqual({ at: namespace.join("/") });
    const under = async (prefix: string[]) =>
      (await store.searchItems(prefix)).items.map((item) => String(item.value["at"])).toSorted();
    expect(await under([own, "a"])).toEqual([`${own}/a`, `${own}/a/b`]);
    expect(await under([own, "a%"])).toEqual([`${own}/a%`]);
    expect(await under([own])).toHaveLength(namespaces.length);
    expect(await under([own, "nowhere"])).toEqual([]);
  });

  it("searches by value, a page at a time", async () => {
    const { store } = server.client;
    const namespace = ["search", randomUUID()];
    for (let index = 0; index < 5; index += 1) {
      await store.putItem(namespace, `k${index}`, {
        index,
        even: index % 2 === 0,
        nested: { name: `n${index}` },
      });
    }
    const keys = async (options: Parameters<typeof store.searchItems>[1]) =>
      (await store.searchItems(namespace, options)).items.map(({ key }) => key);
    expect((await keys({ filter: { even: true } })).toSorted()).toEqual(["k0", "k2", "k4"]);
    expect(await keys({ filter: { index: 3 } })).toEqual(["k3"]);
    expect((await keys({ filter: { index: { $gte: 3 } } })).toSorted()).toEqual(["k3", "k4"]);
    const [first, second] = [await keys({ limit: 3 }), await keys({ limit: 3, offset: 3 })];
    expect([...first, ...second].toSorted()).toEqual(["k0", "k1", "k2", "k3", "k4"]);
  });

  it("lists namespaces by their ends and depth", async () => {
    const { store } = server.client;
    const own = randomUUID();
    for (const rest of [
      ["a", "x"],
      ["a", "y"],
      ["b", "x", "deep"],
    ])
      await store.putItem([own, ...rest], "key", {});
    const list = async (options: Parameters<typeof store.listNamespaces>[0]) =>
      (await store.listNamespaces(options)).namespaces.map((found) => found.slice(1).join("/"));
    expect((await list({ prefix: [own] })).toSorted()).toEqual(["a/x", "a/y", "b/x/deep"]);
    expect((await list({ prefix: [own, "a"] })).toSorted()).toEqual(["a/x", "a/y"]);
    expect(await list({ prefix: [own], suffix: ["deep"] })).toEqual(["b/x/deep"]);
    expect((await list({ prefix: [own], maxDepth: 2 })).toSorted()).toEqual(["a", "b"]);
    expect(await list({ prefix: [own], limit: 1 })).toHaveLength(1);
  });

  it("lets items expire", async () => {
    const { store } = server.client;
    const namespace = ["ttl", randomUUID()];
    // 60 ms and 5 minutes.
    await store.putItem(namespace, "soon", {}, { ttl: 0.001 });
    await store.putItem(namespace, "later", {}, { ttl: 5 });
    await store.putItem(namespace, "never", {}, { ttl: null });
    await eventually(async () =>
      expect(await store.getItem(namespace, "soon", { refreshTtl: false })).toBeNull(),
    );
    const { items } = await store.searchItems(namespace, { refreshTtl: false });
    expect(items.map(({ key }) => key).toSorted()).toEqual(["later", "never"]);
  });

  it("is one store for the API and for graphs", async () => {
    const { client } = server;
    const input = randomUUID();
    await client.store.putItem(["shared", input], "told", { by: "the client" });
    expect(await client.runs.wait(null, "remember", { input: { input } })).toMatchObject({
      trail: ['{"by":"the client"}'],
    });
    expect((await client.store.getItem(["shared", input], "noticed"))?.value).toEqual({
      by: "the graph",
    });
  });

  it("refuses labels, keys and values that are none", async () => {
    const put = (json: object) => request(server.url, "/store/items", { method: "PUT", json });
    for (const json of [
      { namespace: ["a.b"], key: "k", value: {} },
      { namespace: ["a:b"], key: "k", value: {} },
      { namespace: ["langgraph", "a"], key: "k", value: {} },
      { namespace: [""], key: "k", value: {} },
      { namespace: [], key: "k", value: {} },
      { namespace: "a", key: "k", value: {} },
      { namespace: [1], key: "k", value: {} },
      { namespace: ["a"], key: "", value: {} },
      { namespace: ["a"], key: 5, value: {} },
      { namespace: ["a"], key: "k", value: "text" },
      { namespace: ["a"], key: "k", value: [] },
      { namespace: ["a"], key: "k" },
      { namespace: ["a"], key: "k\0", value: {} },
      { namespace: ["a"], key: "k", value: {}, nonsense: 1 },
      { namespace: ["a"], key: "k", value: {}, ttl: 0 },
      { namespace: ["a"], key: "k", value: {}, ttl: "1" },
      { namespace: ["a"], key: "k", value: {}, index: true },
      { namespace: ["a"], key: "k", value: {}, index: [] },
      // There is no index to put it into.
      { namespace: ["a"], key: "k", value: {}, index: ["text"] },
      { namespace: ["x".repeat(600)], key: "k", value: {} },
    ]) {
      const answer = await put(json);
      expect({ json, status: answer.status }).toEqual({ json, status: 422 });
    }
    for (const query of [
      "",
      "?key=k",
      "?namespace=a",
      "?namespace=a..b&key=k",
      "?namespace=&key=k",
      "?namespace=a&key=k&refresh_ttl=maybe",
    ])
      expect((await request(server.url, `/store/items${query}`)).status).toBe(422);
  });
});

describe("the store of a server with semantic search", () => {
  const databases = createTestDatabases("pglite");

  let server: TestServer;
  beforeAll(async () => {
    const project = await openProject({
      "embed.ts": `export const embeddings = (texts: string[]) =>
        texts.map((text) => [Number(text.includes("cat")), Number(text.includes("dog")), 0.1]);`,
    });
    databases.defer(() => project.close());
    const store = {
      index: { dims: 3, embed: "./embed.ts:embeddings", fields: ["text"] },
      ttl: { default_ttl: 60 },
    };
    server = await startServer(databases, registryOf({ remember }), {
      config: { cwd: project.dir, store },
    });
  });

  it("finds items by meaning, with a score, and lets those that are read live on", async () => {
    const { client } = server;
    await client.store.putItem(["pets"], "tom", { text: "a cat", nick: "a dog" });
    await client.store.putItem(["pets"], "rex", { text: "a dog" });
    await client.store.putItem(["pets"], "mute", { text: "a cat" }, { index: false });
    await client.store.putItem(["pets"], "nick", { text: "", nick: "a cat" }, { index: ["nick"] });
    const { items } = await client.store.searchItems(["pets"], { query: "which cat?" });
    expect(items.map(({ key, score }) => [key, Math.round(score! * 100)])).toEqual([
      ["nick", 100],
      ["tom", 100],
      ["rex", 1],
    ]);
    expect((await client.store.searchItems(["pets"])).items).toHaveLength(4);

    await client.store.putItem(["read"], "read", {}, { ttl: 5 });
    await client.store.putItem(["read"], "looked at", {}, { ttl: 5 });
    await client.store.putItem(["found"], "found", {}, { ttl: 5 });
    await client.store.putItem(["seen"], "seen", {}, { ttl: 5 });
    await client.store.putItem(["seen"], "default", {});
    await client.store.getItem(["read"], "read", { refreshTtl: true });
    await client.store.getItem(["read"], "looked at", { refreshTtl: false });
    await client.store.searchItems(["found"], { refreshTtl: true });
    await client.store.searchItems(["seen"], { refreshTtl: false });
    const { rows } = await server.inspect((database) =>
      database.query<{ key: string; minutes: number; again: boolean }>(
        `SELECT key, ttl_minutes AS minutes,
           expires_at - updated_at > ttl_minutes * interval '1 minute' AS again
         FROM store WHERE ttl_minutes IS NOT NULL AND namespace_path NOT LIKE '%pets%' ORDER BY key`,
      ),
    );
    expect(rows.map(({ key, minutes, again }) => [key, minutes, again])).toEqual([
      ["default", 60, false],
      ["found", 5, true],
      ["looked at", 5, false],
      ["read", 5, true],
      ["seen", 5, false],
    ]);
  });
});
