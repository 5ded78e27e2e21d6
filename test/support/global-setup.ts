import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { TestProject } from "vitest/node";
import { migrate } from "../../src/storage/migrate.ts";
import { openPglite } from "../../src/storage/pglite.ts";
import { openPostgres } from "../../src/storage/postgres.ts";
import { execute, startPostgres } from "./postgres-server.ts";
import type { PostgresServer } from "./postgres-server.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** An administrator's URL of the PostgreSQL server of this run. */
    postgresUrl: string;
    /** A migrated database on it, of which the suites' databases are copies. */
    postgresTemplate: string;
    /** A gzipped tar of a migrated PGlite. */
    pgliteTemplate: string;
    /** A folder for files of the suites, which is removed after the run. */
    scratch: string;
  }
}

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/**
 * Once per run: builds `dist/` (worker threads and child processes run it), starts PostgreSQL unless
 * `DATABASE_URL` names a server, and makes the migrated templates the suites' databases are copied from.
 */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  await build();
  const folder = await mkdtemp(join(tmpdir(), "aegra-test-"));
  const cleanups = [() => rm(folder, { recursive: true, force: true })];
  const teardown = async (): Promise<void> => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  };
  try {
    const pgliteTemplate = join(folder, "pglite.tar.gz");
    const [server] = await Promise.all([openServer(folder), createPgliteTemplate(pgliteTemplate)]);
    const postgresUrl = server.url;
    cleanups.push(server.stop);
    const postgresTemplate = `aegra_template_${randomBytes(6).toString("hex")}`;
    await createPostgresTemplate(postgresUrl, postgresTemplate);
    cleanups.push(() => execute(postgresUrl, `DROP DATABASE IF EXISTS ${postgresTemplate}`));
    project.provide("postgresUrl", postgresUrl);
    project.provide("postgresTemplate", postgresTemplate);
    project.provide("pgliteTemplate", pgliteTemplate);
    project.provide("scratch", folder);
  } catch (error) {
    await teardown();
    throw error;
  }
  return teardown;
}

/** Type errors are the type check's to report; what was emitted is what the tests run. */
async function build(): Promise<void> {
  const builtAt = await modifiedAt(join(ROOT, "dist/storage/pglite-worker.js"));
  const names = await readdir(join(ROOT, "src"), { recursive: true });
  const times = await Promise.all(names.map((name) => modifiedAt(join(ROOT, "src", name))));
  if (Math.max(...times) < builtAt) return;
  const tsc = join(ROOT, "node_modules/typescript/bin/tsc");
  await promisify(execFile)(process.execPath, [tsc, "-p", "tsconfig.build.json"], {
    cwd: ROOT,
  }).catch((error: unknown) =>
    process.stderr.write(`${String((error as { stdout?: unknown }).stdout)}\n`),
  );
}

async function modifiedAt(path: string): Promise<number> {
  return stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  );
}

async function openServer(folder: string): Promise<Pick<PostgresServer, "url" | "stop">> {
  const url = process.env["DATABASE_URL"];
  return url ? { url, stop: async () => {} } : startPostgres(folder);
}

async function createPostgresTemplate(url: string, name: string): Promise<void> {
  await execute(url, `CREATE DATABASE ${name}`);
  const database = await openPostgres({ connectionString: urlOf(url, name) });
  await migrate(database);
  await database.close();
}

async function createPgliteTemplate(path: string): Promise<void> {
  const database = await openPglite({ dataDir: "memory://" });
  await migrate(database);
  await database.dump(path);
  await database.close();
}

function urlOf(url: string, database: string): string {
  const copy = new URL(url);
  copy.pathname = `/${database}`;
  return copy.href;
}
