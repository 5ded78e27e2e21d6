import { BaseStore } from "@langchain/langgraph-checkpoint";
import type {
  Item,
  ListNamespacesOperation,
  MatchCondition,
  Operation,
  OperationResults,
  PutOperation,
  SearchOperation,
} from "@langchain/langgraph-checkpoint";
import { PostgresStore } from "@langchain/langgraph-checkpoint-postgres/store";
import type { IndexConfig, TTLConfig } from "@langchain/langgraph-checkpoint-postgres/store";
import { ServerError } from "../errors.ts";
import type { Database } from "./database.ts";

export interface StoreOptions {
  /** Semantic search: needs the `vector` extension, which PGlite brings along. */
  index?: IndexConfig | undefined;
  /** Times in minutes. Without `sweepIntervalMinutes` expired items are hidden but stay in the table. */
  ttl?: TTLConfig | undefined;
}

/**
 * LangGraph's PostgresStore over the database's own connections, for graphs and for the API. The caller
 * calls `stop`, which leaves the database open.
 *
 * @throws ServerError `startup_failed` when an index is configured and its tables cannot be made.
 */
export async function openStore(
  database: Database,
  config: StoreOptions = {},
): Promise<DatabaseStore> {
  const store = new DatabaseStore(database, config);
  if (config.index) await store.prepareIndex();
  if (config.ttl?.sweepIntervalMinutes) store.startSweeping();
  return store;
}

/** Precedes every namespace, so that the empty prefix is a prefix like any other. */
const ROOT = "/";
const LABEL_END = "/";
const OPERATORS = new Set(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$in", "$nin", "$exists"]);
const ORDERED = new Set(["$gt", "$gte", "$lt", "$lte"]);
/** What PostgreSQL says of values it cannot take: NUL characters, no number in a comparison, too long. */
const REFUSALS: Record<string, string> = {
  "22P05": "Items of the store cannot hold NUL characters.",
  "22021": "Keys and namespaces of the store cannot hold NUL characters.",
  "22P02": "An item's value is not a number, so it cannot be compared with one.",
  "54000": "The namespace and key of an item are too long together (about 2,700 bytes).",
};
const SETUP_ATTEMPTS = 5;

/**
 * PostgresStore matches a namespace prefix as the beginning of a text, so that `["user1"]` also finds
 * the items of `["user10"]`, and refuses labels with `_` or `%` to keep wildcards out. So each label is
 * given to it with an end mark and without special characters: `["user_1"]` is stored as `/:user~5f1/`.
 */
export class DatabaseStore extends BaseStore {
  readonly #database: Database;
  readonly #config: StoreOptions;
  readonly #inner: PostgresStore;

  /** Prefer `openStore`, which also prepares what the configuration needs. */
  constructor(database: Database, config: StoreOptions) {
    super();
    this.#database = database;
    this.#config = config;
    this.#inner = new PostgresStore({
      connectionOptions: {},
      ensureTables: false,
      ...(config.index && { index: config.index }),
      ...(config.ttl && { ttl: config.ttl }),
    });
    // It has no option for a pool that is there already; its own has not connected yet.
    this.#inner["core"].pool = database.pool;
  }

  override async batch<Op extends Operation[]>(operations: Op): Promise<OperationResults<Op>> {
    const results: unknown[] = [];
    for (const operation of operations) results.push(await this.#execute(operation));
    return results as OperationResults<Op>;
  }

  /** Stores an item. `ttl` is in minutes; without one the configured default applies. */
  override async put(
    namespace: string[],
    key: string,
    value: Record<string, unknown>,
    index?: false | string[],
    options?: { ttl?: number },
  ): Promise<void> {
    // For the checks of the namespace that every store makes.
    if (options === undefined) return super.put(namespace, key, value, index);
    const operation: PutOperation & { options: { ttl?: number } } = {
      namespace,
      key,
      value,
      options,
    };
    if (index !== undefined) operation.index = index;
    await this.batch([operation]);
  }

  /** Removes expired items now; resolves to their number. */
  async sweepExpiredItems(): Promise<number> {
    return this.#inner["ttlManager"].sweepExpiredItems();
  }

  /** Stops sweeping. The database stays open. */
  override stop(): void {
    this.#inner["ttlManager"].stop();
  }

  /** @internal */
  startSweeping(): void {
    this.#inner["ttlManager"].start();
  }

  /** @internal Makes the tables of semantic search; several processes may try at the same time. */
  async prepareIndex(): Promise<void> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        await this.#inner["runStoreMigrations"]();
        return;
      } catch (cause) {
        // Another process made the same table at the same moment.
        if (attempt < SETUP_ATTEMPTS && /^(?:23505|42P07|42710|XX000)$/.test(sqlState(cause)))
          continue;
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new ServerError(
          "startup_failed",
          `The store's semantic search cannot be set up on ${this.#database.location}: ${reason}. ` +
            "It needs the pgvector extension; install it, or remove store.index from the configuration.",
          { cause },
        );
      }
    }
  }

  async #execute(operation: Operation): Promise<unknown> {
    try {
      if ("namespacePrefix" in operation) return await this.#search(operation);
      if ("value" in operation) {
        await this.#inner.batch([{ ...operation, namespace: toStored(operation.namespace) }]);
        return undefined;
      }
      if ("key" in operation) {
        const [item] = await this.#inner.batch([
          { ...operation, namespace: toStored(operation.namespace) },
        ]);
        return item ? withNamespace(item) : null;
      }
      return await this.#listNamespaces(operation);
    } catch (cause) {
      const refusal = REFUSALS[sqlState(cause)];
      throw refusal === undefined ? cause : new ServerError("invalid_request", refusal, { cause });
    }
  }

  async #search(operation: SearchOperation): Promise<Item[]> {
    assertFilter(operation.filter);
    const prefix = toStored(operation.namespacePrefix);
    // Text search inside a batch takes a second connection while it holds the first.
    const items =
      operation.query !== undefined && operation.query !== "" && !this.#config.index
        ? await this.#inner.search(prefix, {
            query: operation.query,
            limit: operation.limit ?? 10,
            offset: operation.offset ?? 0,
            ...(operation.filter && { filter: operation.filter }),
          })
        : ((await this.#inner.batch([{ ...operation, namespacePrefix: prefix }]))[0] ?? []);
    return items.map(withNamespace);
  }

  /** Its own query: PostgresStore drops deeper namespaces where `maxDepth` cuts them, and knows no `*`. */
  async #listNamespaces(operation: ListNamespacesOperation): Promise<string[][]> {
    const { matchConditions = [], maxDepth, limit, offset } = operation;
    const prefix = matchConditions.find(({ matchType }) => matchType === "prefix")?.path ?? [];
    const wildcard = prefix.indexOf("*");
    const { rows } = await this.#database.query<{ namespace_path: string }>(
      `SELECT DISTINCT namespace_path FROM store
      WHERE namespace_path LIKE $1 AND (expires_at IS NULL OR expires_at > CURRENT_TIMESTAMP)`,
      [`${toStored(wildcard < 0 ? prefix : prefix.slice(0, wildcard)).join(":")}%`],
    );
    const paths = new Map<string, string[]>();
    for (const { namespace_path } of rows) {
      const namespace = fromStored(namespace_path.split(":"));
      if (!matchConditions.every((condition) => matches(namespace, condition))) continue;
      const path = maxDepth === undefined ? namespace : namespace.slice(0, maxDepth);
      paths.set(toStored(path).join(":"), path);
    }
    const sorted = [...paths]
      .toSorted(([left], [right]) => (left < right ? -1 : 1))
      .map(([, path]) => path);
    return sorted.slice(offset ?? 0, (offset ?? 0) + (limit ?? sorted.length));
  }
}

