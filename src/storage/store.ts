import { BaseStore } from "@langchain/langgraph-checkpoint";
import type {
  GetOperation,
  Item,
  ListNamespacesOperation,
  Operation,
  OperationResults,
  PutOperation,
  SearchItem,
  SearchOperation,
} from "@langchain/langgraph-checkpoint";
import { ServerError } from "../errors.ts";
import { Conditions } from "./conditions.ts";
import type { Database } from "./database.ts";
import { addStoreFilter } from "./store-filter.ts";
import {
  ALIVE,
  STORE_COLUMNS,
  bestWordsFirst,
  nearestFirst,
  newestFirst,
  type StoreRow,
} from "./store-search.ts";
import {
  StoreIndex,
  writeVectors,
  type ItemVectors,
  type StoreIndexOptions,
} from "./store-index.ts";
import { fromPath, matchesNamespace, toPath } from "./store-namespaces.ts";

export interface StoreOptions {
  /** Semantic search: needs the `vector` extension, which PGlite brings along. */
  index?: StoreIndexOptions | undefined;
  ttl?:
    | {
        /** Minutes after which an item expires that names no time of its own. */
        defaultTtl?: number | undefined;
        /** Whether reading an item lets its time begin anew. Default true. */
        refreshOnRead?: boolean | undefined;
        /** How often expired items, which nobody sees any more, are removed. Default 5. */
        sweepIntervalMinutes?: number | undefined;
      }
    | undefined;
  /** Told of a sweep that failed; the next one tries again. */
  onSweepError?: ((error: unknown) => void) | undefined;
}

/**
 * The store of graphs and of the API, over the database's own connections. The caller calls `stop`, which
 * leaves the database open.
 *
 * @throws ServerError `startup_failed` when an index is configured and cannot be used.
 */
export async function openStore(
  database: Database,
  options: StoreOptions = {},
): Promise<DatabaseStore> {
  const index = options.index && new StoreIndex(options.index);
  await index?.open(database);
  const store = new DatabaseStore(database, { ...options, index });
  store.startSweeping();
  return store;
}

type Put = PutOperation & { options?: { ttl?: number | null | undefined } | undefined };
type Get = GetOperation & { refreshTtl?: boolean | undefined };
type Search = SearchOperation & { refreshTtl?: boolean | undefined };

const DEFAULT_SWEEP_MINUTES = 5;
const SWEEP_BATCH = 1_000;
/** What PostgreSQL says of values it cannot take. */
const REFUSALS: Record<string, string> = {
  "22P05": "Items of the store cannot hold NUL characters.",
  "22021": "Keys and namespaces of the store cannot hold NUL characters.",
  "54000": "The namespace and key of an item are too long together (about 2,700 bytes).",
};

/** LangGraph's store in the tables of its PostgresStore. */
export class DatabaseStore extends BaseStore {
  readonly #database: Database;
  readonly #options: Omit<StoreOptions, "index"> & { index: StoreIndex | undefined };
  #sweeping: NodeJS.Timeout | undefined;

  /** Prefer `openStore`, which also prepares what the options need. */
  constructor(
    database: Database,
    options: Omit<StoreOptions, "index"> & { index: StoreIndex | undefined },
  ) {
    super();
    this.#database = database;
    this.#options = options;
  }

  /** Whether items can be found by meaning. */
  get hasIndex(): boolean {
    return this.#options.index !== undefined;
  }

