import { AsyncLocalStorage } from "node:async_hooks";
import { types } from "pg";
import type { Client, Pool, PoolClient, QueryConfig, QueryResult as PgResult } from "pg";
import { ServerError } from "../errors.ts";
import type { Database, Queryable, QueryResult, Subscription } from "./database.ts";
import { Listener } from "./listener.ts";
import type { StorageLog } from "./listener.ts";
import { DatabaseAway, DatabaseClosed, isUnreachable } from "./persistence.ts";
import { Reachability } from "./reachability.ts";
import { SilenceWatch, type SilenceWatchOptions } from "./silence-watch.ts";

export interface PoolDatabaseOptions {
  kind: Database["kind"];
  location: string;
  pool: Pool;
  /** A new, unconnected client outside the pool, for LISTEN. */
  createListenClient: () => Client;
  /** Whether NOTIFY is heard; without it no connection is made for it. */
  listens: boolean;
  /** How often the LISTEN connection is proved alive; 0 where it cannot break. */
  heartbeatMs: number;
  /** After how long a statement without an answer is looked after, and with what; not where connections cannot break. */
  silence?: SilenceWatchOptions | undefined;
  /** Give statements with parameters a name, so that a connection parses each of them once. */
  prepare: boolean;
  log: StorageLog;
  /** Runs after the pool has ended. */
  afterClose?: () => Promise<void>;
}

/** Statements a connection keeps prepared. Texts beyond it are sent unprepared: they are built, not written. */
const MAX_PREPARED_PER_CONNECTION = 300;
const INT8 = 20;

interface OpenTransaction {
  database: PoolDatabase;
  open: boolean;
}

/** The database port over a `pg` pool; what is PGlite's or PostgreSQL's own is in `options`. */
export class PoolDatabase implements Database {
  readonly kind: Database["kind"];
  readonly location: string;
  readonly listens: boolean;
  readonly pool: Pool;
  readonly #options: PoolDatabaseOptions;
  readonly #listener: Listener;
  readonly #reachability: Reachability;
  readonly #silence: SilenceWatch | undefined;
  /** When each connection was made; milliseconds since 1970. */
  readonly #made = new WeakMap<PoolClient, number>();
  readonly #prepared = new WeakMap<object, Map<string, string>>();
  readonly #inTransaction = new AsyncLocalStorage<OpenTransaction>();
  #connectionCount = 0;
  #closing: Promise<void> | undefined;

