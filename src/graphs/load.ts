import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join, sep } from "node:path";

import type { Jiti } from "jiti";

import type { GraphSpec, ModuleReference } from "../config/schema.ts";
import { isCompiledGraph, toCompiledGraph } from "./compiled.ts";
import { describeFailure, findExport, toGraphError } from "./failure.ts";
import type { GraphError, GraphFactory, LoadedGraph } from "./registry.ts";

/** A module that never finishes, such as one that awaits a server that is down, must not hold up the others. */
const LOAD_TIMEOUT_MS = 30_000;

/** What a TypeScript module is evaluated from; these can be evaluated again, native modules cannot. */
const RELOADABLE = new Set([".ts", ".tsx", ".mts", ".cts", ".json"]);

/** A module's export, or why there is none. */
export type LoadedExport = { value: unknown } | { error: GraphError };

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
    const error = toGraphError(thrown, path);
    const position = error.line === undefined ? findExport(path, exportName) : undefined;
    return {
      ...entry,
      kind: "failed",
      error: position ? describeFailure(error.message, path, position) : error,
    };
  }
}

/**
 * The export a reference names, from a TypeScript or JavaScript module. TypeScript needs no build; the `paths`
 * of each module's nearest `tsconfig.json` are obeyed; packages are the instances this process already has.
 */
export async function loadExport(
  reference: ModuleReference,
  options: { cwd: string },
): Promise<LoadedExport> {
  const { path, exportName } = reference;
  if (!existsSync(path)) {
    return { error: describeFailure("file does not exist", path, undefined) };
  }
  let module: unknown;
  try {
    const loader = await createLoader(options.cwd);
    module = await withTimeout(loader.import(path));
  } catch (thrown) {
    return { error: toGraphError(thrown, path) };
  }
  if (typeof module === "object" && module !== null && exportName in module) {
    return { value: Reflect.get(module, exportName) };
  }
  const names = Object.keys(module ?? {})
    .filter((name) => name !== "__esModule")
    .toSorted();
  const others = names.length === 0 ? "it exports nothing" : `it exports ${names.join(", ")}`;
  return { error: describeFailure(`has no export "${exportName}"; ${others}`, path, undefined) };
}

/**
 * Makes the next loading evaluate the project's TypeScript modules again. What was loaded before stays alive
 * as long as something uses it. Native JavaScript modules cannot be forgotten: they need a new process.
 */
export function forgetModules(): void {
  const { cache } = createRequire(import.meta.url);
  for (const path of Object.keys(cache)) {
    if (RELOADABLE.has(extname(path)) && !path.includes(`${sep}node_modules${sep}`))
      delete cache[path];
  }
}

/** Whether a change of this file takes effect by loading again in the same process. */
export function isReloadable(path: string): boolean {
  return RELOADABLE.has(extname(path));
}

async function createLoader(cwd: string): Promise<Jiti> {
  // Imported late: a server that was given its graphs never needs the TypeScript loader.
  const { createJiti } = await import("jiti");
  return createJiti(join(cwd, "_"), { tsconfigPaths: true });
}

async function withTimeout<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`the module did not finish loading within ${LOAD_TIMEOUT_MS / 1000} s`));
    }, LOAD_TIMEOUT_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
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
