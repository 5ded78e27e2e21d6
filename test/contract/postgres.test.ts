import { Client } from "pg";
import { beforeAll, describe, expect, inject, test, vi } from "vitest";
import { ServerError } from "../../src/errors.ts";
import type { Database } from "../../src/storage/database.ts";
import { Listener } from "../../src/storage/listener.ts";
import { openDatabase } from "../../src/storage/open.ts";
import { DatabaseAway, isUnreachable } from "../../src/storage/persistence.ts";
import { openPostgres } from "../../src/storage/postgres.ts";
import { openDatabaseProxy } from "../support/database-proxy.ts";
import { createTestDatabases } from "../support/databases.ts";
import { eventually } from "../support/eventually.ts";

async function refusal(url: string): Promise<ServerError> {
  const error: unknown = await openPostgres({ connectionString: url }).catch(
    (reason: unknown) => reason,
  );
  if (!(error instanceof ServerError)) throw new Error(`not refused: ${String(error)}`);
  expect(error.code).toBe("startup_failed");
  return error;
}

function changed(change: (url: URL) => void): string {
  const url = new URL(inject("postgresUrl"));
  change(url);
  return url.href;
}

/** Ends every other connection to this database, as a restart or a failover does. */
async function terminateOthers(url: string): Promise<number> {
  const client = new Client({ connectionString: url });
  await client.connect();
  const { rowCount } = await client.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()`,
  );
  await client.end();
  return rowCount ?? 0;
}

describe("openPostgres", () => {
  const databases = createTestDatabases("postgres");

  test("shows host, port and database, never credentials", async () => {
    const { databaseUrl = "", dataDir } = await databases.configure();
    const database = await openDatabase({ databaseUrl, dataDir });
    const url = new URL(databaseUrl);
    expect(database.kind).toBe("postgres");
    expect(database.location).toBe(`${url.hostname}:${url.port}${url.pathname}`);
    await database.close();
  });

  test("sends a statement again that ended a deadlock", async () => {
    const { databaseUrl = "", dataDir } = await databases.configure();
    const database = await openDatabase({ databaseUrl, dataDir });
    databases.defer(() => database.close());
    await database.query("CREATE TABLE seats (id integer PRIMARY KEY, taken integer DEFAULT 0)");
    await database.query("INSERT INTO seats (id) VALUES (1), (2)");
    const take = (id: number) => `UPDATE seats SET taken = taken + 1 WHERE id = ${id}`;
    const [gate, other] = await Promise.all(
      [1, 2].map(async () => {
        const client = new Client({ connectionString: databaseUrl });
        await client.connect();
        databases.defer(() => client.end());
        return client;
      }),
    );
    const waiting = (count: number) =>
      eventually(async () => {
        const { rows } = await gate!.query(
          "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        );
        expect(rows).toHaveLength(count);
      });
    await gate!.query("SELECT pg_advisory_lock(7)");
    await other!.query("SET deadlock_timeout = '60s'");
    await other!.query("BEGIN");
    await other!.query(take(1));
    // It has the second seat and is kept at the gate until the other waits for that seat: whoever closes the circle
    // finds it, and has to give way.
    const both = database.query(`
      WITH first AS (${take(2)} RETURNING id),
        gate AS MATERIALIZED (SELECT pg_advisory_xact_lock(7) FROM first)
      UPDATE seats s SET taken = taken + 1 FROM gate WHERE s.id = 1`);
    await waiting(1);
    const second = other!.query(take(2));
    await waiting(2);
    await gate!.query("SELECT pg_advisory_unlock(7)");
    await second;
    await other!.query("COMMIT");
    expect(await both).toMatchObject({ rowCount: 1 });
    const { rows } = await database.query("SELECT id, taken FROM seats ORDER BY id");
    expect(rows).toEqual([
      { id: 1, taken: 2 },
      { id: 2, taken: 2 },
    ]);
  });

  test("says that nothing listens, and where", async () => {
    const { message } = await refusal("postgres://me:s3cret@127.0.0.1:1/things");
    expect(message).toMatch(/127\.0\.0\.1:1, database "things".*nothing listens/);
    expect(message).not.toContain("s3cret");
  });

  test("says that the host is unknown", async () => {
    const { message } = await refusal("postgres://me:s3cret@no-such-host.invalid/things");
    expect(message).toMatch(/no-such-host\.invalid:5432.*host/);
    expect(message).not.toContain("s3cret");
  });

  test("says that the password was refused", async () => {
    const { message } = await refusal(
      changed((url) => {
        url.password = "wr0ng";
      }),
    );
    expect(message).toContain('the password of user "postgres" was refused');
    expect(message).not.toContain("wr0ng");
  });

  test("says that the database does not exist", async () => {
    const { message } = await refusal(
      changed((url) => {
        url.pathname = "/nowhere";
      }),
    );
    expect(message).toMatch(/"nowhere".*does not exist.*createdb nowhere/);
  });

  test("refuses a URL it cannot read without repeating it", async () => {
    const error = await refusal("postgres://me:s3cret@host:not-a-port/things");
    expect(error.message).toContain("postgres://user:password@host:5432/database");
    expect(JSON.stringify([error.message, error.cause, error.details])).not.toContain("s3cret");
  });
});

describe("a PostgreSQL that ends its connections", () => {
  const databases = createTestDatabases("postgres");
  let url: string;
  let database: Database;
  beforeAll(async () => {
    ({ databaseUrl: url = "" } = await databases.configure());
    database = await openPostgres({ connectionString: url });
    return () => database.close();
  });

  test("costs idle connections nothing", async () => {
    await Promise.all(Array.from({ length: 5 }, () => database.query("SELECT pg_sleep(0.01)")));
    expect(await terminateOthers(url)).toBeGreaterThan(0);
    await eventually(() => expect(database.pool.totalCount).toBe(0));
    expect((await database.query("SELECT 1 AS one")).rows).toEqual([{ one: 1 }]);
  });

  test("rejects what was under way, and serves what comes next", async () => {
    const query = database.query("SELECT pg_sleep(60)").then(
      () => "answered",
      () => "rejected",
    );
    const transaction = database
      .transaction(async (tx) => {
        await tx.query("CREATE TABLE never (id int)");
        await tx.query("SELECT pg_sleep(60)");
      })
      .then(
        () => "answered",
        () => "rejected",
      );
    await eventually(async () => {
      const { rows } = await database.query(
        "SELECT count(*) AS asleep FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND datname = current_database() AND state = 'active'",
      );
      expect(rows).toEqual([{ asleep: 2 }]);
    });
    await terminateOthers(url);
    expect(await Promise.all([query, transaction])).toEqual(["rejected", "rejected"]);
    // An idle connection that was ended with the others may be given out once more before its end is read.
    const { rows } = await eventually(() => database.query("SELECT to_regclass('never') AS name"));
    expect(rows).toEqual([{ name: null }]);
  });

  test("is listened to again, and the listener is told to look", async () => {
    const heard: string[] = [];
    const onReconnect = vi.fn<() => void>();
    const subscription = await database.listen(
      "news",
      (payload) => heard.push(payload),
      onReconnect,
    );
    await database.query("NOTIFY news, 'before'");
    await eventually(() => expect(heard).toEqual(["before"]));
    expect(onReconnect).not.toHaveBeenCalled();
    await terminateOthers(url);
    await eventually(() => expect(onReconnect).toHaveBeenCalledTimes(1));
    await database.query("NOTIFY news, 'after'");
    await eventually(() => expect(heard).toEqual(["before", "after"]));
    await subscription.close();
  });

  test("can be closed while it is being reconnected to", async () => {
    const proxy = await openDatabaseProxy(url);
    const other = await openPostgres({ connectionString: proxy.url });
    await other.listen("news", () => {});
    await proxy.close();
    await other.close();
  });
});

describe("a PostgreSQL that is away for a while", () => {
  const databases = createTestDatabases("postgres");

  test("is told once, and once that it is back, however often it is asked", async () => {
    const { databaseUrl: url = "" } = await databases.configure();
    const proxy = await openDatabaseProxy(url);
    databases.defer(() => proxy.close());
    const told: string[] = [];
    const database = await openPostgres({
      connectionString: proxy.url,
      listen: false,
      log: (level, message) => told.push(`${level}: ${message}`),
    });
    databases.defer(() => database.close());
    await Promise.all(Array.from({ length: 3 }, () => database.query("SELECT pg_sleep(0.01)")));
    for (let outages = 1; outages <= 2; outages += 1) {
      proxy.cut();
      await eventually(() => expect(database.pool.totalCount).toBe(0));
      for (const ask of [
        () => database.query("SELECT 1"),
        () => database.query("SELECT $1::int", [1]),
        () => database.transaction((tx) => tx.query("SELECT 1")),
      ]) {
        const error: unknown = await ask().catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(DatabaseAway);
        expect(isUnreachable(error)).toBe(true);
      }
      proxy.mend();
      await eventually(async () => {
        await database.query("SELECT 1");
        expect(told.at(-1)).toBe("info: The database is back.");
      });
      expect(told.splice(0)).toEqual([
        "warn: A connection to the database was lost; it will be replaced.",
        expect.stringMatching(/^warn: The database cannot be reached \(Connection terminated/),
        "info: The database is back.",
      ]);
    }
  });

  test("tells who waits for an answer that it is away", async () => {
    const { databaseUrl: url = "" } = await databases.configure();
    const proxy = await openDatabaseProxy(url);
    databases.defer(() => proxy.close());
    const database = await openPostgres({ connectionString: proxy.url });
    databases.defer(() => database.close());
    const asked = [
      database.query("SELECT pg_sleep(60)"),
      database.transaction((tx) => tx.query("SELECT pg_sleep(60)")),
    ].map((answer) => answer.catch((error: unknown) => error));
    await eventually(async () => {
      const { rows } = await database.query(
        "SELECT FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND datname = current_database() AND state = 'active'",
      );
      expect(rows).toHaveLength(2);
    });
    proxy.cut();
    for (const error of await Promise.all(asked)) expect(error).toBeInstanceOf(DatabaseAway);
  });
});

describe("a connection that goes silent", () => {
  const databases = createTestDatabases("postgres");

  const openSilent = async () => {
    const { databaseUrl: url = "" } = await databases.configure();
    const proxy = await openDatabaseProxy(url);
    databases.defer(() => proxy.close());
    const database = await openPostgres({
      connectionString: proxy.url,
      listen: false,
      // Long enough for a slow server: who does not answer for as long counts as away.
      silentMs: 1_500,
    });
    databases.defer(() => database.close());
    // Three connections, which are idle then.
    await Promise.all(Array.from({ length: 3 }, () => database.query("SELECT pg_sleep(0.05)")));
    expect(database.pool.totalCount).toBe(3);
    return { proxy, database };
  };
  const caught = (answer: Promise<unknown>): Promise<unknown> =>
    answer.catch((error: unknown) => error);

  test("is broken where others are answered, and none of its age is used again", async () => {
    const { proxy, database } = await openSilent();
    proxy.stall();
    const asked = [
      caught(database.query("SELECT 1")),
      caught(database.transaction((tx) => tx.query("SELECT 2"))),
    ];
    for (const error of await Promise.all(asked)) expect(error).toBeInstanceOf(DatabaseAway);
    // The third is as dead, and nobody has to wait for it to be found so.
    await Promise.all(Array.from({ length: 3 }, () => database.query("SELECT 3")));
  });

  test("is broken where nobody is answered, and replaced when somebody is", async () => {
    const { proxy, database } = await openSilent();
    proxy.silence();
    expect(await caught(database.query("SELECT 1"))).toBeInstanceOf(DatabaseAway);
    proxy.mend();
    await eventually(() => database.query("SELECT 1"));
  });

  test("is left alone while its statement is at work, or waits for a lock", async () => {
    const { database } = await openSilent();
    await database.query("CREATE TABLE slow (id integer)");
    const held = database.transaction(async (tx) => {
      await tx.query("LOCK TABLE slow");
      await tx.query("SELECT pg_sleep(5)");
    });
    await eventually(async () => {
      const { rows } = await database.query(
        "SELECT FROM pg_stat_activity WHERE query LIKE '%pg_sleep(5)' AND state = 'active' AND pid <> pg_backend_pid() AND datname = current_database()",
      );
      expect(rows).toHaveLength(1);
    });
    const waiting = database.query("SELECT count(*) FROM slow");
    await held;
    expect((await waiting).rows).toEqual([{ count: 0 }]);
  });

  test("is noticed by the heartbeat and replaced", async () => {
    const { databaseUrl: url = "" } = await databases.configure();
    const proxy = await openDatabaseProxy(url);
    const listener = new Listener({
      createClient: () => new Client({ connectionString: proxy.url }),
      heartbeatMs: 1_000,
      log: () => {},
    });
    const heard: string[] = [];
    const onReconnect = vi.fn<() => void>();
    await listener.subscribe("news", (payload) => heard.push(payload), onReconnect);
    proxy.stall();
    await eventually(() => expect(onReconnect).toHaveBeenCalled());
    const client = new Client({ connectionString: url });
    await client.connect();
    await eventually(async () => {
      // Once more if the new connection was replaced as well.
      await client.query("NOTIFY news, 'again'");
      expect(heard).toContain("again");
    });
    await client.end();
    await listener.close();
    await proxy.close();
  });
});
