import { randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, inject } from "vitest";
import type { Database } from "../../src/storage/database.ts";
import { openPglite } from "../../src/storage/pglite.ts";
import { openPostgres } from "../../src/storage/postgres.ts";
import { execute } from "./postgres-server.ts";

/** What a suite gets instead of a database of one kind. All it makes is removed after the suite. */
export interface TestDatabases {
  readonly kind: Database["kind"];
  /** A fresh database that no other suite knows: with the current schema, or `empty`. */
  open(options?: { empty?: boolean }): Promise<Database>;
  /**
   * A fresh database that is not open: what a server or a child process is configured with. On PostgreSQL it
   * is migrated unless `empty`, and `dataDir` is an empty folder; on PGlite `dataDir` is an empty folder.
   */
  configure(options?: {
    empty?: boolean;
  }): Promise<{ databaseUrl: string | undefined; dataDir: string }>;
  /** Has something closed after the suite, before the databases it may use are removed. */
  defer(cleanup: () => Promise<unknown>): void;
}

/** Runs a suite on PGlite and on PostgreSQL: `describeDatabases("threads", (databases) => { ... })`. */
export function describeDatabases(name: string, suite: (databases: TestDatabases) => void): void {
  for (const kind of ["pglite", "postgres"] as const) {
    describe(`${name} on ${kind}`, () => {
      suite(createTestDatabases(kind));
    });
  }
}

/** The same for one kind only, for a suite about what is peculiar to it. Call it inside `describe`. */
export function createTestDatabases(kind: Database["kind"]): TestDatabases {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterAll(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });
  return {
    kind,
    defer: (cleanup) => void cleanups.push(cleanup),
    open: async ({ empty = false } = {}) => {
      const database =
        kind === "pglite"
          ? await openPglite({
              dataDir: "memory://",
              ...(!empty && { template: inject("pgliteTemplate") }),
            })
          : await openPostgres({ connectionString: await createDatabase(cleanups, { empty }) });
      cleanups.push(() => database.close());
      return database;
    },
    configure: async (options) => {
      const dataDir = await temporaryFolder(cleanups);
      return {
        databaseUrl: kind === "postgres" ? await createDatabase(cleanups, options) : undefined,
        dataDir,
      };
    },
  };
}

async function temporaryFolder(cleanups: (() => Promise<unknown>)[]): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), "aegra-test-"));
  cleanups.push(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

async function createDatabase(
  cleanups: (() => Promise<unknown>)[],
  { empty = false } = {},
): Promise<string> {
  const name = `aegra_test_${randomBytes(6).toString("hex")}`;
  await execute(
    inject("postgresUrl"),
    `CREATE DATABASE ${name} TEMPLATE ${empty ? "template0" : inject("postgresTemplate")}`,
  );
  cleanups.push(() => execute(inject("postgresUrl"), `DROP DATABASE ${name} WITH (FORCE)`));
  const url = new URL(inject("postgresUrl"));
  url.pathname = `/${name}`;
  return url.href;
}
