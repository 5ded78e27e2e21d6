import { beforeAll, describe, expect, test } from "vitest";
import type { Database, Queryable } from "../../src/storage/database.ts";
import { toJson } from "../../src/storage/json.ts";
import { describeDatabases } from "../support/databases.ts";
import { eventually } from "../support/eventually.ts";

async function scalar(target: Queryable, text: string, params: unknown[] = []): Promise<unknown> {
  const { rows } = await target.query<{ value: unknown }>(text, params);
  return rows[0]?.value;
}

function sleepless(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}

describeDatabases("database", (databases) => {
  let database: Database;
  beforeAll(async () => {
    database = await databases.open();
    await database.query("CREATE TABLE notes (id int PRIMARY KEY, text text)");
    await database.query("CREATE TABLE counters (name text PRIMARY KEY, value int NOT NULL)");
  });

  describe("query", () => {
    test("gives rows and the number of rows touched", async () => {
      const inserted = await database.query("INSERT INTO notes VALUES ($1, $2), ($3, $4)", [
        1,
        "one",
        2,
        "two",
      ]);
      expect(inserted).toEqual({ rows: [], rowCount: 2 });
      const read = await database.query(
        "SELECT id, text FROM notes WHERE id < $1 ORDER BY id",
        [3],
      );
      expect(read).toEqual({
        rows: [
          { id: 1, text: "one" },
          { id: 2, text: "two" },
        ],
        rowCount: 2,
      });
      expect(await database.query("CREATE TEMP TABLE nothing ()")).toEqual({
        rows: [],
        rowCount: 0,
      });
    });

    test("carries values of every type there and back", async () => {
      const at = new Date("2026-03-04T05:06:07.089Z");
      const bytes = Buffer.from([0, 1, 254, 255]);
      const { rows } = await database.query(
        `SELECT $1::text AS text, $2::int AS missing, $3::timestamptz AS at, $4::bytea AS bytes,
           $5::text[] AS texts, $6::int[] AS numbers, $7::jsonb AS json, $8::bool AS flag,
           $9::float8 AS float, $10::int AS undefined, $11::bytea AS view, $12::uuid AS uuid`,
        [
          "quote \" ' \\ grüße 🌍",
          null,
          at,
          bytes,
          ["a", 'b"', "c,d", "{e}", ""],
          [1, 2, 3],
          toJson({ nested: [{ deep: true }], text: "{}" }),
          false,
          0.1,
          undefined,
          new Uint8Array(bytes),
          "6ba7b821-9dad-11d1-80b4-00c04fd430c8",
        ],
      );
      expect(rows).toEqual([
        {
          text: "quote \" ' \\ grüße 🌍",
          missing: null,
          at,
          bytes,
          texts: ["a", 'b"', "c,d", "{e}", ""],
          numbers: [1, 2, 3],
          json: { nested: [{ deep: true }], text: "{}" },
          flag: false,
          float: 0.1,
          undefined: null,
          view: bytes,
          uuid: "6ba7b821-9dad-11d1-80b4-00c04fd430c8",
        },
      ]);
    });

    test("gives bigint as a number while a number can hold it", async () => {
      expect(await scalar(database, "SELECT count(*) AS value FROM generate_series(1, 3)")).toBe(3);
      expect(await scalar(database, "SELECT 9007199254740991::int8 AS value")).toBe(2 ** 53 - 1);
      expect(await scalar(database, "SELECT 9007199254740993::int8 AS value")).toBe(
        "9007199254740993",
      );
    });

    test("carries 8 MB in one value", async () => {
      const text = "0123456789abcdef".repeat(512 * 1024);
      const { rows } = await database.query<{ text: string; length: number }>(
        "SELECT $1::text AS text, length($1::text) AS length",
        [text],
      );
      expect(rows[0]?.length).toBe(text.length);
      expect(rows[0]?.text === text).toBe(true);
    });

    test("stores what jsonb refuses as the replacement character", async () => {
      const hostile = { nul: "a\u0000b", lone: "\ud83d", pair: "🌍", slash: String.raw`\u0000` };
      expect(await scalar(database, "SELECT $1::jsonb AS value", [toJson(hostile)])).toEqual({
        nul: "a\ufffdb",
        lone: "\ufffd",
        pair: "🌍",
        slash: String.raw`\u0000`,
      });
    });

    test("stores JSON as deep as toJson allows", async () => {
      let deep: unknown = "bottom";
      for (let level = 0; level < 1000; level += 1) deep = [deep];
      const text = toJson(deep);
      expect(toJson(await scalar(database, "SELECT $1::jsonb AS value", [text]))).toBe(text);
    });

    test("sends more different statements than a connection keeps prepared", async () => {
      for (let index = 0; index < 400; index += 1) {
        expect(await scalar(database, `SELECT $1::int + ${index} AS value`, [1])).toBe(1 + index);
      }
    });

    test("sends one text with parameters of different types", async () => {
      const text = "SELECT pg_typeof($1::int) AS value";
      expect(await scalar(database, text, [1])).toBe("integer");
      expect(await scalar(database, text, ["2"])).toBe("integer");
      await expect(scalar(database, text, ["two"])).rejects.toMatchObject({ code: "22P02" });
      expect(await scalar(database, text, [3])).toBe("integer");
    });

    test("sends several statements without parameters, and gives the last result", async () => {
      const text = "SELECT 1 AS value; SELECT 2 AS value; SELECT 3 AS value";
      expect(await database.query(text)).toEqual({ rows: [{ value: 3 }], rowCount: 1 });
    });
  });

  describe("errors", () => {
    test.each([
      ["42P01", "SELECT * FROM missing_table", []],
      ["42601", "SELEC 1", []],
      ["22P02", "SELECT $1::uuid", ["not-a-uuid"]],
      ["22021", "SELECT $1::text", ["nul\u0000"]],
      ["23505", "INSERT INTO counters VALUES ($1, 0), ($1, 0)", ["twice"]],
      ["23502", "INSERT INTO counters VALUES ($1, NULL)", ["null"]],
    ])("carry SQLSTATE %s", async (code, text, params) => {
      await expect(database.query(text, params)).rejects.toMatchObject({ code });
    });

    test("leave the database usable, however many at once", async () => {
      const failures = Array.from({ length: 40 }, () =>
        database.query("SELECT 1 / $1::int", [0]).then(
          () => "none",
          (error: unknown) => (error as { code?: string }).code,
        ),
      );
      const answers = Array.from({ length: 40 }, (_, index) =>
        scalar(database, "SELECT $1::int AS value", [index]),
      );
      expect(new Set(await Promise.all(failures))).toEqual(new Set(["22012"]));
      expect(await Promise.all(answers)).toEqual(Array.from({ length: 40 }, (_, index) => index));
    });
  });

  describe("transaction", () => {
    test("commits what it returns", async () => {
      const value = await database.transaction(async (tx) => {
        await tx.query("INSERT INTO notes VALUES (10, 'ten')");
        return scalar(tx, "SELECT text AS value FROM notes WHERE id = 10");
      });
      expect(value).toBe("ten");
      expect(await scalar(database, "SELECT text AS value FROM notes WHERE id = 10")).toBe("ten");
    });

    test("rolls back what throws, and rethrows it", async () => {
      const reason = new Error("changed my mind");
      const work = database.transaction(async (tx) => {
        await tx.query("INSERT INTO notes VALUES (11, 'eleven')");
        throw reason;
      });
      await expect(work).rejects.toBe(reason);
      expect(
        await scalar(database, "SELECT text AS value FROM notes WHERE id = 11"),
      ).toBeUndefined();
    });

    test("rolls back after a failed statement", async () => {
      const work = database.transaction(async (tx) => {
        await tx.query("INSERT INTO notes VALUES (12, 'twelve')");
        await tx.query("SELECT 1 / 0");
      });
      await expect(work).rejects.toMatchObject({ code: "22012" });
      expect(
        await scalar(database, "SELECT text AS value FROM notes WHERE id = 12"),
      ).toBeUndefined();
    });

    test("does not report a commit when a failure in it was ignored", async () => {
      const work = database.transaction(async (tx) => {
        await tx.query("INSERT INTO notes VALUES (13, 'thirteen')");
        await tx.query("SELECT 1 / 0").catch(() => {});
      });
      await expect(work).rejects.toThrow("rolled back");
      expect(
        await scalar(database, "SELECT text AS value FROM notes WHERE id = 13"),
      ).toBeUndefined();
    });

    test("runs statements that are sent together in their order", async () => {
      const values = await database.transaction((tx) =>
        Promise.all([
          tx.query("INSERT INTO notes VALUES (14, 'first')"),
          tx.query("UPDATE notes SET text = text || ', second' WHERE id = $1", [14]),
          scalar(tx, "SELECT text AS value FROM notes WHERE id = $1", [14]),
        ]),
      );
      expect(values[2]).toBe("first, second");
    });

    test("refuses its tx after the end", async () => {
      let kept: Queryable | undefined;
      await database.transaction(async (tx) => {
        kept = tx;
        await tx.query("SELECT 1");
      });
      await expect(kept?.query("SELECT 1")).rejects.toThrow("has ended");
    });

    test("refuses the database within it, instead of waiting for itself", async () => {
      const query = database.transaction(() => database.query("SELECT 1"));
      await expect(query).rejects.toThrow("only its own tx");
      const nested = database.transaction(() => database.transaction(async () => {}));
      await expect(nested).rejects.toThrow("only its own tx");
      expect(await scalar(database, "SELECT 1 AS value")).toBe(1);
    });

    test("serves fifty at once, each whole", async () => {
      await database.query("INSERT INTO counters VALUES ('shared', 0)");
      const increments = Array.from({ length: 50 }, () =>
        database.transaction(async (tx) => {
          const value = await scalar(
            tx,
            "SELECT value FROM counters WHERE name = 'shared' FOR UPDATE",
          );
          await sleepless();
          await tx.query("UPDATE counters SET value = $1 WHERE name = 'shared'", [
            Number(value) + 1,
          ]);
        }),
      );
      const reads = Array.from({ length: 50 }, () => scalar(database, "SELECT 1 AS value"));
      await Promise.all([...increments, ...reads]);
      expect(await scalar(database, "SELECT value FROM counters WHERE name = 'shared'")).toBe(50);
    });
  });

  describe("listen", () => {
    test("hears payloads, whole and in order", async () => {
      const heard: string[] = [];
      const subscription = await database.listen("news", (payload) => heard.push(payload));
      const payloads = ["", "grüße 🌍", "x".repeat(7_900), "last"];
      for (const payload of payloads)
        await database.query("SELECT pg_notify('news', $1)", [payload]);
      await eventually(() => expect(heard).toEqual(payloads));
      await subscription.close();
    });

    test("hears a transaction's notifications when it has committed, never those of one rolled back", async () => {
      const heard: string[] = [];
      const subscription = await database.listen("deals", (payload) => heard.push(payload));
      let heardInside: number | undefined;
      await database
        .transaction(async (tx) => {
          await tx.query("NOTIFY deals, 'off'");
          throw new Error("rolled back");
        })
        .catch(() => {});
      await database.transaction(async (tx) => {
        await tx.query("NOTIFY deals, 'on'");
        await tx.query("SELECT 1");
        heardInside = heard.length;
      });
      await eventually(() => expect(heard).toEqual(["on"]));
      expect(heardInside).toBe(0);
      await subscription.close();
    });

    test("keeps channels and subscribers apart", async () => {
      const heard: string[] = [];
      const open = (channel: string, name: string) =>
        database.listen(channel, (payload) => heard.push(`${name}:${payload}`));
      const [first, second, odd] = await Promise.all([
        open("shared", "first"),
        open("shared", "second"),
        open('Odd "name"', "odd"),
      ]);
      await database.query("NOTIFY shared, '1'");
      await database.query(`NOTIFY "Odd ""name""", '2'`);
      await eventually(() => expect(heard.toSorted()).toEqual(["first:1", "odd:2", "second:1"]));
      await first.close();
      await first.close();
      await odd.close();
      await database.query("NOTIFY shared, '3'");
      await database.query(`NOTIFY "Odd ""name""", '4'`);
      await eventually(() => expect(heard).toContain("second:3"));
      await second.close();
      expect(heard.filter((line) => /:[34]/.test(line))).toEqual(["second:3"]);
      // The channel can be subscribed again after its last subscription ended.
      const again = await open("shared", "again");
      await database.query("NOTIFY shared, '5'");
      await eventually(() => expect(heard).toContain("again:5"));
      await again.close();
    });
  });

  describe("pool", () => {
    test("is an ordinary pg pool", async () => {
      const { rows } = await database.pool.query("SELECT $1::int8 AS big, now() AS now", [5]);
      expect(rows[0]).toEqual({ big: "5", now: expect.any(Date) as Date });
      const client = await database.pool.connect();
      try {
        await client.query("BEGIN");
        await client.query("INSERT INTO notes VALUES ($1, $2)", [20, "twenty"]);
        await client.query("ROLLBACK");
      } finally {
        client.release();
      }
      expect(
        await scalar(database, "SELECT text AS value FROM notes WHERE id = 20"),
      ).toBeUndefined();
    });

    test("may hold an idle client while the database is used", async () => {
      const client = await database.pool.connect();
      try {
        await client.query("SELECT 1");
        expect(await scalar(database, "SELECT 2 AS value")).toBe(2);
        expect(await database.transaction((tx) => scalar(tx, "SELECT 3 AS value"))).toBe(3);
      } finally {
        client.release();
      }
    });
  });

  test("after close, every call rejects", async () => {
    const other = await databases.open({ empty: true });
    const heard: string[] = [];
    const subscription = await other.listen("late", (payload) => heard.push(payload));
    const inFlight = other.query("SELECT 1");
    await inFlight;
    await Promise.all([other.close(), other.close()]);
    await other.close();
    await subscription.close();
    await expect(other.query("SELECT 1")).rejects.toThrow("closed");
    await expect(other.transaction(async () => {})).rejects.toThrow("closed");
    await expect(other.listen("late", () => {})).rejects.toThrow("closed");
    await expect(other.pool.query("SELECT 1")).rejects.toThrow(/end|closed/);
    expect(heard).toEqual([]);
  });
});
