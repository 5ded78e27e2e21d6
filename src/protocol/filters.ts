/** What a filter can ask of a metadata key. */
export type FilterScalar = string | number | boolean | null;

/**
 * What a resource's metadata must hold for a user to have to do with it. A scalar: the key is exactly that. An
 * array: the key is an array that holds all of these. Several keys: all of them.
 */
export type Filter = Readonly<Record<string, FilterScalar | readonly FilterScalar[]>>;

/** Whether metadata passes a filter, as `storage/conditions.ts` asks it of a row. */
export function matches(metadata: Readonly<Record<string, unknown>>, filter: Filter): boolean {
  return Object.entries(filter).every(([key, wanted]) => {
    const found = Object.hasOwn(metadata, key) ? metadata[key] : undefined;
    if (!Array.isArray(wanted)) return found === wanted;
    return Array.isArray(found) && wanted.every((item) => found.includes(item));
  });
}

/**
 * The key by which these values would put a resource outside a filter; `undefined` if none does. A key that is
 * not among them decides nothing: the resource keeps what it has there.
 */
export function conflictingKey(
  values: Readonly<Record<string, unknown>>,
  filter: Filter,
): string | undefined {
  return Object.entries(filter).find(
    ([key, wanted]) => Object.hasOwn(values, key) && !matches(values, { [key]: wanted }),
  )?.[0];
}