  constructor(options: PoolDatabaseOptions) {
    this.#options = options;
    this.kind = options.kind;
    this.location = options.location;
    this.listens = options.listens;
    this.pool = options.pool;
    this.#listener = new Listener({
      createClient: options.createListenClient,
      heartbeatMs: options.heartbeatMs,
      log: options.log,
    });
    this.#reachability = new Reachability(options.log);
    this.#silence = options.silence && new SilenceWatch(options.silence);
    // For as long as the connection lives. A server that ends one may say so in the very packet that makes it
    // ready, before anybody who asked for it can listen; an error nobody listens to ends the process.
    this.pool.on("connect", (client) => {
      client.on("error", ignore);
      this.#made.set(client, Date.now());
      this.#reachability.connected();
    });
    this.pool.on("error", (error) => this.#reachability.lost(error));
  }

  async query<Row extends object = Record<string, unknown>>(
    text: string,
    params?: readonly unknown[],
  ): Promise<QueryResult<Row>> {
    this.#assertOutsideTransaction();
    const client = await this.#connect();
    try {
      const result = await this.#sendPersistently<Row>(client, text, params);
      client.release();
      return result;
    } catch (error) {
      client.release(isConnectionLoss(error));
      throw error;
    }
  }

  async transaction<T>(work: (tx: Queryable) => Promise<T>): Promise<T> {
    this.#assertOutsideTransaction();
    const client = await this.#connect();
    const scope: OpenTransaction = { database: this, open: true };
    let broken = false;
    try {
      // Not awaited: it travels with the first statement. If it fails, so does that one.
      client.query("BEGIN").catch(() => {});
      const tx: Queryable = {
        query: async <Row extends object>(text: string, params?: readonly unknown[]) => {
          if (!scope.open)
            throw new Error("This transaction has ended; its tx cannot be used again.");
          return this.#send<Row>(client, text, params);
        },
      };
      const value = await this.#inTransaction.run(scope, () => work(tx));
      scope.open = false;
      // PostgreSQL answers the COMMIT of a failed transaction with a rollback that is not an error.
      const { command } = await this.#answer(client, client.query("COMMIT"));
      if (command === "ROLLBACK") {
        throw new Error(
          "The transaction was rolled back: a statement in it failed and its error was ignored.",
        );
      }
      return value;
    } catch (error) {
      scope.open = false;
      broken = isConnectionLoss(error);
      if (!broken) {
        await client.query("ROLLBACK").catch(() => {
          broken = true;
        });
      }
      throw error;
    } finally {
      client.release(broken);
    }
  }

  async listen(
    channel: string,
    onNotify: (payload: string) => void,
    onReconnect?: () => void,
  ): Promise<Subscription> {
    this.#assertOpen();
    if (!this.listens) return { close: async () => {} };
    try {
      return await this.#listener.subscribe(channel, onNotify, onReconnect);
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new ServerError(
        "startup_failed",
        `Cannot LISTEN on the database: ${reason}. Check DATABASE_DIRECT_URL, or do without (DATABASE_LISTEN=false).`,
        { cause },
      );
    }
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      this.#silence?.close();
      await this.#listener.close();
      await this.pool.end();
      await this.#options.afterClose?.();
    })();
    return this.#closing;
  }

  #assertOpen(): void {
    if (this.#closing) throw new DatabaseClosed();
  }

  /** On PGlite the call would wait for the transaction that waits for it; on PostgreSQL it would not be part of it. */
  #assertOutsideTransaction(): void {
    this.#assertOpen();
    const scope = this.#inTransaction.getStore();
    if (scope?.open && scope.database === this) {
      throw new Error("Inside a transaction only its own tx may be used, not the database.");
    }
  }

  async #connect(): Promise<PoolClient> {
    try {
      for (;;) {
        const client = await this.pool.connect();
        if ((this.#made.get(client) ?? 0) >= (this.#silence?.brokenAt ?? 0)) return client;
        // As old as one on which nobody answered.
        client.release(true);
      }
    } catch (error) {
      if (!isUnreachable(error)) throw error;
      this.#reachability.failed(error);
      throw new DatabaseAway(error);
    }
  }

  /** An answer of the database; rejects with `DatabaseAway` if its connection is lost meanwhile. */
  async #answer<Answer>(client: PoolClient, answer: Promise<Answer>): Promise<Answer> {
    try {
      const given = await (this.#silence?.follow(client, answer) ?? answer);
      this.#reachability.answered();
      return given;
    } catch (error) {
      if (!isConnectionLoss(error)) throw error;
      this.#reachability.lost(error);
      throw new DatabaseAway(error);
    }
  }

  /**
   * A statement of its own that was chosen to end a deadlock has changed nothing, so it is sent again. Runs that
   * end have their row and wait for their thread's, and whoever deletes a thread has it the other way round.
   */
  async #sendPersistently<Row extends object>(
    client: PoolClient,
    text: string,
    params: readonly unknown[] | undefined,
  ): Promise<QueryResult<Row>> {
    for (let tries = 1; ; tries += 1) {
      try {
        return await this.#send<Row>(client, text, params);
      } catch (error) {
        if ((error as { code?: unknown }).code !== DEADLOCK || tries === DEADLOCK_TRIES)
          throw error;
      }
    }
  }

  async #send<Row extends object>(
    client: PoolClient,
    text: string,
    params: readonly unknown[] = [],
  ): Promise<QueryResult<Row>> {
    const config: QueryConfig = { text, types: PORT_TYPES };
    if (params.length > 0) {
      config.values = params as unknown[];
      const name = this.#options.prepare ? this.#statementName(client, text) : undefined;
      if (name !== undefined) config.name = name;
    }
    const answer: PgResult<Row> | PgResult<Row>[] = await this.#answer(
      client,
      client.query<Row>(config),
    );
    // Several statements in one text, as migrations have, are answered by several results.
    const { rows, rowCount } = Array.isArray(answer) ? lastOf(answer) : answer;
    return { rows, rowCount: rowCount ?? 0 };
  }

  /** Names carry the connection's number: on PGlite all connections share one session, and its names. */
  #statementName(client: PoolClient, text: string): string | undefined {
    let names = this.#prepared.get(client);
    if (!names) {
      this.#connectionCount += 1;
      names = new Map([["", String(this.#connectionCount)]]);
      this.#prepared.set(client, names);
    }
    const known = names.get(text);
    if (known !== undefined) return known;
    if (names.size > MAX_PREPARED_PER_CONNECTION) return undefined;
    const name = `aegra_${names.get("")}_${names.size}`;
    names.set(text, name);
    return name;
  }
}

const DEADLOCK = "40P01";
/** Each costs the second after which PostgreSQL looks for deadlocks. */
const DEADLOCK_TRIES = 5;
const DEFAULT_TYPES: { getTypeParser(oid: number, format?: string): unknown } = types;

/** Counts and sequence numbers are numbers as long as a number can hold them. */
const PORT_TYPES: NonNullable<QueryConfig["types"]> = {
  getTypeParser: (oid: number, format?: "text" | "binary") => {
    return oid === INT8 ? parseInt8 : DEFAULT_TYPES.getTypeParser(oid, format);
  },
};

function parseInt8(value: string): number | string {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function lastOf<Item>(items: Item[]): Item {
  const last = items.at(-1);
  if (last === undefined) throw new Error("The statement was empty.");
  return last;
}

const ignore = (): void => {};

/** Errors without a SQLSTATE come from the connection, and so do those of class 08 and 57P, and a socket's. */
function isConnectionLoss(error: unknown): error is Error {
  if (error instanceof DatabaseAway) return true;
  if (!(error instanceof Error)) return false;
  const code: unknown = "code" in error ? error.code : undefined;
  if (typeof code !== "string")
    return /Connection terminated|Client has encountered/.test(error.message);
  return /^(?:08|57P|E(?:CONN|PIPE$|TIMEDOUT$|HOST|NET|NOTCONN$))/.test(code);
}