function toStored(namespace: readonly string[]): string[] {
  return [ROOT, ...namespace.map((label) => label.replace(/[/~:.%_\\]/g, toEscape) + LABEL_END)];
}

function toEscape(character: string): string {
  return `~${character.charCodeAt(0).toString(16)}`;
}

function fromStored(path: readonly string[]): string[] {
  return path
    .slice(1)
    .map((label) =>
      label
        .slice(0, -LABEL_END.length)
        .replace(/~([0-9a-f]{2})/g, (_, code: string) =>
          String.fromCharCode(Number.parseInt(code, 16)),
        ),
    );
}

function withNamespace<T extends Item>(item: T): T {
  return { ...item, namespace: fromStored(item.namespace) };
}

function matches(namespace: readonly string[], { matchType, path }: MatchCondition): boolean {
  const start = matchType === "prefix" ? 0 : namespace.length - path.length;
  return (
    start >= 0 && path.every((label, index) => label === "*" || label === namespace[start + index])
  );
}

/** PostgresStore ignores operators it does not know, which would find everything. */
function assertFilter(filter: SearchOperation["filter"]): void {
  for (const [field, condition] of Object.entries(filter ?? {})) {
    if (condition === null || Array.isArray(condition)) {
      throw new ServerError(
        "invalid_request",
        `The filter on "${field}" must be a value, an object or operators.`,
      );
    }
    if (typeof condition !== "object") continue;
    for (const [operator, operand] of Object.entries(condition)) {
      if (!operator.startsWith("$")) continue;
      if (!OPERATORS.has(operator)) {
        const known = [...OPERATORS].join(", ");
        throw new ServerError(
          "invalid_request",
          `Unknown operator ${operator} in the filter on "${field}"; known are ${known}.`,
        );
      }
      if (ORDERED.has(operator) && typeof operand !== "number") {
        throw new ServerError(
          "invalid_request",
          `${operator} in the filter on "${field}" needs a number.`,
        );
      }
    }
  }
}

function sqlState(error: unknown): string {
  return error instanceof Error && "code" in error ? String(error.code) : "";
}
