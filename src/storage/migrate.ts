import { createHash } from "node:crypto";
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ServerError } from "../errors.ts";
import type { Database, Queryable } from "./database.ts";

export interface MigrateOptions {
  /** The folder with the numbered SQL files. Default: the package's `migrations`. */
  folder?: string;
}

interface Migration {
  /** The file's name without `.sql`, such as `0001_initial`. */
  name: string;
  sql: string;
  /** SHA-256 in hex of the SQL, with line ends as `\n`. */
  checksum: string;
}

/** Any number will do; it only has to be this server's own among the advisory locks of a database. */
const LOCK_KEY = 4_719_205_113;
const FILE_NAME = /^\d{4}_[a-z0-9_]+\.sql$/;

/**
 * Brings the schema up to this build: each new file in a transaction of its own, in the order of its number.
 * Any number of processes may do so at once; all but one wait and then find nothing left.
 *
 * @returns The names of the migrations that this call applied.
 * @throws ServerError `startup_failed` when an applied file had another text, or when the database has
 * migrations that this build does not know.
 */
export async function migrate(
  database: Database,
  options: MigrateOptions = {},
): Promise<{ applied: string[] }> {
  const folder = options.folder ?? fileURLToPath(new URL("../../migrations", import.meta.url));
  const migrations = await readMigrations(folder);
  const applied: string[] = [];
  for (;;) {
    const name = await database.transaction((tx) => applyNext(tx, migrations, database));
    if (name === undefined) return { applied };
    applied.push(name);
  }
}

/** The lock ends with the transaction, so a process that dies leaves none, and poolers do not matter. */
async function applyNext(
  tx: Queryable,
  migrations: Migration[],
  database: Database,
): Promise<string | undefined> {
  await tx.query("SELECT pg_advisory_xact_lock($1)", [LOCK_KEY]);
  await tx.query(
    `CREATE TABLE IF NOT EXISTS aegra_migrations (
       name text PRIMARY KEY,
       checksum text NOT NULL,
       applied_at timestamptz NOT NULL DEFAULT now()
     )`,
  );
  const { rows } = await tx.query<{ name: string; checksum: string }>(
    "SELECT name, checksum FROM aegra_migrations ORDER BY name",
  );
  const done = new Map(rows.map(({ name, checksum }) => [name, checksum]));
  assertKnown(migrations, done, database);
  const next = migrations.find(({ name }) => !done.has(name));
  if (!next) return undefined;
  try {
    await tx.query(next.sql);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ServerError(
      "startup_failed",
      `Migration ${next.name} failed on the database at ${database.location} and was rolled back: ${reason}`,
      { cause: error },
    );
  }
  await tx.query("INSERT INTO aegra_migrations (name, checksum) VALUES ($1, $2)", [
    next.name,
    next.checksum,
  ]);
  return next.name;
}

function assertKnown(
  migrations: Migration[],
  done: Map<string, string>,
  { kind, location }: Database,
): void {
  const known = new Map(migrations.map(({ name, checksum }) => [name, checksum]));
  const unknown = [...done.keys()].filter((name) => !known.has(name));
  if (unknown.length > 0) {
    throw new ServerError(
      "startup_failed",
      `The database at ${location} has migrations that this version of aegra does not know ` +
        `(${unknown.join(", ")}): a newer version has used it. Start that version or a later one.`,
    );
  }
  const edited = [...done].filter(([name, checksum]) => known.get(name) !== checksum);
  if (edited.length > 0) {
    const setting =
      kind === "pglite" ? "AEGRA_DATA_DIR to another folder" : "DATABASE_URL to an empty one";
    throw new ServerError(
      "startup_failed",
      `The database at ${location} was made by another build of aegra, with another text of ` +
        `${edited.map(([name]) => name).join(", ")}. Start that build, or use a new database: set ${setting}; ` +
        "what is in the old one stays there. If you edited the file, restore it.",
    );
  }
}

async function readMigrations(folder: string): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith(".sql")).toSorted();
  const odd = names.find((name) => !FILE_NAME.test(name));
  if (odd !== undefined)
    throw new Error(`${join(folder, odd)} is not named like 0001_what_it_does.sql`);
  return Promise.all(
    names.map(async (file) => {
      const sql = (await readFile(join(folder, file), "utf8")).replaceAll("\r\n", "\n");
      const checksum = createHash("sha256").update(sql).digest("hex");
      return { name: file.slice(0, -".sql".length), sql, checksum };
    }),
  );
}
