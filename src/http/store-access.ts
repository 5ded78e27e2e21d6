import type { BaseStore, Item, SearchItem } from "@langchain/langgraph-checkpoint";
import { ServerError } from "../errors.ts";
import { matches, type Filter } from "../protocol/filters.ts";
import type { DatabaseStore } from "../storage/store.ts";

/** How many items are looked at for one page of those that pass a filter. */
const MAX_SCANNED = 10_000;
const SCAN_PAGE = 1_000;

type SearchOptions = NonNullable<Parameters<DatabaseStore["search"]>[1]>;
type ListOptions = NonNullable<Parameters<BaseStore["listNamespaces"]>[0]>;

/**
 * The store as far as an authorization filter lets see it. A filter is asked of an item's value, and of its
 * `namespace` and `key` under these names. An item that does not pass is as good as absent.
 */
export class StoreAccess {
  readonly #store: DatabaseStore;
  readonly #filter: Filter | undefined;

  constructor(store: DatabaseStore, filter: Filter | undefined) {
    this.#store = store;
    this.#filter = filter;
  }

  async get(
    namespace: string[],
    key: string,
    options: { refreshTtl?: boolean | undefined } = {},
  ): Promise<Item | null> {
    if (!this.#filter) return this.#store.get(namespace, key, options);
    const item = await this.#look(namespace, key);
    if (!item || !this.#passes(item)) return null;
    await this.#store.refresh([item], options.refreshTtl);
    return item;
  }

  /** Throws `not_found` where somebody else's item has this place, `forbidden` where the new one would not pass. */
  async put(
    item: { namespace: string[]; key: string; value: Record<string, unknown> },
    write: () => Promise<void>,
  ): Promise<void> {
    if (this.#filter) {
      const existing = await this.#look(item.namespace, item.key);
      if (existing && !this.#passes(existing)) throw new ServerError("not_found", "Item not found");
      if (!this.#passes(item))
        throw new ServerError("forbidden", "This item is not yours to write.");
    }
    await write();
  }

  async delete(namespace: string[], key: string): Promise<void> {
    if (this.#filter && !(await this.get(namespace, key, { refreshTtl: false }))) return;
    await this.#store.delete(namespace, key);
  }

  /** Without letting its time begin anew: it may be somebody else's. */
  #look(namespace: string[], key: string): Promise<Item | null> {
    return this.#store.get(namespace, key, { refreshTtl: false });
  }

  /** Throws `invalid_request` where too many items of others would have to be looked through. */
  async search(prefix: string[], options: SearchOptions): Promise<SearchItem[]> {
    if (!this.#filter) return this.#store.search(prefix, options);
    const items = await this.#page(
      options,
      (page) => this.#store.search(prefix, { ...options, ...page, refreshTtl: false }),
      (item) => this.#passes(item),
    );
    await this.#store.refresh(items, options.refreshTtl);
    return items;
  }

  /** Throws `invalid_request` where too many namespaces of others would have to be looked through. */
  listNamespaces(options: ListOptions): Promise<string[][]> {
    return this.#page(
      options,
      (page) => this.#store.listNamespaces({ ...options, ...page }),
      (namespace) => !this.#filter || matches({ namespace }, this.#filter),
    );
  }

  #passes(item: { namespace: string[]; key: string; value: Record<string, unknown> }): boolean {
    const { namespace, key, value } = item;
    return !this.#filter || matches({ ...value, namespace, key }, this.#filter);
  }

  async #page<T>(
    { limit = 10, offset = 0 }: { limit?: number | undefined; offset?: number | undefined },
    read: (page: { limit: number; offset: number }) => Promise<T[]>,
    passes: (row: T) => boolean,
  ): Promise<T[]> {
    if (!this.#filter) return read({ limit, offset });
    const found: T[] = [];
    for (let scanned = 0; scanned < MAX_SCANNED; scanned += SCAN_PAGE) {
      const rows = await read({ limit: SCAN_PAGE, offset: scanned });
      found.push(...rows.filter(passes));
      if (found.length >= offset + limit || rows.length < SCAN_PAGE) {
        return found.slice(offset, offset + limit);
      }
    }
    throw new ServerError(
      "invalid_request",
      `More than ${MAX_SCANNED} items would have to be looked through. Narrow the namespace or the filter.`,
    );
  }
}
