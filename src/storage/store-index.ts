import { ServerError } from "../errors.ts";
import type { Database, Queryable } from "./database.ts";

/** What makes vectors of texts: a function, or LangChain's Embeddings. */
export type Embed =
  | ((texts: string[]) => number[][] | Promise<number[][]>)
  | {
      embedDocuments(texts: string[]): Promise<number[][]>;
      embedQuery(text: string): Promise<number[]>;
    };

export interface StoreIndexOptions {
  /** How many numbers a vector has. */
  dims: number;
  embed: Embed;
  /** Which fields of an item are found by meaning; `$` is the whole item, and the default. */
  fields?: readonly string[] | undefined;
}

/** The vectors of an item. Empty for one that is not to be found by meaning. */
export interface ItemVectors {
  fields: string[];
  texts: string[];
  vectors: string[];
}

const WHOLE = ["$"];
const SETUP_ATTEMPTS = 5;
/** What PostgreSQL says to the second of two processes that make the same thing at the same moment. */
const MADE_BY_ANOTHER = /^(?:23505|42P07|42710|XX000)$/;

/**
 * Vectors of the store's items, in the table of LangGraph's PostgresStore. There is no approximate index on it:
 * a search compares every vector under its prefix, so that it never misses one, and vectors may be of any size.
 */
export class StoreIndex {
  readonly #options: StoreIndexOptions;

  constructor(options: StoreIndexOptions) {
    this.#options = options;
  }