  override async batch<Op extends Operation[]>(operations: Op): Promise<OperationResults<Op>> {
    // Vectors are made before the first statement: a model takes its time, and no connection waits for it.
    const vectors = await this.#embed(operations);
    const results: unknown[] = [];
    for (const operation of operations) results.push(await this.#execute(operation, vectors));
    return results as OperationResults<Op>;
  }

  /** Stores an item. `ttl` is in minutes, null is for ever; without one the configured default applies. */
  override async put(
    namespace: string[],
    key: string,
    value: Record<string, unknown>,
    index?: false | string[],
    options?: { ttl?: number | null | undefined },
  ): Promise<void> {
    // For the checks of the namespace that every store makes.
    if (options === undefined) return super.put(namespace, key, value, index);
    const operation: Put = { namespace, key, value, options };
    if (index !== undefined) operation.index = index;
    await this.batch([operation]);
  }

  /** Reads an item. `refreshTtl` says whether its time begins anew; without it the configuration does. */
  override async get(
    namespace: string[],
    key: string,
    options: { refreshTtl?: boolean | undefined } = {},
  ): Promise<Item | null> {
    const operation: Get = { namespace, key, ...options };
    const [item] = await this.batch([operation]);
    return item ?? null;
  }

  /** Finds items. `refreshTtl` as for `get`. */
  override async search(
    namespacePrefix: string[],
    options: Omit<Search, "namespacePrefix"> = {},
  ): Promise<SearchItem[]> {
    const operation: Search = { namespacePrefix, limit: 10, offset: 0, ...options };
    const [items] = await this.batch([operation]);
    return items ?? [];
  }

  /** Lets the time of these items begin anew, if `asked`, or else the configuration, says so. */
  async refresh(
    items: readonly Pick<Item, "namespace" | "key">[],
    asked: boolean | undefined,
  ): Promise<void> {
    const wanted = asked ?? this.#options.ttl?.refreshOnRead ?? true;
    if (!wanted || items.length === 0) return;
    await this.#database.query(
      // A row that somebody else has in hand is being written or read as well, and need not be waited for.
      `UPDATE store t SET expires_at = now() + t.ttl_minutes * interval '1 minute'
       FROM (
         SELECT s.namespace_path, s.key
         FROM store s JOIN unnest($1::text[], $2::text[]) AS r (path, key)
           ON s.namespace_path = r.path AND s.key = r.key
         WHERE s.ttl_minutes IS NOT NULL AND ${ALIVE} FOR UPDATE OF s SKIP LOCKED
       ) AS found
       WHERE t.namespace_path = found.namespace_path AND t.key = found.key`,
      [items.map(({ namespace }) => toPath(namespace)), items.map(({ key }) => key)],
    );
  }

