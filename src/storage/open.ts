import { join } from "node:path";
import type { Database } from "./database.ts";
import type { StorageLog } from "./listener.ts";
import { openPglite } from "./pglite.ts";
import { openPostgres } from "./postgres.ts";

export interface OpenDatabaseOptions {
  /** A `postgres://` URL; without one, PGlite is used. */
  databaseUrl?: string | undefined;
  /** The server's own folder, such as `.aegra`: PGlite lives in its `pglite` folder. Or `memory://`. */
  dataDir: string;
  /** Connections of the PostgreSQL pool. Default 10. */
  maxConnections?: number | undefined;
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
    const { databaseUrl: connectionString, maxConnections } = options;
    return openPostgres({
      connectionString,
      ...(maxConnections !== undefined && { maxConnections }),
      ...log,
    });
  }
  const { dataDir } = options;
  return openPglite({
    dataDir: dataDir === "memory://" ? dataDir : join(dataDir, "pglite"),
    ...log,
  });
}