  /** The fields to embed of each item, in one call of the model. `fields` false is an item without vectors. */
  async embedItems(
    items: readonly { value: unknown; fields: false | readonly string[] | undefined }[],
  ): Promise<ItemVectors[]> {
    const parts = items.map(({ value, fields }) =>
      fields === false ? [] : toTexts(value, fields ?? this.#options.fields ?? WHOLE),
    );
    const texts = parts.flat().map(({ text }) => text);
    const vectors = texts.length === 0 ? [] : await this.#embed(texts);
    let used = 0;
    return parts.map((own) => ({
      fields: own.map(({ field }) => field),
      texts: own.map(({ text }) => text),
      vectors: own.map(() => toVector(vectors[used++]!)),
    }));
  }

  /** The vector of a question, as PostgreSQL reads it. */
  async embedQuery(query: string): Promise<string> {
    const { embed } = this.#options;
    const vector = await attempt(async () =>
      typeof embed === "function" ? (await embed([query]))[0] : embed.embedQuery(query),
    );
    return toVector(this.#checked(vector));
  }

  async #embed(texts: string[]): Promise<number[][]> {
    const { embed } = this.#options;
    const vectors = await attempt(async () =>
      typeof embed === "function" ? embed(texts) : embed.embedDocuments(texts),
    );
    if (vectors.length !== texts.length) {
      throw new ServerError(
        "unavailable",
        `store.index.embed made ${vectors.length} vectors of ${texts.length} texts.`,
      );
    }
    return vectors.map((vector) => this.#checked(vector));
  }

  #checked(vector: number[] | undefined): number[] {
    const { dims } = this.#options;
    if (vector?.length === dims) return vector;
    throw new ServerError(
      "unavailable",
      `store.index.embed makes vectors of ${vector?.length ?? 0} numbers, but store.index.dims is ${dims}.`,
    );
  }

  /**
   * Makes the table of vectors. Several processes may try at the same time. Rejects with `startup_failed` where
   * pgvector is missing, or the table has vectors of another size: they are not thrown away unasked.
   */
  async open(database: Database): Promise<void> {
    for (let attempts = 1; ; attempts += 1) {
      try {
        await database.query("CREATE EXTENSION IF NOT EXISTS vector");
        await database.query(createTable(this.#options.dims));
        break;
      } catch (cause) {
        const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
        if (attempts < SETUP_ATTEMPTS && MADE_BY_ANOTHER.test(code)) continue;
        const reason = cause instanceof Error ? cause.message : String(cause);
        throw new ServerError(
          "startup_failed",
          `The store's semantic search cannot be set up on ${database.location}: ${reason}. ` +
            "It needs the pgvector extension; install it, or remove store.index from the configuration.",
          { cause },
        );
      }
    }
    await this.#assertSize(database);
  }

  async #assertSize(database: Database): Promise<void> {
    const { rows } = await database.query<{ dims: number }>(
      `SELECT atttypmod AS dims FROM pg_attribute
       WHERE attrelid = 'store_vectors'::regclass AND attname = 'embedding'`,
    );
    const { dims } = this.#options;
    if (!rows[0] || rows[0].dims === dims) return;
    throw new ServerError(
      "startup_failed",
      `store.index.dims is ${dims}, but the store has vectors of ${rows[0].dims} numbers, which cannot be compared with those. ` +
        `Set it back to ${rows[0].dims}, or remove the old vectors with "DROP TABLE store_vectors": each item is then found by meaning again once it is written again.`,
    );
  }
}

/** Puts an item's vectors in the place of those it had. `tx` has written the item itself before. */
export async function writeVectors(
  tx: Queryable,
  { path, key, vectors }: { path: string; key: string; vectors: ItemVectors },
): Promise<void> {
  await tx.query(
    "DELETE FROM store_vectors WHERE namespace_path = $1 AND key = $2 AND field_path <> ALL($3::text[])",
    [path, key, vectors.fields],
  );
  if (vectors.fields.length === 0) return;
  await tx.query(
    `INSERT INTO store_vectors (namespace_path, key, field_path, text_content, embedding)
     SELECT $1, $2, v.field, v.content, v.embedding::vector
     FROM unnest($3::text[], $4::text[], $5::text[]) AS v (field, content, embedding)
     ON CONFLICT (namespace_path, key, field_path) DO UPDATE SET
       text_content = EXCLUDED.text_content, embedding = EXCLUDED.embedding, created_at = now()`,
    [path, key, vectors.fields, vectors.texts, vectors.vectors],
  );
}

async function attempt<T>(embed: () => Promise<T>): Promise<T> {
  try {
    return await embed();
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new ServerError("unavailable", `store.index.embed failed: ${reason}`, { cause });
  }
}

/** The texts of an item's fields, each under the name of its vector. */
function toTexts(value: unknown, fields: readonly string[]): { field: string; text: string }[] {
  const found = fields.flatMap((field) => {
    const texts = textsAt(value, field.match(STEPS) ?? []).filter((text) => text.trim() !== "");
    return texts.map((text, index) => ({
      field: texts.length > 1 ? `${field}[${index}]` : field,
      text,
    }));
  });
  return [...new Map(found.map((part) => [part.field, part])).values()];
}

/** `a.b`, `a[0].b`, `a[-1]`, `a[*].b`, `*`, and `$` for all: the paths of LangGraph's stores. */
const STEPS = /\[(?:-?\d+|\*)\]|[^.[\]]+/g;

function textsAt(value: unknown, [step, ...rest]: readonly string[]): string[] {
  if (step === undefined) return toText(value);
  if (step === "$") return textsAt(value, rest);
  if (typeof value !== "object" || value === null) return [];
  if (step === "[*]" || step === "*") {
    return Object.values(value).flatMap((item) => textsAt(item, rest));
  }
  if (!step.startsWith("[")) {
    return Object.hasOwn(value, step) ? textsAt(Reflect.get(value, step), rest) : [];
  }
  return Array.isArray(value) ? textsAt(value.at(Number(step.slice(1, -1))), rest) : [];
}

function toText(value: unknown): string[] {
  if (value === null || value === undefined) return [];
  return [typeof value === "string" ? value : JSON.stringify(value)];
}

function toVector(numbers: readonly number[]): string {
  return `[${numbers.join(",")}]`;
}

function createTable(dims: number): string {
  return `CREATE TABLE IF NOT EXISTS store_vectors (
    namespace_path text NOT NULL,
    key text NOT NULL,
    field_path text NOT NULL,
    text_content text NOT NULL,
    embedding vector(${dims}) NOT NULL,
    created_at timestamptz DEFAULT CURRENT_TIMESTAMP,
    PRIMARY KEY (namespace_path, key, field_path),
    FOREIGN KEY (namespace_path, key) REFERENCES store (namespace_path, key) ON DELETE CASCADE
  )`;
}
