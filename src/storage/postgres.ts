import { Client, Pool } from "pg";
import type { ClientConfig } from "pg";
import { ServerError } from "../errors.ts";
import type { Database } from "./database.ts";
import type { StorageLog } from "./listener.ts";
import { DatabaseAway } from "./persistence.ts";
import { PoolDatabase } from "./pool-database.ts";

export interface PostgresOptions {
  /** A `postgres://` URL, as in `DATABASE_URL`. */
  connectionString: string;
  /** Connections of the pool; one more is used for LISTEN. Default 10. */
  maxConnections?: number | undefined;
  /** The same server without a pooler in between, for LISTEN. Default: `connectionString`. */
  directUrl?: string | undefined;
  /** Whether NOTIFY is heard. Default true; set false where no connection keeps its session. */
  listen?: boolean | undefined;
  /** Shown in `pg_stat_activity`. Default "aegra". */
  applicationName?: string;
  /**
   * Whether statements are prepared once per connection. Default true; set false behind a pooler that
   * hands a transaction's connection to others and knows no prepared statements (PgBouncer before 1.21).
   */
  prepareStatements?: boolean | undefined;
  /** After how many milliseconds a statement without an answer is looked after. Default 15,000. */
  silentMs?: number | undefined;
  log?: StorageLog;
}

const OLDEST_MAJOR = 14;
const CONNECT_TIMEOUT_MS = 10_000;
const IDLE_TIMEOUT_MS = 60_000;
const HEARTBEAT_MS = 15_000;
const SILENT_MS = 15_000;

/**
 * Opens a pool to a PostgreSQL server, 14 or newer, and proves that it answers. The caller closes it.
 *
 * @throws ServerError `startup_failed`, with the host, port and database but never the password, when the
 * URL cannot be read, the server cannot be reached or refuses the login, or is too old.
 */
export async function openPostgres(options: PostgresOptions): Promise<Database> {
  const config: ClientConfig = {
    connectionString: options.connectionString,
    application_name: options.applicationName ?? "aegra",
    connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
    keepAlive: true,
    pipeline: true,
  };
  const target = parseTarget(config);
  const { silentMs = SILENT_MS } = options;
  const pool = new Pool({
    ...config,
    max: options.maxConnections ?? 10,
    idleTimeoutMillis: IDLE_TIMEOUT_MS,
  });
  const database = new PoolDatabase({
    kind: "postgres",
    location: `${target.host}:${target.port}/${target.database}`,
    pool,
    // A connection that is made but answers nothing must not hold up the next attempt.
    createListenClient: () =>
      new Client({
        ...config,
        connectionString: options.directUrl ?? options.connectionString,
        query_timeout: HEARTBEAT_MS,
      }),
    listens: options.listen ?? true,
    heartbeatMs: HEARTBEAT_MS,
    silence: {
      silentMs,
      createProbe: () =>
        new Client({ ...config, connectionTimeoutMillis: silentMs, query_timeout: silentMs }),
    },
    prepare: options.prepareStatements ?? true,
    log: options.log ?? (() => {}),
  });
  try {
    await assertServerVersion(database, target);
  } catch (error) {
    await database.close();
    if (error instanceof ServerError) throw error;
    throw refused(error instanceof DatabaseAway ? error.cause : error, target);
  }
  return database;
}

interface Target {
  host: string;
  port: number;
  database: string;
  user: string;
}

function parseTarget(config: ClientConfig): Target {
  try {
    const { host, port, database = "", user = "" } = new Client(config);
    return { host, port, database, user };
  } catch {
    // No cause: the parser's error carries the whole URL, password included.
    throw new ServerError(
      "startup_failed",
      "DATABASE_URL cannot be read. It has the form postgres://user:password@host:5432/database; " +
        "characters such as @ : / # in the password must be percent-encoded.",
    );
  }
}

async function assertServerVersion(database: Database, target: Target): Promise<void> {
  const { rows } = await database.query<{ number: string; name: string }>(
    "SELECT current_setting('server_version_num') AS number, current_setting('server_version') AS name",
  );
  const [version] = rows;
  if (version && Number(version.number) < OLDEST_MAJOR * 10_000) {
    throw new ServerError(
      "startup_failed",
      `PostgreSQL at ${target.host}:${target.port} is version ${version.name}; ${OLDEST_MAJOR} or newer is needed.`,
    );
  }
}

/** Says what a refused connection means and what to do, by SQLSTATE or socket error. */
function refused(error: unknown, target: Target): ServerError {
  const { host, port, database, user } = target;
  const code = errorCode(error);
  const reason = error instanceof Error ? error.message : String(error);
  const advice: Record<string, string> = {
    ECONNREFUSED:
      "nothing listens there. Start PostgreSQL, or correct host and port in DATABASE_URL.",
    ENOTFOUND: "the host name is unknown. Correct the host in DATABASE_URL.",
    EAI_AGAIN:
      "the host name could not be looked up. Check the host in DATABASE_URL and the network.",
    ENOENT: "there is no such socket. Correct the host in DATABASE_URL.",
    ETIMEDOUT: "it does not answer. Check host, port and firewall.",
    "28P01": `the password of user "${user}" was refused. Correct it in DATABASE_URL.`,
    "28000": `user "${user}" may not log in (${reason}).`,
    "3D000": `the database does not exist. Create it (createdb ${database}), or correct its name in DATABASE_URL.`,
    "53300":
      "the server has no free connection. Raise its max_connections, or lower this server's.",
  };
  const timedOut = /timeout/i.test(reason) ? advice["ETIMEDOUT"] : undefined;
  return new ServerError(
    "startup_failed",
    `Cannot connect to PostgreSQL at ${host}:${port}, database "${database}": ` +
      (advice[code] ?? timedOut ?? `${reason || code}. Check DATABASE_URL.`),
    { cause: error },
  );
}

/** Node reports a name with several addresses as one error that holds theirs. */
function errorCode(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return errorCode(error.errors[0]);
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
