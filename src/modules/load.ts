import { existsSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { extname, join, sep } from "node:path";

import type { Jiti } from "jiti";

import type { ModuleReference } from "../config/schema.ts";
import { describeFailure, toModuleError } from "./failure.ts";
import type { ModuleError } from "./failure.ts";

/** A module that never finishes, such as one that awaits a server that is down, must not hold up the others. */
const LOAD_TIMEOUT_MS = 30_000;

/** What a TypeScript module is evaluated from; these can be evaluated again, native modules cannot. */
const RELOADABLE = new Set([".ts", ".tsx", ".mts", ".cts", ".json"]);

/** A module's export, or why there is none. */
export type LoadedExport = { value: unknown } | { error: ModuleError };

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
    const error = toModuleError(thrown, path);
    // With an index module a folder loads, and what fails then is something in it.
    if (error.message !== `Cannot find module '${path}'` || !statSync(path).isDirectory())
      return { error };
    const message = "is a folder without an index module; name a file in it";
    return { error: describeFailure(message, path, undefined) };
  }
  const holder = findHolder(module, reference);
  if (holder) return { value: Reflect.get(holder, exportName) };
  const names = Object.keys(module ?? {})
    .filter((name) => name !== "__esModule")
    .toSorted();
  const others = names.length === 0 ? "it exports nothing" : `it exports ${names.join(", ")}`;
  return { error: describeFailure(`has no export "${exportName}"; ${others}`, path, undefined) };
}

/** A package as the project has it installed, that it is not installed, or why it does not load. */
export async function loadPackage(
  name: string,
  options: { cwd: string },
): Promise<{ module: object } | { missing: true } | { error: Error }> {
  const loader = await createLoader(options.cwd);
  try {
    if (loader.esmResolve(name, { try: true }) === undefined) return { missing: true };
    return { module: await withTimeout(loader.import<object>(name)) };
  } catch (thrown) {
    return { error: thrown instanceof Error ? thrown : new Error(String(thrown)) };
  }
}

/** The object that has the export: the module, or what a CommonJS module sets as `module.exports`. */
function findHolder(module: unknown, { path, exportName }: ModuleReference): object | undefined {
  if (typeof module !== "object" || module === null) return undefined;
  if (exportName in module) return module;
  if (!/\.c?js$/u.test(path)) return undefined;
  // Node cannot see the names of an object that is only known once the module has run.
  const exported: unknown = Reflect.get(module, "default");
  return typeof exported === "object" && exported !== null && exportName in exported
    ? exported
    : undefined;
}

/**
 * Makes the next loading evaluate the project's TypeScript modules again. What was loaded before stays alive
 * as long as something uses it. Native JavaScript modules cannot be forgotten: they need a new process.
 */
export function forgetModules(): void {
  const { cache } = createRequire(import.meta.url);
  for (const path of loadedModules()) delete cache[path];
}

/** The project's modules that are evaluated from TypeScript or JSON in this process, absolute. */
export function loadedModules(): string[] {
  return Object.keys(createRequire(import.meta.url).cache).filter(
    (path) => isReloadable(path) && !path.includes(`${sep}node_modules${sep}`),
  );
}

/** The module at `path` and those it has imported, as far as they are evaluated from TypeScript. */
export function dependenciesOf(path: string): Set<string> {
  const { cache } = createRequire(import.meta.url);
  const found = new Set<string>();
  const visit = (module: string): void => {
    if (found.has(module)) return;
    found.add(module);
    for (const child of cache[module]?.children ?? []) visit(child.filename);
  };
  visit(path);
  return found;
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
