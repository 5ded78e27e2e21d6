import { dirname } from "node:path";
import { z } from "zod";
import { RunnableConfig } from "../protocol/common.ts";
import type { ReadConfigFile } from "./file.ts";
import { toModuleReference } from "./module-reference.ts";
import type { Problem } from "./problems.ts";
import type { GraphDefaults, GraphSpec } from "./schema.ts";

const VARIABLE = "LANGGRAPH_CONFIG";
const Given = z.record(z.string(), RunnableConfig.extend({ context: z.unknown().optional() }));

/** The graphs of the config file, each with what the environment gives its own assistant (`LANGGRAPH_CONFIG`). */
export function toGraphSpecs(
  file: ReadConfigFile | undefined,
  given: string | undefined,
  problems: Problem[],
): Record<string, GraphSpec> {
  const defaults = readDefaults(given, problems);
  const specs: Record<string, GraphSpec> = {};
  for (const [id, entry] of Object.entries(file?.values.graphs ?? {})) {
    const own = defaults.get(id);
    specs[id] = {
      id,
      ...toModuleReference(entry.path, dirname(file?.path ?? "")),
      ...(entry.description !== undefined && { description: entry.description }),
      ...(own && { defaults: own }),
    };
  }
  const unknown = [...defaults.keys()].filter((id) => !Object.hasOwn(specs, id));
  if (file && unknown.length > 0) {
    const names = Object.keys(specs).join(", ");
    refuse(problems, `names the graph "${unknown.join('", "')}", which is none of ${names}`);
  }
  return specs;
}

function readDefaults(given: string | undefined, problems: Problem[]): Map<string, GraphDefaults> {
  if (given === undefined) return new Map();
  let json: unknown;
  try {
    json = JSON.parse(given);
  } catch {
    // Not repeated: what a graph is configured with may be a credential.
    refuse(problems, 'must be JSON such as { "agent": { "configurable": { "model": "small" } } }');
    return new Map();
  }
  const parsed = Given.safeParse(json);
  if (!parsed.success) {
    for (const { path, message } of parsed.error.issues) refuse(problems, message, path.join("."));
    return new Map();
  }
  return new Map(
    Object.entries(parsed.data).map(([id, { context, ...config }]) => [id, { config, context }]),
  );
}

function refuse(problems: Problem[], message: string, place = ""): void {
  const key = place === "" ? VARIABLE : `${VARIABLE}.${place}`;
  problems.push({ source: "environment", key, message });
}
