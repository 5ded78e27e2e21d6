import { join } from "node:path";
import type { Config } from "../config/schema.ts";
import type { Database, Queryable } from "./database.ts";
import type { StorageLog } from "./listener.ts";
import { openPglite } from "./pglite.ts";
import { openPostgres } from "./postgres.ts";

/** The options of a configured database. */
export function toOpenOptions(database: Config["database"]): OpenDatabaseOptions {
  return {
    databaseUrl: database.url,
    dataDir: database.dataDir,
    directUrl: database.directUrl,
    maxConnections: database.poolSize,
    listen: database.listen,
    prepareStatements: database.preparedStatements,
  };
}

export interface OpenDatabaseOptions {
  /** A `postgres://` URL; without one, PGlite is used. */
  databaseUrl?: string | undefined;
  /** The server's own folder, such as `.aegra`: PGlite lives in its `pglite` folder. Or `memory://`. */
  dataDir: string;
  /** Connections of the PostgreSQL pool. Default 10. */
  maxConnections?: number | undefined;
  /** PostgreSQL without a pooler in between, for LISTEN. */
  directUrl?: string | undefined;
  /** Whether NOTIFY is heard; default true. */
  listen?: boolean | undefined;
  /** Whether statements are prepared once for each connection; default true. */
  prepareStatements?: boolean | undefined;
  log?: StorageLog | undefined;
}

/**
 * Opens the database that is configured. It is not migrated; the caller does that (`migrate`) and closes it.
 *
 * @throws ServerError `startup_failed`, as `openPostgres` and `openPglite` do.
 */
export async function openDatabase(options: OpenDatabaseOptions): Promise<Database> {
  const log = options.log && { log: options.log };
  if (options.databaseUrl !== undefined) {
    const { databaseUrl: connectionString, directUrl, ...settings } = options;
    return openPostgres({
      connectionString,
      directUrl,
      maxConnections: settings.maxConnections,
      listen: settings.listen,
      prepareStatements: settings.prepareStatements,
      ...log,
    });
  }
  const { dataDir } = options;
  return openPglite({
    dataDir: dataDir === "memory://" ? dataDir : join(dataDir, "pglite"),
    ...log,
  });
}

/** Whether the database answers within that time. */
export async function answers(database: Queryable, timeoutMs: number): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  const answered = database.query("SELECT 1").then(
    () => true,
    () => false,
  );
  return Promise.race([answered, late]).finally(() => clearTimeout(timer));
}
