import { AsyncBatchedStore } from "@langchain/langgraph-checkpoint";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Database } from "../../src/storage/database.ts";
import { openStore } from "../../src/storage/store.ts";
import type { DatabaseStore } from "../../src/storage/store.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";

describeDatabases("store", (databases) => {
  let database: Database;
  let store: DatabaseStore;
  beforeAll(async () => {
    database = await databases.open();
    store = await openStore(database);
  });
  beforeEach(async () => {
    await database.query("TRUNCATE store");
  });

  const keysOf = async (prefix: string[], options = {}): Promise<string[]> =>
    (await store.search(prefix, options)).map(({ key }) => key).toSorted();

  it("puts, gets, replaces and deletes an item", async () => {
    await store.put(["users", "ada"], "profile", { name: "Ada", tags: ["a"], nested: { a: null } });
    const item = await store.get(["users", "ada"], "profile");
    expect(item).toEqual({
      namespace: ["users", "ada"],
      key: "profile",
      value: { name: "Ada", tags: ["a"], nested: { a: null } },
      createdAt: expect.any(Date),
      updatedAt: expect.any(Date),
    });
    await store.put(["users", "ada"], "profile", { name: "Ada L." });
    const replaced = await store.get(["users", "ada"], "profile");
    expect(replaced?.value).toEqual({ name: "Ada L." });
    expect(replaced?.createdAt).toEqual(item?.createdAt);
    await store.delete(["users", "ada"], "profile");
    expect(await store.get(["users", "ada"], "profile")).toBeNull();
  });

  it("takes any character in a label that LangGraph allows, and keeps such namespaces apart", async () => {
    const labels = ["user_1", "userX1", "100%", "a/b", "a~2fb", "back\\slash", "ü 😀"];
    for (const label of labels) await store.put([label], label, { label });
    for (const label of labels) expect(await keysOf([label])).toEqual([label]);
    expect(await store.listNamespaces()).toEqual(
      expect.arrayContaining(labels.map((label) => [label])),
    );
  });

  it("searches a namespace and what is below it, but not one whose name only begins the same", async () => {
    await store.put(["user1"], "own", { n: 1 });
    await store.put(["user1", "deep"], "deep", { n: 2 });
    await store.put(["user10"], "other", { n: 3 });
    expect(await keysOf(["user1"])).toEqual(["deep", "own"]);
    expect(await keysOf([])).toEqual(["deep", "other", "own"]);
    expect(await keysOf([], { limit: 2 })).toHaveLength(2);
    expect(await keysOf([], { limit: 2, offset: 2 })).toHaveLength(1);
  });

  it("filters by value, object and operator", async () => {
    await store.put(["docs"], "one", {
      kind: "report",
      size: 1,
      done: true,
      by: { id: 1, name: "a" },
    });
    await store.put(["docs"], "two", { kind: "note", size: 20, done: false });
    expect(await keysOf(["docs"], { filter: { kind: "report" } })).toEqual(["one"]);
    expect(await keysOf(["docs"], { filter: { done: false } })).toEqual(["two"]);
    expect(await keysOf(["docs"], { filter: { by: { id: 1 } } })).toEqual(["one"]);
    expect(await keysOf(["docs"], { filter: { size: { $gt: 3 } } })).toEqual(["two"]);
    expect(
      await keysOf(["docs"], { filter: { kind: { $in: ["note", "x"] }, size: { $lte: 20 } } }),
    ).toEqual(["two"]);
  });

  it("refuses filters that PostgresStore would ignore or fail on", async () => {
    await store.put(["docs"], "one", { kind: "report" });
    const search = (filter: Record<string, unknown>) => store.search(["docs"], { filter });
    for (const filter of [
      { kind: { $like: "r" } },
      { kind: { $gt: "a" } },
      { kind: null },
      { kind: ["a"] },
      { kind: { $gt: 1 } },
    ]) {
      await expect(search(filter)).rejects.toMatchObject({ code: "invalid_request" });
    }
  });

  it("refuses what PostgreSQL cannot hold with a clear error", async () => {
    const put = (key: string, value: Record<string, unknown>) => store.put(["docs"], key, value);
    await expect(put("nul", { text: "a\u0000b" })).rejects.toMatchObject({
      code: "invalid_request",
    });
    await expect(put("a\u0000b", {})).rejects.toMatchObject({ code: "invalid_request" });
    const incompressible = Array.from({ length: 9_000 }, (_, index) =>
      String.fromCodePoint(0x4e00 + ((index * 7919) % 20_000)),
    ).join("");
    await expect(put(incompressible, {})).rejects.toMatchObject({ code: "invalid_request" });
    await expect(store.put([], "key", {})).rejects.toThrow("Namespace cannot be empty");
  });

  it("lists namespaces by prefix, suffix, wildcard and depth", async () => {
    for (const namespace of [
      ["a", "x", "v1"],
      ["a", "y", "v1"],
      ["a", "y", "v2"],
      ["ab"],
      ["b", "x", "v1"],
    ]) {
      await store.put(namespace, "key", {});
    }
    expect(await store.listNamespaces({ prefix: ["a"] })).toEqual([
      ["a", "x", "v1"],
      ["a", "y", "v1"],
      ["a", "y", "v2"],
    ]);
    expect(await store.listNamespaces({ suffix: ["v1"] })).toEqual([
      ["a", "x", "v1"],
      ["a", "y", "v1"],
      ["b", "x", "v1"],
    ]);
    expect(await store.listNamespaces({ prefix: ["*", "x"] })).toEqual([
      ["a", "x", "v1"],
      ["b", "x", "v1"],
    ]);
    expect(await store.listNamespaces({ maxDepth: 2 })).toEqual([
      ["a", "x"],
      ["a", "y"],
      ["ab"],
      ["b", "x"],
    ]);
    expect(await store.listNamespaces({ maxDepth: 1, limit: 1, offset: 1 })).toEqual([["ab"]]);
  });

  it("finds text without an index, also when many search at once", async () => {
    await store.put(["docs"], "one", { text: "the quick brown fox" });
    await store.put(["docs"], "two", { text: "lazy dogs" });
    const found = await Promise.all(
      Array.from({ length: 30 }, () => keysOf(["docs"], { query: "fox" })),
    );
    expect(new Set(found.flat())).toEqual(new Set(["one"]));
  });

  it("serves the batching store that LangGraph puts before it", async () => {
    const batched = new AsyncBatchedStore(store);
    batched.start();
    await Promise.all(["a", "b", "c"].map((key) => batched.put(["batch"], key, { key })));
    const [item, items] = await Promise.all([
      batched.get(["batch"], "b"),
      batched.search(["batch"]),
    ]);
    await batched.stop();
    expect(item?.value).toEqual({ key: "b" });
    expect(items).toHaveLength(3);
  });

  it("hides expired items at once and removes them when swept", async () => {
    await store.put(["ttl"], "soon", { n: 1 }, undefined, { ttl: 1 });
    await store.put(["ttl"], "never", { n: 2 });
    await database.query(
      "UPDATE store SET expires_at = now() - interval '1 second' WHERE key = 'soon'",
    );
    expect(await keysOf(["ttl"])).toEqual(["never"]);
    expect(await store.sweepExpiredItems()).toBe(1);
  });

  it("leaves the database open when it stops", async () => {
    const other = await openStore(database, { ttl: { defaultTtl: 5, sweepIntervalMinutes: 60 } });
    await other.put(["docs"], "one", {});
    other.stop();
    expect(await keysOf(["docs"])).toEqual(["one"]);
  });
});

describe("store with an index, on pglite", () => {
  const databases = createTestDatabases("pglite");

  it("searches by meaning", async () => {
    const embed = async (texts: string[]): Promise<number[][]> =>
      texts.map((text) => [Number(/cat/.test(text)), Number(/dog/.test(text)), 0.1]);
    const database = await databases.open();
    const config = { index: { dims: 3, embed, fields: ["text"] } };
    const [store] = await Promise.all([openStore(database, config), openStore(database, config)]);
    await store.put(["user_1"], "cats", { text: "a cat" });
    await store.put(["user_1"], "dogs", { text: "a dog" });
    await store.put(["user_10"], "others", { text: "a cat" });
    const found = await store.search(["user_1"], { query: "my cat" });
    expect(found.map(({ key }) => key)).toEqual(["cats", "dogs"]);
    expect(found[0]?.namespace).toEqual(["user_1"]);
  });
});
