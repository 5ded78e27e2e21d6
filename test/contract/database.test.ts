import { beforeAll, expect, test } from "vitest";
import type { Database } from "../../src/storage/database.ts";
import { migrate } from "../../src/storage/migrate.ts";
import { describeDatabases } from "../support/databases.ts";

describeDatabases("database", (databases) => {
  let database: Database;
  beforeAll(async () => {
    database = await databases.open();
    await database.query("CREATE TABLE notes (id int PRIMARY KEY, text text)");
  });

  test("has the schema", async () => {
    expect(await migrate(database)).toEqual({ applied: [] });
  });
});
