import { AsyncBatchedStore } from "@langchain/langgraph-checkpoint";
import { beforeAll, beforeEach, describe, expect, it } from "vitest";
import type { Database } from "../../src/storage/database.ts";
import { migrate } from "../../src/storage/migrate.ts";
import { openPostgres } from "../../src/storage/postgres.ts";
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

  it("compares values as what they are", async () => {
    const values: Record<string, Record<string, unknown>> = {
      number: { v: 3 },
      text: { v: "3" },
      zero: { v: 0 },
      null: { v: null },
      list: { v: ["a", 1] },
      none: {},
    };
    for (const [key, value] of Object.entries(values)) await store.put(["docs"], key, value);
    const found = (v: unknown) => keysOf(["docs"], { filter: { v } });
    expect(await found(3)).toEqual(["number"]);
    expect(await found("3")).toEqual(["text"]);
    expect(await found(null)).toEqual(["null"]);
    expect(await found(["a", 1])).toEqual(["list"]);
    expect(await found({ $eq: "3" })).toEqual(["text"]);
    expect(await found({ $ne: 3 })).toEqual(["list", "none", "null", "text", "zero"]);
    expect(await found({ $gt: -1, $lt: 3 })).toEqual(["zero"]);
    expect(await found({ $gte: "3" })).toEqual(["text"]);
    expect(await found({ $in: [3, null] })).toEqual(["null", "number"]);
    expect(await found({ $nin: [3, null] })).toEqual(["list", "none", "text", "zero"]);
    expect(await found({ $exists: false })).toEqual(["none"]);
    expect(await keysOf(["docs"], { filter: { "v' OR true --": 1 } })).toEqual([]);
  });

  it("refuses filters that say nothing", async () => {
    await store.put(["docs"], "one", { kind: "report" });
    const search = (filter: Record<string, unknown>) => store.search(["docs"], { filter });
    for (const filter of [
      { kind: { $like: "r" } },
      { kind: { $gt: null } },
      { kind: { $lt: [1] } },
      { kind: { $in: "report" } },
      { kind: { $exists: 1 } },
      { kind: { $eq: 1, other: 2 } },
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

  it("hides expired items at once, removes them when swept, and puts others in their place", async () => {
    await store.put(["ttl"], "soon", { n: 1 }, undefined, { ttl: 1 });
    await store.put(["ttl"], "also", { n: 1 }, undefined, { ttl: 1 });
    await store.put(["ttl"], "never", { n: 2 });
    const { createdAt } = (await store.get(["ttl"], "soon"))!;
    await database.query(
      "UPDATE store SET expires_at = now() - interval '1 second' WHERE key <> 'never'",
    );
    expect(await keysOf(["ttl"])).toEqual(["never"]);
    expect(await store.get(["ttl"], "soon")).toBeNull();
    await store.put(["ttl"], "soon", { n: 3 }, undefined, { ttl: null });
    expect((await store.get(["ttl"], "soon"))!.createdAt.getTime()).toBeGreaterThan(
      createdAt.getTime(),
    );
    expect(await store.sweepExpiredItems()).toBe(1);
    expect(await keysOf(["ttl"])).toEqual(["never", "soon"]);
  });

  it("lets an item's time begin anew when it is read, if it is to", async () => {
    await store.put(["ttl"], "item", {}, undefined, { ttl: 10 });
    const age = async (): Promise<number> => {
      const { rows } = await database.query<{ left: number }>(
        "SELECT extract(epoch FROM expires_at - now())::float8 / 60 AS left FROM store WHERE key = 'item'",
      );
      await database.query("UPDATE store SET expires_at = now() + interval '1 minute'");
      return Math.round(rows[0]!.left);
    };
    expect(await age()).toBe(10);
    await store.get(["ttl"], "item", { refreshTtl: false });
    await store.search(["ttl"], { refreshTtl: false });
    expect(await age()).toBe(1);
    await store.get(["ttl"], "item");
    expect(await age()).toBe(10);
    await store.search(["ttl"]);
    expect(await age()).toBe(10);
    const quiet = await openStore(database, { ttl: { defaultTtl: 5, refreshOnRead: false } });
    await quiet.get(["ttl"], "item");
    expect(await age()).toBe(1);
    await quiet.get(["ttl"], "item", { refreshTtl: true });
    expect(await age()).toBe(10);
    // Many at once, which find the same items in different orders.
    for (const key of ["a", "b", "c"]) {
      await store.put(["many"], key, { text: `word ${key}` }, undefined, { ttl: 10 });
    }
    await Promise.all(
      Array.from({ length: 40 }, (_, n) =>
        store.search(["many"], n % 2 === 0 ? {} : { query: "word" }),
      ),
    );
    await database.query("DELETE FROM store WHERE key IN ('a', 'b', 'c')");
    await quiet.put(["ttl"], "item", {});
    expect(await age()).toBe(5);
    quiet.stop();
  });

  it("leaves the database open when it stops", async () => {
    const other = await openStore(database, { ttl: { defaultTtl: 5, sweepIntervalMinutes: 60 } });
    await other.put(["docs"], "one", {});
    other.stop();
    expect(await keysOf(["docs"])).toEqual(["one"]);
  });
});

/** The words of a text, as numbers; and what it was asked. */
function createModel() {
  const asked: string[][] = [];
  const embed = async (texts: string[]): Promise<number[][]> => {
    asked.push(texts);
    return texts.map((text) => [Number(/cat/.test(text)), Number(/dog/.test(text)), 0.1]);
  };
  return { asked, embed };
}

// The PostgreSQL of the tests comes without pgvector; on one that has it, this is the same suite.
describe.each(["pglite", ...(process.env["PGVECTOR_URL"] ? ["postgres" as const] : [])] as const)(
  "store with an index, on %s",
  (kind) => {
    const databases = createTestDatabases(kind);
    const open = (): Promise<Database> =>
      kind === "postgres"
        ? openPostgres({ connectionString: process.env["PGVECTOR_URL"]! })
        : databases.open();

    it("searches by meaning", async () => {
      const { embed, asked } = createModel();
      const database = await open();
      await migrate(database);
      const config = { index: { dims: 3, embed, fields: ["text"] } };
      const [store] = await Promise.all([openStore(database, config), openStore(database, config)]);
      await store.put(["user_1"], "cats", { text: "a cat", rank: 1 });
      await store.put(["user_1"], "dogs", { text: "a dog", rank: 2 });
      await store.put(["user_10"], "others", { text: "a cat" });
      const found = await store.search(["user_1"], { query: "my cat" });
      expect(found.map(({ key }) => key)).toEqual(["cats", "dogs"]);
      expect(found[0]).toMatchObject({ namespace: ["user_1"], score: expect.closeTo(1, 3) });
      expect(found[1]!.score).toBeLessThan(0.1);
      const keys = async (query: string, options = {}) =>
        (await store.search(["user_1"], { query, ...options })).map(({ key }) => key);
      expect(await keys("my cat", { filter: { rank: { $gt: 1 } } })).toEqual(["dogs"]);
      expect(await keys("my cat", { limit: 1, offset: 1 })).toEqual(["dogs"]);

      // Another value has other vectors, and one that is not to be indexed none.
      await store.put(["user_1"], "dogs", { text: "another cat" });
      expect(await keys("a dog", { limit: 1 })).not.toEqual(["dogs"]);
      await store.put(["user_1"], "dogs", { text: "a dog" }, false);
      expect(await keys("a dog")).toEqual(["cats"]);
      await store.put(["user_1"], "fields", { names: ["a dog", "a cat"], text: "" }, ["names[*]"]);
      expect(await keys("a dog", { limit: 1 })).toEqual(["fields"]);
      const deep = { parts: [{ name: "a dog" }, { name: "nothing" }] };
      for (const path of [
        "parts[*].name",
        "parts[0].name",
        "parts[-2].name",
        "parts.*.name",
        "$",
      ]) {
        await store.delete(["user_1"], "fields");
        expect(await keys("a dog", { limit: 1 })).toEqual(["cats"]);
        await store.put(["user_1"], "fields", deep, [path]);
        expect(await keys("a dog", { limit: 1 })).toEqual(["fields"]);
      }
      const plain = await openStore(database);
      await plain.put(["user_1"], "fields", { names: ["nobody"] });
      expect(await keys("a dog")).toEqual(["cats"]);
      plain.stop();

      // One question to the model for all items of a batch.
      asked.length = 0;
      await store.batch([
        { namespace: ["b"], key: "1", value: { text: "one" } },
        { namespace: ["b"], key: "2", value: { text: "two" } },
        { namespace: ["b"], key: "3", value: null },
      ]);
      expect(asked).toEqual([["one", "two"]]);
      store.stop();

      await expect(openStore(database, { index: { dims: 4, embed } })).rejects.toMatchObject({
        code: "startup_failed",
        message: expect.stringContaining("vectors of 3 numbers"),
      });
      const wrong = await openStore(database, { index: { dims: 3, embed: () => [[1, 2]] } });
      await expect(wrong.put(["w"], "k", { text: "x" })).rejects.toMatchObject({
        code: "unavailable",
        message: expect.stringContaining("vectors of 2 numbers"),
      });
      wrong.stop();
      if (kind === "postgres") await database.close();
    });
  },
);

describe("store with an index, on a PostgreSQL without pgvector", () => {
  const databases = createTestDatabases("postgres");

  it("says what is missing", async () => {
    const database = await databases.open();
    const { rows } = await database.query(
      "SELECT 1 FROM pg_available_extensions WHERE name = 'vector'",
    );
    expect(rows).toEqual([]);
    await expect(
      openStore(database, { index: { dims: 3, embed: () => [] } }),
    ).rejects.toMatchObject({
      code: "startup_failed",
      message: expect.stringContaining("needs the pgvector extension"),
    });
  });
});
