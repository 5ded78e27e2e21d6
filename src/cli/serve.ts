import { setMaxListeners } from "node:events";
import { createRequire } from "node:module";

import { allowsColor } from "../config/env.ts";
import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import type { Logger } from "../observability/log.ts";
import type { Server } from "../server.ts";
import { createPaint, renderBanner, renderTracing } from "./banner.ts";
import type { Paint } from "./banner.ts";
import type { ServeOptions } from "./options.ts";

/** How long the banner waits for the check of the tracing keys; later answers get a line of their own. */
const TRACING_WAIT_MS = 300;
/** Every node of a step listens to one signal of LangGraph's: with Node's 10, a step of 11 looks like a leak. */
const MAX_LISTENERS = 1_000;

/** A server with the console it reports to. */
export interface Serving {
  config: Config;
  server: Server;
  log: Logger;
  console: Console;
}

/** Text for the person who started the server. */
export interface Console {
  print(text: string): void;
  paint: Paint;
}

/**
 * Opens the server of a project and shows the banner. Rejects as `loadConfig` and `openServer` do. The caller
 * closes the server.
 */
export async function serve(
  options: ServeOptions,
  how: {
    mode: Config["mode"];
    adjust?: (config: Config) => Config;
    /** Shows no banner: another process has. */
    quiet?: boolean;
    /** How many processes share the port. */
    processes?: number;
    /** Is told of the server as soon as it answers, before the banner. */
    onOpen?: (serving: Serving) => unknown;
  },
): Promise<Serving> {
  setMaxListeners(MAX_LISTENERS);
  const loaded = await loadConfig({ ...options, mode: how.mode, terminal: process.stdout.isTTY });
  const config = how.adjust?.(loaded) ?? loaded;
  // After the environment is complete, and only by commands that need it: most of the start is here.
  const [{ openServer }, { createLogger }] = await Promise.all([
    import("../server.ts"),
    import("../observability/log.ts"),
  ]);
  const log = createLogger(config.log);
  for (const warning of config.warnings) log.warn(warning);
  const server = await openServer(config, { log });
  const serving = { config, server, log, console: createConsole(config) };
  how.onOpen?.(serving);
  if (!how.quiet) await showBanner(serving, how.processes ?? 1);
  return serving;
}

/** Prints to stdout, or to stderr where stdout carries JSON logs that something parses. */
function createConsole(config: Config): Console {
  const stream = config.log.pretty ? process.stdout : process.stderr;
  return {
    print: (text) => void stream.write(text),
    paint: createPaint(allowsColor(stream)),
  };
}

async function showBanner({ config, server, console }: Serving, processes: number): Promise<void> {
  const { observer } = server;
  const checked = observer.ready();
  await Promise.race([checked, delay(TRACING_WAIT_MS)]);
  const statuses = observer.status();
  console.print(
    renderBanner({
      version: readVersion(),
      mode: config.mode,
      role: config.role ?? "all",
      processes,
      url: server.url,
      cwd: config.cwd,
      database: server.database,
      graphs: listGraphs(server.graphs),
      tracing: statuses,
      readyMs: Math.round(process.uptime() * 1000),
      paint: console.paint,
    }),
  );
  const waiting = new Set(
    statuses.filter(({ state }) => state === "checking").map(({ name }) => name),
  );
  if (waiting.size === 0) return;
  const tellAnswer = (): void => {
    const answered = observer.status().filter(({ name }) => waiting.has(name));
    const lines = answered.flatMap((status) => renderTracing(status, console.paint));
    console.print(`${lines.join("\n")}\n`);
  };
  void checked.then(tellAnswer);
}

/** Every graph of the registry, with its failure if it has one. */
export function listGraphs(graphs: GraphRegistry): Parameters<typeof renderBanner>[0]["graphs"] {
  const failures = new Map(graphs.failures().map(({ id, error }) => [id, error]));
  return graphs.ids().map((id) => {
    const error = failures.get(id);
    return error ? { id, error } : { id };
  });
}

/** The version of this package. */
export function readVersion(): string {
  const manifest: unknown = createRequire(import.meta.url)("../../package.json");
  const version: unknown = Reflect.get(Object(manifest), "version");
  return typeof version === "string" ? version : "unknown";
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms).unref();
  });
}
