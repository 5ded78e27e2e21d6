import type { Assistant, AssistantFilter, AssistantSearch } from "../protocol/assistants.ts";
import type { Queryable } from "./database.ts";
import { toJson } from "./json.ts";
import { Conditions } from "./conditions.ts";

const COLUMNS =
  "assistant_id, graph_id, name, description, config, context, metadata, version, created_at, updated_at";

export interface NewAssistant {
  assistant_id: string;
  graph_id: string;
  name: string;
  description: string | null;
  config: unknown;
  context: unknown;
  metadata: unknown;
}

/** Assistants in the database. */
export interface AssistantRepository {
  /** Creates it; `undefined` if one with this id exists already. */
  create(assistant: NewAssistant): Promise<Assistant | undefined>;
  get(assistantId: string): Promise<Assistant | undefined>;
  search(search: AssistantSearch): Promise<{ assistants: Assistant[]; total: number }>;
  count(filter: AssistantFilter): Promise<number>;
}

export function createAssistantRepository(database: Queryable): AssistantRepository {
  const where = (filter: AssistantFilter): Conditions => {
    const conditions = new Conditions();
    if (filter.metadata) conditions.add((p) => `metadata @> ${p(toJson(filter.metadata))}::jsonb`);
    if (filter.graph_id !== undefined) conditions.add((p) => `graph_id = ${p(filter.graph_id)}`);
    if (filter.name) {
      conditions.add((p) => `position(lower(${p(filter.name)}::text) in lower(name)) > 0`);
    }
    return conditions;
  };

  return {
    async create(assistant) {
      const { rows } = await database.query<Assistant>(
        `WITH created AS (
           INSERT INTO assistants (assistant_id, graph_id, name, description, config, context, metadata)
           VALUES ($1, $2, $3, $4, $5, $6, $7)
           ON CONFLICT (assistant_id) DO NOTHING
           RETURNING ${COLUMNS}
         ), versioned AS (
           INSERT INTO assistant_versions (assistant_id, version, graph_id, name, description, config, context, metadata)
           SELECT assistant_id, version, graph_id, name, description, config, context, metadata FROM created
         )
         SELECT * FROM created`,
        [
          assistant.assistant_id,
          assistant.graph_id,
          assistant.name,
          assistant.description,
          toJson(assistant.config),
          toJson(assistant.context),
          toJson(assistant.metadata),
        ],
      );
      return rows[0];
    },

    async get(assistantId) {
      const { rows } = await database.query<Assistant>(
        `SELECT ${COLUMNS} FROM assistants WHERE assistant_id = $1`,
        [assistantId],
      );
      return rows[0];
    },

    async search(search) {
      const conditions = where(search);
      const total = this.count(search);
      const { rows } = await database.query<Assistant>(
        `SELECT ${COLUMNS} FROM assistants ${conditions.sql}
         ORDER BY ${search.sort_by} ${search.sort_order}, assistant_id
         LIMIT ${search.limit} OFFSET ${search.offset}`,
        conditions.params,
      );
      return { assistants: rows, total: await total };
    },

    async count(filter) {
      const conditions = where(filter);
      const { rows } = await database.query<{ count: number }>(
        `SELECT count(*)::integer AS count FROM assistants ${conditions.sql}`,
        conditions.params,
      );
      return rows[0]?.count ?? 0;
    },
  };
}
