import { v5 as uuid5 } from "@langchain/core/utils/uuid";

const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gi;
const HASH = /\b[0-9a-f]{32}\b/g;
const TIME = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)/g;
const NAMESPACE = "6ba7b821-9dad-11d1-80b4-00c04fd430c8";

/**
 * A recording with all that is new in every run replaced: times by `<time>`, ids by the field they are first
 * seen in and a number, the same for the same id. Fields are put in order, so that the order in which a server
 * writes them does not matter. `known` ids have their names already; so have the assistants of graphs, whose ids
 * are the same everywhere.
 */
export function normalise(
  recording: Record<string, unknown>,
  graphs: readonly string[],
  known: ReadonlyMap<string, string>,
): unknown {
  const naming = new Naming([
    ...graphs.map((graph): [string, string] => [
      uuid5(graph, NAMESPACE),
      `<assistant of ${graph}>`,
    ]),
    ...known,
  ]);
  // Which headers there are must not decide what an id is called.
  for (const answer of Object.values(recording)) {
    const { headers: _headers, ...rest } = answer as { headers?: unknown };
    naming.replace(rest, "");
  }
  return Object.fromEntries(
    Object.entries(recording).map(([label, answer]) => [label, naming.replace(answer, "")]),
  );
}

class Naming {
  readonly #names: Map<string, string>;
  readonly #counts = new Map<string, number>();

  constructor(known: [string, string][]) {
    this.#names = new Map(known);
  }

  /** `field` is where the value was found. */
  replace(value: unknown, field: string): unknown {
    if (typeof value === "string") return this.#replaceText(value, field);
    if (typeof value !== "object" || value === null) return value;
    if (Array.isArray(value)) return value.map((item) => this.replace(item, field));
    return Object.fromEntries(
      Object.entries(value)
        .toSorted(([left], [right]) => (left < right ? -1 : 1))
        .map(([key, item]) => [
          this.#replaceText(key, `key of ${field}`),
          // Many things have an id; whose it is tells more.
          this.replace(item, key === "id" ? `id of ${field}` : key),
        ]),
    );
  }

  #replaceText(text: string, field: string): string {
    return text
      .replaceAll(TIME, "<time>")
      .replaceAll(UUID, (id) => this.#nameOf(id.toLowerCase(), field))
      .replaceAll(HASH, (id) => this.#nameOf(id, field));
  }

  #nameOf(id: string, field: string): string {
    const known = this.#names.get(id);
    if (known !== undefined) return known;
    const count = (this.#counts.get(field) ?? 0) + 1;
    this.#counts.set(field, count);
    const name = `<${field} ${count}>`;
    this.#names.set(id, name);
    return name;
  }
}
