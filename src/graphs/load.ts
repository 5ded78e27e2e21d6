import { extname } from "node:path";

import type { GraphSpec } from "../config/schema.ts";
import { describeFailure, findExport, toModuleError } from "../modules/failure.ts";
import { loadExport } from "../modules/load.ts";
import { isCompiledGraph, toCompiledGraph } from "./compiled.ts";
import type { GraphFactory, LoadedGraph } from "./registry.ts";

/**
 * Loads the graphs one after another, so that modules they share are evaluated once. Never rejects: a graph
 * that cannot be loaded becomes an entry that says why and where.
 */
export async function loadGraphs(
  specs: readonly GraphSpec[],
  options: { cwd: string },
): Promise<LoadedGraph[]> {
  const loaded: LoadedGraph[] = [];
  for (const spec of specs) loaded.push(await loadGraph(spec, options));
  return loaded;
}

/** Loads one graph; see `loadGraphs`. */
export async function loadGraph(spec: GraphSpec, options: { cwd: string }): Promise<LoadedGraph> {
  const { id, path, exportName, description } = spec;
  const entry = { id, description, path, exportName };
  if (extname(path) === ".py") {
    const message = "is a Python graph; this server runs LangGraph.js graphs";
    return { ...entry, kind: "failed", error: describeFailure(message, path, undefined) };
  }
  const found = await loadExport(spec, options);
  if ("error" in found) return { ...entry, kind: "failed", error: found.error };
  try {
    const value: unknown = await found.value;
    if (isFactory(value)) return { ...entry, kind: "factory", factory: value };
    const graph = await toCompiledGraph(value);
    if (graph) return { ...entry, kind: "graph", graph };
    const message = `export "${exportName}" is ${describeValue(value)}, not a graph: export a compiled graph, a builder, or a function that returns one`;
    return {
      ...entry,
      kind: "failed",
      error: describeFailure(message, path, findExport(path, exportName)),
    };
  } catch (thrown) {
    const error = toModuleError(thrown, path);
    const position = error.line === undefined ? findExport(path, exportName) : undefined;
    return {
      ...entry,
      kind: "failed",
      error: position ? describeFailure(error.message, path, position) : error,
    };
  }
}

/** A function makes graphs, unless it is a graph or builder that can be called. */
function isFactory(value: unknown): value is GraphFactory {
  return typeof value === "function" && !isCompiledGraph(value);
}

function describeValue(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value !== "object") return `a ${typeof value}`;
  const name: unknown = value.constructor?.name;
  return typeof name === "string" && name !== "Object" ? `an instance of ${name}` : "an object";
}
