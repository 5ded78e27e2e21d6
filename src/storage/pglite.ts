import { existsSync } from "node:fs";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { Client, Pool } from "pg";
import { ServerError } from "../errors.ts";
import type { Database } from "./database.ts";
import type { StorageLog } from "./listener.ts";
import { acquireFolderLock } from "./pglite-lock.ts";
import { findTemplate } from "./pglite-template.ts";
import { PgliteThread } from "./pglite-thread.ts";
import { PoolDatabase } from "./pool-database.ts";

export interface PgliteOptions {
  /** A folder, made if it is missing, or `memory://` for a database that ends with the process. */
  dataDir: string;
  /** A gzipped tar, as `dump` writes it, to begin an empty database with. */
  template?: string;
  log?: StorageLog;
}

export interface PgliteDatabase extends Database {
  /** Writes a gzipped tar of the database's files to `path`: what `template` takes. */
  dump(path: string): Promise<void>;
}

/** PostgreSQL's major version inside PGlite. Files of another major cannot be read. */
export const PGLITE_POSTGRES_MAJOR = 18;

/** All connections share one session; several only keep it busy while answers travel between the threads. */
const CONNECTIONS = 8;

/**
 * Opens PGlite in a worker thread, on a folder that this process then owns, or in memory. The caller closes
 * it. What is committed survives a killed process, not a power failure: PGlite does not call fsync.
 *
 * @throws ServerError `startup_failed` when another process has the folder or it was written by another
 * major version.
 */
export async function openPglite(options: PgliteOptions): Promise<PgliteDatabase> {
  const log = options.log ?? (() => {});
  if (options.dataDir === "memory://") {
    const template = options.template ?? (await findTemplate());
    return connect({ dataDir: "memory://", location: "memory", template, log });
  }
  const folder = resolve(options.dataDir);
  await mkdir(folder, { recursive: true }).catch((cause: unknown) => {
    throw new ServerError(
      "startup_failed",
      `The folder ${folder} for the database cannot be made: ${(cause as Error).message}`,
      { cause },
    );
  });
  const lock = await acquireFolderLock(folder);
  try {
    const layout = await prepareFolder(folder);
    const template = layout.isNew ? (options.template ?? (await findTemplate())) : undefined;
    return await connect({
      dataDir: layout.files,
      location: folder,
      template,
      log,
      afterOpen: () => layout.finish(),
      afterClose: () => lock.release(),
    });
  } catch (error) {
    await lock.release();
    throw error;
  }
}

interface ConnectOptions {
  dataDir: string;
  location: string;
  template: string | undefined;
  log: StorageLog;
  afterOpen?: () => Promise<void>;
  afterClose?: () => Promise<void>;
}

async function connect(options: ConnectOptions): Promise<PgliteDatabase> {
  const { dataDir, template, log } = options;
  const thread = await PgliteThread.start({ dataDir, template }, (error) =>
    log("warn", "The embedded database has stopped.", { error: error.message }),
  ).catch((cause: unknown) => {
    throw new ServerError(
      "startup_failed",
      `The embedded database in ${options.location} does not start: ${String(cause)}`,
      { cause },
    );
  });
  const clientConfig = { user: "postgres", database: "postgres", ssl: false, pipeline: true };
  const pool = new Pool({
    ...clientConfig,
    max: CONNECTIONS,
    idleTimeoutMillis: 0,
    stream: () => thread.createStream(false),
  });
  const database = new PgliteOverPool({
    kind: "pglite",
    location: options.location,
    pool,
    createListenClient: () =>
      new Client({ ...clientConfig, stream: () => thread.createStream(true) }),
    listens: true,
    heartbeatMs: 0,
    prepare: true,
    log,
    afterClose: async () => {
      await thread.close();
      await options.afterClose?.();
    },
    thread,
  });
  await options.afterOpen?.();
  return database;
}

class PgliteOverPool extends PoolDatabase implements PgliteDatabase {
  readonly #thread: PgliteThread;

  constructor(options: ConstructorParameters<typeof PoolDatabase>[0] & { thread: PgliteThread }) {
    super(options);
    this.#thread = options.thread;
  }

  async dump(path: string): Promise<void> {
    // The copy then starts without replaying the log.
    await this.query("CHECKPOINT");
    await this.#thread.dump(path);
  }
}

interface Folder {
  /** Where PostgreSQL's files are. */
  files: string;
  isNew: boolean;
  /** To be called once the database has answered. */
  finish: () => Promise<void>;
}

/**
 * `version.json` is written when a new database has answered for the first time. Files without it are those
 * of a first start that was interrupted: nobody was ever told that something is stored in them.
 */
async function prepareFolder(folder: string): Promise<Folder> {
  const files = join(folder, "files");
  const record = join(folder, "version.json");
  const isNew = !existsSync(record);
  if (isNew) await rm(files, { recursive: true, force: true });
  else await assertMajor(folder, { files, record });
  return {
    files,
    isNew,
    finish: async () => {
      if (isNew)
        await writeFile(record, `${JSON.stringify({ postgres: PGLITE_POSTGRES_MAJOR })}\n`);
    },
  };
}

async function assertMajor(
  folder: string,
  paths: { files: string; record: string },
): Promise<void> {
  const record = JSON.parse(await readFile(paths.record, "utf8")) as { postgres?: unknown };
  const onDisk = await readFile(join(paths.files, "PG_VERSION"), "utf8");
  const other = [Number(record.postgres), Number(onDisk)].find(
    (major) => major !== PGLITE_POSTGRES_MAJOR,
  );
  if (other === undefined) return;
  throw new ServerError(
    "startup_failed",
    `The database in ${folder} was written by PostgreSQL ${other}; this version of aegra embeds ` +
      `PostgreSQL ${PGLITE_POSTGRES_MAJOR} and cannot read it. Start with the version of aegra that wrote it and ` +
      "export the data, or use another folder.",
  );
}
