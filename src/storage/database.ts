import type { Pool } from "pg";

/** Anything a statement can be sent to: the database itself, or one transaction of it. */
export interface Queryable {
  /**
   * Sends one statement with positional parameters (`$1`). Arrays go as PostgreSQL arrays, objects must be
   * serialised by the caller (see `json.ts`), `undefined` is NULL. Rejects with the driver's error, whose
   * `code` is the SQLSTATE.
   */
  query<Row extends object = Record<string, unknown>>(
    text: string,
    params?: readonly unknown[],
  ): Promise<QueryResult<Row>>;
}

export interface QueryResult<Row> {
  rows: Row[];
  /** Rows a command touched; 0 where the command has no count. */
  rowCount: number;
}

export interface Subscription {
  /** Stops the notifications. Safe to call twice. */
  close(): Promise<void>;
}

/**
 * The port to PostgreSQL: real PostgreSQL over `pg`, or PGlite in this process. The same SQL runs on both,
 * so nothing above this interface may ask which one it is, except to tell the user.
 *
 * Whoever opens a database closes it. After `close` every call rejects.
 */
export interface Database extends Queryable {
  readonly kind: "postgres" | "pglite";
  /** What the start banner and `/info` show: the folder, or host and database name; never credentials. */
  readonly location: string;
  /** Whether NOTIFY is heard. Without it `listen` never calls back, and looking is all there is. */
  readonly listens: boolean;
  /**
   * A `pg` pool over the same database, for libraries that want one (LangGraph's PostgresSaver). On PGlite its clients
   * share one session: never wait for another call of this database while a transaction is open on one.
   */
  readonly pool: Pool;
  /**
   * Runs `work` in one transaction: commits what it returns, rolls back and rethrows what it throws. On
   * PGlite transactions run one after another, so `work` must only use its own `tx`.
   */
  transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T>;
  /**
   * Calls `onNotify` with the payload of each NOTIFY on `channel`. A hint, never the truth: notifications
   * are lost while a connection is being replaced, and `onReconnect` then tells the caller to look again.
   */
  listen(
    channel: string,
    onNotify: (payload: string) => void,
    onReconnect?: () => void,
  ): Promise<Subscription>;
  close(): Promise<void>;
}
