import type { Conditions } from "./conditions.ts";

export interface StoreRow {
  namespace_path: string;
  key: string;
  value: Record<string, unknown>;
  created_at: Date;
  updated_at: Date;
  /** Whether it has a time to live. */
  expires: boolean;
  score?: number;
}

export const STORE_COLUMNS =
  "s.namespace_path, s.key, s.value, s.created_at, s.updated_at, s.ttl_minutes IS NOT NULL AS expires";
export const ALIVE = "(s.expires_at IS NULL OR s.expires_at > now())";
const TIES = "s.namespace_path, s.key";

export function newestFirst(conditions: Conditions): string {
  return `SELECT ${STORE_COLUMNS} FROM store s ${conditions.sql} ORDER BY s.created_at DESC, ${TIES}`;
}

/** By the nearest of an item's vectors. One that is older than its item is of a value the item has no more. */
export function nearestFirst(conditions: Conditions, vector: string): string {
  let distance = "";
  conditions.add((bind) => {
    distance = `min(v.embedding <=> ${bind(vector)}::vector)`;
    return "v.created_at >= s.updated_at";
  });
  return `SELECT ${STORE_COLUMNS}, 1 - ${distance} AS score
    FROM store s JOIN store_vectors v ON v.namespace_path = s.namespace_path AND v.key = s.key
    ${conditions.sql} GROUP BY s.namespace_path, s.key ORDER BY ${distance}, ${TIES}`;
}

/** Without an index a question is a search for its words. */
export function bestWordsFirst(conditions: Conditions, query: string): string {
  let rank = "";
  conditions.add((bind) => {
    const words = `to_tsvector('english', s.value::text)`;
    const asked = `plainto_tsquery('english', ${bind(query)}::text)`;
    rank = `ts_rank(${words}, ${asked})`;
    const literal = query.replaceAll(/[\\%_]/g, String.raw`\$&`);
    return `(${words} @@ ${asked} OR s.value::text ILIKE ${bind(`%${literal}%`)})`;
  });
  return `SELECT ${STORE_COLUMNS}, ${rank} AS score FROM store s ${conditions.sql}
    ORDER BY ${rank} DESC, s.updated_at DESC, ${TIES}`;
}
