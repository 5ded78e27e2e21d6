import { readFile } from "node:fs/promises";
import { setTimeout as delay } from "node:timers/promises";

import type { GraphRegistry, LoadedGraph } from "./registry.ts";
import { isKnownAtRunTime } from "./schemas.ts";
import {
  extractTypes,
  findExtractor,
  type Extraction,
  type TypedSchemas,
} from "./type-extractor.ts";
import { toHash, type TypeSchemaCache } from "./type-schema-cache.ts";

/** Where schemas that only types tell come from. */
export interface TypeSchemasOptions {
  /** The project's folder, whose extractor is used. */
  cwd: string;
  /** `cached`: only what is in the cache already. */
  reading: "extract" | "cached" | "off";
  /** `undefined` keeps nothing. */
  cache: TypeSchemaCache | undefined;
  log(level: "debug" | "info", message: string, details: object): void;
  /** How long the graphs must have been in place; default 2,000. */
  quietMs?: number;
  /** How long one graph may take; default 60,000. */
  timeoutMs?: number;
}

/** By graph id: the export that is the graph, and the schemas of it and of those in it. */
type Found = Map<string, { root: string; schemas: Extraction["schemas"] }>;

/** How often a process looks whether another one that extracts the same graph is done. */
const LOOK_MS = 1_000;

/**
 * What the types of the graphs tell about them, read in the background after the graphs are in place:
 *
 *     idle --replace--> cached ones are read --quiet time--> one graph after another is extracted --> idle
 *       '<------ the next replace ends what is going on, close ends it for good
 *
 * A graph whose types are not read yet, or cannot be, has none here.
 */
export class TypeSchemas {
  readonly #options: Required<TypeSchemasOptions>;
  #found: Found = new Map();
  /** What failed: it is tried again when its source or the extractor is another. */
  readonly #failed = new Set<string>();
  #current = new AbortController();
  #work = Promise.resolve();
  #refusal: string | undefined;

  constructor(options: TypeSchemasOptions) {
    this.#options = { quietMs: 2_000, timeoutMs: 60_000, ...options };
  }

  /** The schemas of a graph, or of the graph in it at `namespace` (`node|node`), as far as they are known. */
  of(graphId: string, namespace?: string): TypedSchemas | undefined {
    const found = this.#found.get(graphId);
    return found?.schemas[namespace === undefined ? found.root : `${found.root}|${namespace}`];
  }

  /** Reads the types of these graphs, in place of those before. Returns at once. */
  replace(registry: GraphRegistry): void {
    this.#current.abort();
    this.#found = new Map();
    if (this.#options.reading === "off") return;
    const { signal } = (this.#current = new AbortController());
    const graphs = registry.ids().flatMap((id) => registry.describe(id) ?? []);
    const found = this.#found;
    this.#work = this.#work
      .then(() => this.#read(graphs.filter(hasTypes), found, signal))
      .catch((error: unknown) => {
        if (!signal.aborted) this.#tell("info", "types of graphs are not read", error);
      });
  }

  /** Ends the work in the background, and resolves when it has ended. */
  async close(): Promise<void> {
    this.#current.abort();
    await this.#work;
  }

  async #read(graphs: LoadedGraph[], found: Found, signal: AbortSignal): Promise<void> {
    const { cwd, reading, quietMs } = this.#options;
    const extractor = reading === "extract" ? findExtractor(cwd) : { missing: true as const };
    const versions = "versions" in extractor ? extractor.versions : undefined;
    for (const graph of graphs) if (!signal.aborted) await this.#load(graph, found, versions);
    if ("refused" in extractor && extractor.refused !== this.#refusal) {
      this.#refusal = extractor.refused;
      this.#tell("info", "types of graphs are not read", extractor.refused);
    }
    if (!("versions" in extractor)) return;
    await delay(quietMs, undefined, { signal, ref: false });
    for (const graph of graphs) {
      if (found.has(graph.id)) continue;
      if (graph.kind === "graph" && (await isKnownAtRunTime(graph.graph))) continue;
      await this.#extract(graph, { versions: extractor.versions, found, signal });
    }
  }

  async #extract(
    graph: LoadedGraph,
    { versions, found, signal }: { versions: string; found: Found; signal: AbortSignal },
  ): Promise<void> {
    const { cache, cwd, timeoutMs } = this.#options;
    const attempt = `${graph.id} ${versions} ${toHash(await readFile(graph.path))}`;
    if (this.#failed.has(attempt)) return;
    const claim = async () => (cache ? cache.claim(graph, 2 * timeoutMs) : async () => {});
    let release = await claim();
    // Looked for again: two ids may name one graph, and another process may have been at it.
    while (!(await this.#load(graph, found, versions)) && !release) {
      await delay(LOOK_MS, undefined, { signal, ref: false });
      release = await claim();
    }
    if (found.has(graph.id)) return release?.();
    const startedAt = performance.now();
    try {
      const extraction = await extractTypes(
        { cwd, sourceFile: graph.path, exportSymbol: graph.exportName },
        { timeoutMs, signal },
      );
      found.set(graph.id, { root: graph.exportName, schemas: extraction.schemas });
      const ms = Math.round(performance.now() - startedAt);
      this.#tell("debug", `types of graph "${graph.id}" read in ${ms} ms`);
      await cache?.save(graph, versions, extraction).catch((error: unknown) => {
        this.#tell("debug", `types of graph "${graph.id}" are not kept`, error);
      });
    } catch (error) {
      if (signal.aborted) throw error;
      this.#failed.add(attempt);
      this.#tell("info", `types of graph "${graph.id}" are not read`, error);
    } finally {
      await release?.();
    }
  }

  /** Whether the cache has the schemas of this graph; then they are in `found`. */
  async #load(graph: LoadedGraph, found: Found, versions: string | undefined): Promise<boolean> {
    const schemas = await this.#options.cache?.load(graph, versions);
    if (schemas) found.set(graph.id, { root: graph.exportName, schemas });
    return schemas !== undefined;
  }

  #tell(level: "debug" | "info", message: string, why?: unknown): void {
    const reason = why instanceof Error ? why.message : why;
    this.#options.log(level, message, reason === undefined ? {} : { reason });
  }
}

/** Only TypeScript has types to read, the extractor sees no default export, and what failed to load is no graph. */
function hasTypes({ kind, path, exportName }: LoadedGraph): boolean {
  return kind !== "failed" && exportName !== "default" && /\.[cm]?tsx?$/u.test(path);
}
