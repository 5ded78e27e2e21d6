/**
 * The child of `aegra dev`: serves, watches the project, and loads its graphs again when their source changes.
 *
 *     starting --ready--> serving --source changed--> serving, with other graphs
 *        |                   '------configuration changed----> ends with RESTART
 *        '--failed--> ends with 1 or 2; after a restart: waiting --any change--> ends with RESTART
 */
import { readFileSync, realpathSync } from "node:fs";
import { basename, dirname, extname, relative } from "node:path";

import { toModuleReference } from "../config/module-reference.ts";
import type { Config } from "../config/schema.ts";
import { loadGraphs } from "../graphs/load.ts";
import { createGraphRegistry } from "../graphs/registry.ts";
import { dependenciesOf, forgetModules, isReloadable, loadedModules } from "../modules/load.ts";
import { renderFailure } from "./banner.ts";
import { RESTART } from "./dev.ts";
import type { DevServerOptions, PortReport } from "./dev.ts";
import { reportFailure } from "./failure.ts";
import { listGraphs, serve } from "./serve.ts";
import type { Serving } from "./serve.ts";
import { closeOnSignal } from "./shutdown.ts";
import { watchTree } from "./watch.ts";
import type { TreeWatcher } from "./watch.ts";

/** Editors and version control write several files, and some files twice. */
const QUIET_MS = 100;

const JAVASCRIPT = new Set([".js", ".mjs", ".cjs", ".jsx"]);

async function run(options: DevServerOptions): Promise<void> {
  const { previous } = options;
  // Also where the parent was killed and could tell nothing.
  process.on("disconnect", () => process.kill(process.pid, "SIGTERM"));
  let configured = 0;
  const keepPort = (config: Config): Config => {
    configured = config.port.value;
    // The port stays, unless the configuration now names another one.
    if (configured !== previous?.configured) return config;
    return { ...config, port: { value: previous.actual, explicit: true } };
  };
  // Before the banner: whoever reads that it is ready may change a file at once.
  const onOpen = (serving: Serving): void => {
    process.send?.({ configured, actual: serving.server.port } satisfies PortReport);
    watchProject(serving);
  };
  try {
    await serve(options, { mode: "dev", adjust: keepPort, onOpen });
  } catch (error) {
    const exitCode = reportFailure(error);
    if (!previous) process.exit(exitCode);
    process.stderr.write("Waiting for a change.\n");
    watchTree(options.cwd, {
      quietMs: QUIET_MS,
      onChange: () => process.exit(RESTART),
      onProblem: reportProblem,
    });
  }
}

function watchProject(serving: Serving): void {
  const { config, console } = serving;
  const close = closeOnSignal(serving);
  const contents = new Map(config.watched.map((path) => [path, readText(path)]));
  const guarded = new Set(listOwnModules(config).flatMap((path) => [...dependenciesOf(path)]));
  let restarting = false;
  let work = Promise.resolve();

  const restart = (reason: string): void => {
    if (restarting) return;
    restarting = true;
    console.print(`${reason}: restarting the server.\n`);
    watcher.close();
    void close(RESTART);
  };
  const name = (path: string): string => relative(config.cwd, path);
  const reloadAll = async (): Promise<void> => {
    await reload(serving);
    watchOutside(serving, watcher);
  };
  const onChange = (changed: string[]): void => {
    const paths = changed.flatMap((path) => [path, toRealPath(path)]);
    const configFile = paths.find(
      (path) => contents.has(path) && contents.get(path) !== readText(path),
    );
    if (configFile !== undefined) return restart(`${name(configFile)} changed`);
    const native = paths.find((path) => JAVASCRIPT.has(extname(path)));
    if (native !== undefined) {
      return restart(`${name(native)} changed, and plain JavaScript is loaded once per process`);
    }
    const guard = paths.find((path) => guarded.has(path));
    if (guard !== undefined)
      return restart(`${name(guard)} changed, which is not only used by graphs`);
    if (!paths.some((path) => isRelevant(path, serving))) return;
    // One reload at a time; a change during a reload gets its own.
    work = work.then(reloadAll);
  };
  const watcher = watchTree(config.cwd, { quietMs: QUIET_MS, onChange, onProblem: reportProblem });
  watchOutside(serving, watcher);
}

/** The modules that the server itself uses, and loads once: authentication, routes, mask, embeddings. */
function listOwnModules(config: Config): string[] {
  const embed = config.store.index?.embed;
  const base = dirname(config.configPath ?? config.cwd);
  return [
    config.auth.module?.path,
    config.http.app?.path,
    config.langfuse.mask?.path,
    embed === undefined ? undefined : toModuleReference(embed, base).path,
  ].filter((path) => path !== undefined);
}

/** Whether loading again could give other graphs: a module in use changed, or anything while one is broken. */
function isRelevant(path: string, { server }: Serving): boolean {
  if (/^tsconfig.*\.json$/u.test(basename(path))) return true;
  if (!isReloadable(path)) return false;
  return server.graphs.failures().length > 0 || loadedModules().includes(path);
}

async function reload(serving: Serving): Promise<void> {
  const { config, server, console, log } = serving;
  const startedAt = performance.now();
  forgetModules();
  const loaded = await loadGraphs(Object.values(config.graphs), { cwd: config.cwd });
  const registry = createGraphRegistry(loaded);
  try {
    await server.replaceGraphs(registry);
  } catch (error) {
    log.error({ err: error }, "the reloaded graphs could not be put in place");
    return;
  }
  const graphs = listGraphs(registry);
  const fine = graphs.filter(({ error }) => error === undefined).map(({ id }) => id);
  const ms = Math.round(performance.now() - startedAt);
  if (fine.length > 0) console.print(`Reloaded ${fine.join(", ")} in ${ms} ms.\n`);
  for (const { id, error } of graphs) {
    if (!error) continue;
    const lines = renderFailure(id, error, { cwd: config.cwd, paint: console.paint, indent: "" });
    console.print(`${lines.join("\n")}\n`);
  }
}

/** Modules and env files outside the project's folder, such as in a monorepo, are watched by their folder. */
function watchOutside({ config }: Serving, watcher: TreeWatcher): void {
  for (const path of [...loadedModules(), ...config.watched]) {
    if (relative(config.cwd, path).startsWith("..")) watcher.add(dirname(path));
  }
}

function reportProblem(dir: string, error: unknown): void {
  const reason = error instanceof Error ? error.message : String(error);
  process.stderr.write(`Changes in ${dir} are not seen: ${reason}\n`);
}

function readText(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

/** Modules are known by their real path, changes by the path of the folder that is watched. */
function toRealPath(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

await run(JSON.parse(process.argv[2] ?? "{}") as DevServerOptions);
