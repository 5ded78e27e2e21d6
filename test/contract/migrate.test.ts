import { cp, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../src/storage/database.ts";
import { migrate } from "../../src/storage/migrate.ts";
import { openPostgres } from "../../src/storage/postgres.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";

const MIGRATIONS = fileURLToPath(new URL("../../migrations", import.meta.url));

async function countTables(database: Database): Promise<unknown> {
  const { rows } = await database.query(
    "SELECT count(*) AS tables FROM pg_tables WHERE schemaname = 'public'",
  );
  return rows[0]?.["tables"];
}

describeDatabases("migrate", (databases) => {
  let folder: string;
  let database: Database;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "aegra-migrations-"));
    await writeFile(join(folder, "0001_first.sql"), "CREATE TABLE first (id int);\n");
    await writeFile(
      join(folder, "0002_second.sql"),
      "CREATE TABLE second (id int);\nINSERT INTO first VALUES (1);\n",
    );
    database = await databases.open({ empty: true });
  });
  afterAll(() => rm(folder, { recursive: true, force: true }));

  test("applies the package's own files to an empty database, in their order", async () => {
    const empty = await databases.open({ empty: true });
    const names = (await readdir(MIGRATIONS)).map((file) => file.replace(/\.sql$/, "")).toSorted();
    expect(names).toContain("0001_initial");
    expect(await migrate(empty)).toEqual({ applied: names });
    expect(await migrate(empty)).toEqual({ applied: [] });
  });

  test("applies each file once", async () => {
    expect(await migrate(database, { folder })).toEqual({ applied: ["0001_first", "0002_second"] });
    expect(await migrate(database, { folder })).toEqual({ applied: [] });
    expect(await countTables(database)).toBe(3);
  });

  test("rolls a failing file back, names it, and tries it again the next time", async () => {
    const file = join(folder, "0003_third.sql");
    await writeFile(file, "CREATE TABLE third (id int); SELECT 1 / 0;");
    const failing = migrate(database, { folder });
    await expect(failing).rejects.toMatchObject({ code: "startup_failed" });
    await expect(failing).rejects.toThrow(/0003_third.*division by zero/);
    expect(await countTables(database)).toBe(3);
    await writeFile(file, "CREATE TABLE third (id int);");
    expect(await migrate(database, { folder })).toEqual({ applied: ["0003_third"] });
  });

  test("refuses an applied file that was edited, by name", async () => {
    const edited = await mkdtemp(join(tmpdir(), "aegra-migrations-"));
    await cp(folder, edited, { recursive: true });
    await writeFile(join(edited, "0002_second.sql"), "CREATE TABLE second (id bigint);\n");
    const refused = migrate(database, { folder: edited });
    await expect(refused).rejects.toMatchObject({ code: "startup_failed" });
    await expect(refused).rejects.toThrow(/made by another build.*0002_second/s);
    const setting = database.kind === "pglite" ? "AEGRA_DATA_DIR" : "DATABASE_URL";
    await expect(refused).rejects.toThrow(
      `Start that build, or use a new database: set ${setting}`,
    );
    await expect(refused).rejects.toThrow("If you edited the file, restore it.");
    await expect(refused).rejects.not.toThrow("0001_first");
    await rm(edited, { recursive: true });
  });

  test("does not mind other line ends", async () => {
    await writeFile(join(folder, "0001_first.sql"), "CREATE TABLE first (id int);\r\n");
    expect(await migrate(database, { folder })).toEqual({ applied: [] });
  });

  test("refuses a database that a newer version has used", async () => {
    const older = await mkdtemp(join(tmpdir(), "aegra-migrations-"));
    await cp(join(folder, "0001_first.sql"), join(older, "0001_first.sql"));
    const refused = migrate(database, { folder: older });
    await expect(refused).rejects.toMatchObject({ code: "startup_failed" });
    await expect(refused).rejects.toThrow(/0002_second, 0003_third.*newer version/);
    await rm(older, { recursive: true });
  });

  test("ten at once over one database apply each file once", async () => {
    const empty = await databases.open({ empty: true });
    const results = await Promise.all(Array.from({ length: 10 }, () => migrate(empty, { folder })));
    expect(results.flatMap(({ applied }) => applied).toSorted()).toEqual([
      "0001_first",
      "0002_second",
      "0003_third",
    ]);
  });
});

const databasesOfPostgres = createTestDatabases("postgres");

test("ten servers that start at once on an empty PostgreSQL apply each file once", async () => {
  const { databaseUrl = "" } = await databasesOfPostgres.configure({ empty: true });
  const servers = await Promise.all(
    Array.from({ length: 10 }, () => openPostgres({ connectionString: databaseUrl })),
  );
  const results = await Promise.all(servers.map((server) => migrate(server)));
  const applied = results.flatMap((result) => result.applied);
  expect(applied).toContain("0001_initial");
  expect(new Set(applied).size).toBe(applied.length);
  await Promise.all(servers.map((server) => server.close()));
});
