import type { Authorize } from "../../auth/authorize.ts";
import type { AssistantGraphs } from "../../engine/assistants.ts";
import { systemAssistantId } from "../../engine/new-run.ts";
import type { Assistant } from "../../protocol/assistants.ts";
import type { Metadata } from "../../protocol/common.ts";
import type { Filter } from "../../protocol/filters.ts";
import type { McpTool } from "../../protocol/mcp.ts";
import type { AssistantRepository } from "../../storage/assistants.ts";

const SEARCH_PAGE = 1_000;
const MAX_NAME_LENGTH = 128;

export interface NamedAssistant {
  name: string;
  assistant: Assistant;
}

/**
 * The assistants a caller may see, each under the name of its tool: unique, and of the characters that models
 * allow in one. The graphs' own assistants come first, so that theirs are the graph ids.
 */
export async function nameAssistants(
  assistants: AssistantRepository,
  authorize: Authorize,
): Promise<NamedAssistant[]> {
  const { filter } = await authorize("assistants:search", {});
  const seen = await readAll(assistants, {}, filter);
  // Everybody may run the server's own, whether or not a filter lets see them.
  const all = filter ? await readAll(assistants, { created_by: "system" }, undefined) : seen;
  const taken = new Set<string>();
  const others = seen.filter((assistant) => !isSystem(assistant));
  return [...all.filter(isSystem), ...others].map((assistant) => {
    const plain = (isSystem(assistant) ? assistant.graph_id : assistant.name)
      .replaceAll(/[^\w-]+/gu, "_")
      .slice(0, MAX_NAME_LENGTH);
    const name = plain === "" || taken.has(plain) ? withId(plain, assistant) : plain;
    taken.add(name);
    return { name, assistant };
  });
}

async function readAll(
  assistants: AssistantRepository,
  metadata: Metadata,
  filter: Filter | undefined,
): Promise<Assistant[]> {
  const all: Assistant[] = [];
  for (;;) {
    const page = await assistants.search(
      {
        metadata,
        limit: SEARCH_PAGE,
        offset: all.length,
        sort_by: "created_at",
        sort_order: "asc",
      },
      filter,
    );
    all.push(...page.assistants);
    if (page.assistants.length < SEARCH_PAGE) return all;
  }
}

function isSystem(assistant: Assistant): boolean {
  return assistant.assistant_id === systemAssistantId(assistant.graph_id);
}

/** The end of an id is random also where its beginning is a time. */
function withId(name: string, assistant: Assistant): string {
  const suffix = `_${assistant.assistant_id.slice(-12)}`;
  return name.slice(0, MAX_NAME_LENGTH - suffix.length) + suffix;
}

/** The tool of an assistant. Fails with a `ServerError` while its graph cannot be built. */
export async function toTool(
  { name, assistant }: NamedAssistant,
  drawings: AssistantGraphs,
): Promise<McpTool> {
  const schemas = await drawings.schemas(assistant);
  return {
    name,
    title: isSystem(assistant) ? assistant.graph_id : assistant.name,
    description: assistant.description ?? `Runs the agent "${assistant.graph_id}".`,
    inputSchema: toInputSchema(schemas.input_schema),
  };
}

/** A tool takes an object. What a message looks like is said here: graphs' own schemas leave it open. */
function toInputSchema(schema: object | null): object {
  const { type, properties } = (schema ?? {}) as { type?: unknown; properties?: object };
  if (!schema || type !== "object") return { type: "object" };
  if (!properties || !("messages" in properties)) return schema;
  return { ...schema, properties: { ...properties, messages: MESSAGES } };
}

const MESSAGES = {
  type: "array",
  description: "The conversation so far; the last message is the request.",
  items: {
    type: "object",
    properties: {
      role: { type: "string", enum: ["user", "assistant", "system"] },
      content: { type: "string" },
    },
    required: ["role", "content"],
  },
} as const;