  /** Removes expired items now, a batch at a time; resolves to their number. */
  async sweepExpiredItems(): Promise<number> {
    for (let removed = 0; ;) {
      const { rowCount } = await this.#database.query(
        `DELETE FROM store WHERE (namespace_path, key) IN (
           SELECT namespace_path, key FROM store WHERE expires_at <= now()
           LIMIT ${SWEEP_BATCH} FOR UPDATE SKIP LOCKED)`,
      );
      removed += rowCount;
      if (rowCount < SWEEP_BATCH) return removed;
    }
  }

  /** Stops sweeping. The database stays open. */
  override stop(): void {
    clearInterval(this.#sweeping);
  }

  /** @internal */
  startSweeping(): void {
    const minutes = this.#options.ttl?.sweepIntervalMinutes ?? DEFAULT_SWEEP_MINUTES;
    this.#sweeping = setInterval(() => {
      this.sweepExpiredItems().catch((error: unknown) => this.#options.onSweepError?.(error));
    }, minutes * 60_000);
    this.#sweeping.unref();
  }

  async #embed(operations: readonly Operation[]): Promise<Map<Operation, ItemVectors>> {
    const { index } = this.#options;
    if (!index) return new Map();
    const puts = operations.filter((operation) => isPut(operation) && operation.value !== null);
    const vectors = await index.embedItems(
      (puts as Put[]).map((put) => ({ value: put.value, fields: put.index })),
    );
    return new Map(puts.map((put, position) => [put, vectors[position]!]));
  }

  async #execute(
    operation: Operation,
    vectors: ReadonlyMap<Operation, ItemVectors>,
  ): Promise<unknown> {
    try {
      if ("namespacePrefix" in operation) return await this.#search(operation);
      if (isPut(operation)) return await this.#put(operation, vectors.get(operation));
      if ("key" in operation) return await this.#get(operation);
      return await this.#listNamespaces(operation);
    } catch (cause) {
      const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
      const refusal = REFUSALS[code];
      throw refusal === undefined ? cause : new ServerError("invalid_request", refusal, { cause });
    }
  }

  async #put(operation: Put, vectors: ItemVectors | undefined): Promise<void> {
    const path = toPath(operation.namespace);
    const { key, value, options } = operation;
    if (value === null) {
      const text = "DELETE FROM store WHERE namespace_path = $1 AND key = $2";
      await this.#database.query(text, [path, key]);
      return;
    }
    const ttl = options?.ttl === undefined ? this.#options.ttl?.defaultTtl : options.ttl;
    const params = [path, key, JSON.stringify(value), ttl || null];
    if (!vectors) {
      await this.#database.query(PUT, params);
      return;
    }
    await this.#database.transaction(async (tx) => {
      // The item's row is locked by this, so that two writers of it do not mix their vectors.
      await tx.query(PUT, params);
      await writeVectors(tx, { path, key, vectors });
    });
  }

  async #get(operation: Get): Promise<Item | null> {
    const path = toPath(operation.namespace);
    const { rows } = await this.#database.query<StoreRow>(
      `SELECT ${STORE_COLUMNS} FROM store s WHERE s.namespace_path = $1 AND s.key = $2 AND ${ALIVE}`,
      [path, operation.key],
    );
    await this.#refresh(rows, operation.refreshTtl);
    return rows[0] ? toItem(rows[0]) : null;
  }

  async #search(operation: Search): Promise<SearchItem[]> {
    const { query, limit = 10, offset = 0 } = operation;
    const { index } = this.#options;
    const conditions = new Conditions()
      .add((bind) => `s.namespace_path LIKE ${bind(`${toPath(operation.namespacePrefix)}%`)}`)
      .add(() => ALIVE);
    addStoreFilter(conditions, operation.filter);
    const asked = query === undefined || query.trim() === "" ? undefined : query;
    const select =
      asked === undefined
        ? newestFirst(conditions)
        : index
          ? nearestFirst(conditions, await index.embedQuery(asked))
          : bestWordsFirst(conditions, asked);
    const { rows } = await this.#database.query<StoreRow>(
      `${select} LIMIT $${conditions.params.length + 1} OFFSET $${conditions.params.length + 2}`,
      [...conditions.params, limit, offset],
    );
    await this.#refresh(rows, operation.refreshTtl);
    return rows.map(toItem);
  }

  async #refresh(rows: readonly StoreRow[], asked: boolean | undefined): Promise<void> {
    await this.refresh(rows.filter(({ expires }) => expires).map(toItem), asked);
  }

  async #listNamespaces(operation: ListNamespacesOperation): Promise<string[][]> {
    const { matchConditions = [], maxDepth, limit, offset } = operation;
    const prefix = matchConditions.find(({ matchType }) => matchType === "prefix")?.path ?? [];
    const wildcard = prefix.indexOf("*");
    const { rows } = await this.#database.query<{ namespace_path: string }>(
      `SELECT DISTINCT s.namespace_path FROM store s WHERE s.namespace_path LIKE $1 AND ${ALIVE}`,
      [`${toPath(wildcard < 0 ? prefix : prefix.slice(0, wildcard))}%`],
    );
    const paths = new Map<string, string[]>();
    for (const { namespace_path } of rows) {
      const namespace = fromPath(namespace_path);
      if (!matchConditions.every((condition) => matchesNamespace(namespace, condition))) continue;
      const path = maxDepth === undefined ? namespace : namespace.slice(0, maxDepth);
      paths.set(toPath(path), path);
    }
    const sorted = [...paths]
      .toSorted(([left], [right]) => (left < right ? -1 : 1))
      .map(([, path]) => path);
    return sorted.slice(offset ?? 0, (offset ?? 0) + (limit ?? sorted.length));
  }
}

/** An item that had expired is not replaced: the one that comes in its place is new. */
const PUT = `
  INSERT INTO store AS s (namespace_path, key, value, ttl_minutes, expires_at)
  VALUES ($1, $2, $3::jsonb, $4::float8, now() + $4::float8 * interval '1 minute')
  ON CONFLICT (namespace_path, key) DO UPDATE SET
    value = EXCLUDED.value, ttl_minutes = EXCLUDED.ttl_minutes, expires_at = EXCLUDED.expires_at,
    created_at = CASE WHEN ${ALIVE} THEN s.created_at ELSE now() END, updated_at = now()`;

function isPut(operation: Operation): operation is Put {
  return "value" in operation;
}

function toItem(row: StoreRow): SearchItem {
  return {
    namespace: fromPath(row.namespace_path),
    key: row.key,
    value: row.value,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
    ...(typeof row.score === "number" && { score: row.score }),
  };
}
