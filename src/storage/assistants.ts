import type {
  Assistant,
  AssistantFilter,
  AssistantPatch,
  AssistantSearch,
  AssistantVersion,
  AssistantVersionsRequest,
} from "../protocol/assistants.ts";
import type { Filter } from "../protocol/filters.ts";
import type { Queryable } from "./database.ts";
import { toJson } from "./json.ts";
import { Conditions, toContained } from "./conditions.ts";

const COLUMNS =
  "assistant_id, graph_id, name, description, config, context, metadata, version, created_at, updated_at";

const UNIQUE_VIOLATION = "23505";
/** Patches of one assistant that meet take turns; each turn one of them gets through. */
const PATCH_TRIES = 20;

export interface NewAssistant {
  assistant_id: string;
  graph_id: string;
  name: string;
  description: string | null;
  config: unknown;
  context: unknown;
  metadata: unknown;
}

/** Assistants in the database. With a `filter`, an assistant that does not pass it is as good as absent. */
export interface AssistantRepository {
  /** Creates it; `undefined` if one with this id exists already. */
  create(assistant: NewAssistant): Promise<Assistant | undefined>;
  get(assistantId: string, filter: Filter | undefined): Promise<Assistant | undefined>;
  /**
   * Makes a new version that keeps what `patch` does not name; metadata is merged. `undefined` if there is no
   * such assistant.
   */
  patch(
    assistantId: string,
    patch: AssistantPatch,
    filter: Filter | undefined,
  ): Promise<Assistant | undefined>;
  /** Deletes it with its versions; false if there is none. */
  delete(assistantId: string, filter: Filter | undefined): Promise<boolean>;
  /** Its versions, newest first; each of them passes the filter, or is not among them. */
  versions(
    assistantId: string,
    request: AssistantVersionsRequest,
    filter: Filter | undefined,
  ): Promise<AssistantVersion[]>;
  /** Goes back (or forward) to a version; `undefined` if there is no such assistant or version. */
  setLatest(
    assistantId: string,
    version: number,
    filter: Filter | undefined,
  ): Promise<Assistant | undefined>;
  search(
    search: AssistantSearch,
    filter: Filter | undefined,
  ): Promise<{ assistants: Assistant[]; total: number }>;
  count(search: AssistantFilter, filter: Filter | undefined): Promise<number>;
}

export function createAssistantRepository(database: Queryable): AssistantRepository {
  const where = (search: AssistantFilter, filter: Filter | undefined): Conditions => {
    const conditions = new Conditions().addFilter(filter);
    if (search.metadata) conditions.add((p) => `metadata @> ${p(toJson(search.metadata))}::jsonb`);
    if (search.graph_id !== undefined) conditions.add((p) => `graph_id = ${p(search.graph_id)}`);
    if (search.name) {
      conditions.add((p) => `position(lower(${p(search.name)}::text) in lower(name)) > 0`);
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

    async get(assistantId, filter) {
      const { rows } = await database.query<Assistant>(
        `SELECT ${COLUMNS} FROM assistants WHERE assistant_id = $1 AND metadata @> $2::jsonb`,
        [assistantId, toContained(filter)],
      );
      return rows[0];
    },

    async patch(assistantId, patch, filter) {
      const params = [
        assistantId,
        patch.graph_id ?? null,
        patch.name ?? null,
        patch.description ?? null,
        patch.config === undefined ? null : toJson(patch.config),
        patch.context === undefined ? null : toJson(patch.context),
        toJson(patch.metadata ?? {}),
        toContained(filter),
      ];
      for (let tries = 1; ; tries += 1) {
        try {
          const { rows } = await database.query<Assistant>(PATCH, params);
          return rows[0];
        } catch (error) {
          if ((error as { code?: unknown }).code !== UNIQUE_VIOLATION || tries === PATCH_TRIES)
            throw error;
        }
      }
    },

    async delete(assistantId, filter) {
      const { rowCount } = await database.query(
        "DELETE FROM assistants WHERE assistant_id = $1 AND metadata @> $2::jsonb",
        [assistantId, toContained(filter)],
      );
      return rowCount > 0;
    },

    async versions(assistantId, request, filter) {
      const { rows } = await database.query<AssistantVersion>(
        `SELECT assistant_id, graph_id, name, description, config, context, metadata, version, created_at
         FROM assistant_versions WHERE assistant_id = $1 AND metadata @> $2::jsonb AND metadata @> $3::jsonb
         ORDER BY version DESC LIMIT ${request.limit} OFFSET ${request.offset}`,
        [assistantId, toJson(request.metadata ?? {}), toContained(filter)],
      );
      return rows;
    },

    async setLatest(assistantId, version, filter) {
      const { rows } = await database.query<Assistant>(
        `UPDATE assistants a SET graph_id = v.graph_id, name = v.name, description = v.description,
           config = v.config, context = v.context, metadata = v.metadata, version = v.version, updated_at = now()
         FROM assistant_versions v
         WHERE a.assistant_id = $1 AND v.assistant_id = $1 AND v.version = $2
           AND a.metadata @> $3::jsonb AND v.metadata @> $3::jsonb
         RETURNING ${COLUMNS.split(", ")
           .map((column) => `a.${column}`)
           .join(", ")}`,
        [assistantId, version, toContained(filter)],
      );
      return rows[0];
    },

    async search(search, filter) {
      const conditions = where(search, filter);
      const [total, { rows }] = await Promise.all([
        this.count(search, filter),
        database.query<Assistant>(
          `SELECT ${COLUMNS} FROM assistants ${conditions.sql}
         ORDER BY ${search.sort_by} ${search.sort_order}, assistant_id
         LIMIT ${search.limit} OFFSET ${search.offset}`,
          conditions.params,
        ),
      ]);
      return { assistants: rows, total };
    },

    async count(search, filter) {
      const conditions = where(search, filter);
      const { rows } = await database.query<{ count: number }>(
        `SELECT count(*)::integer AS count FROM assistants ${conditions.sql}`,
        conditions.params,
      );
      return rows[0]?.count ?? 0;
    },
  };
}

// The next version counts from the newest one, which need not be the one in force. Two patches at once meet at
// the assistant's row; the second then misses the number the first has taken, and the primary key says so.
const PATCH = `
  WITH patched AS (
    UPDATE assistants SET
      graph_id = coalesce($2::text, graph_id), name = coalesce($3::text, name),
      description = coalesce($4::text, description), config = coalesce($5::jsonb, config),
      context = coalesce($6::jsonb, context), metadata = metadata || $7::jsonb, updated_at = now(),
      version = greatest(version, (SELECT max(v.version) FROM assistant_versions v WHERE v.assistant_id = $1)) + 1
    WHERE assistant_id = $1 AND metadata @> $8::jsonb
    RETURNING ${COLUMNS}
  ), versioned AS (
    INSERT INTO assistant_versions (assistant_id, version, graph_id, name, description, config, context, metadata)
    SELECT assistant_id, version, graph_id, name, description, config, context, metadata FROM patched
  )
  SELECT * FROM patched`;
