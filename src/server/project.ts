import { join } from "node:path";

import { loadAuth } from "../auth/load.ts";
import type { Config } from "../config/schema.ts";
import { loadGraphs } from "../graphs/load.ts";
import { createGraphRegistry, type GraphRegistry } from "../graphs/registry.ts";
import { createTypeSchemaCache } from "../graphs/type-schema-cache.ts";
import { TypeSchemas } from "../graphs/type-schemas.ts";
import { loadCustomApp } from "../http/custom-app.ts";
import { loadConfiguredTracing } from "../observability/configured.ts";
import { withoutDoubleTraces } from "../observability/foreign-handlers.ts";
import type { Logger } from "../observability/log.ts";
import type { Observer } from "../observability/observer.ts";
import type { TraceOutbox } from "../storage/trace-outbox.ts";
import { ownVersion } from "./info.ts";

/** What has to be closed if the start fails, in the order in which it was opened. */
export type Closers = (() => Promise<unknown>)[];

/**
 * Everything made from the project's modules, one after another: a module they share is then evaluated once,
 * which concurrent loading would not do. Rejects with `startup_failed`.
 */
export async function loadProject(
  config: Config,
  given: {
    log: Logger;
    graphs: GraphRegistry | undefined;
    closers: Closers;
    outbox: TraceOutbox;
  },
) {
  const { module } = config.auth;
  const letStudioIn = !config.auth.disable_studio_auth;
  const auth = module ? await loadAuth(module, { cwd: config.cwd, letStudioIn }) : undefined;
  if (auth && letStudioIn) {
    given.log.warn(
      'auth.disable_studio_auth is false: whoever sends "x-auth-scheme: langsmith" is let in as Studio, without being asked',
    );
  }
  if (!auth) {
    given.log.warn(
      "no authentication: everybody who can reach this server can use it (set auth.path to change that)",
    );
  }
  const { app } = config.http;
  const customApp = app && (await loadCustomApp(app, { cwd: config.cwd }));
  const tracing = await loadConfiguredTracing(config, {
    log: given.log,
    version: ownVersion(),
    outbox: given.outbox,
    superseded: (roots) => given.outbox.superseded(roots),
  });
  given.closers.push(() => tracing.shutdown(1_000));
  const graphs = given.graphs ?? (await loadRegistry(config));
  return { auth, tracing, customApp, graphs };
}

async function loadRegistry(config: Config): Promise<GraphRegistry> {
  return createGraphRegistry(await loadGraphs(Object.values(config.graphs), { cwd: config.cwd }));
}

/** Graphs whose runs this server sends to Langfuse do not send them a second time by a handler of their own. */
export function withoutOwnLangfuse(
  registry: GraphRegistry,
  observer: Observer,
  log: Logger,
): GraphRegistry {
  return withoutDoubleTraces(registry, {
    traced: () =>
      observer.status().some(({ name, state }) => name === "langfuse" && state !== "misconfigured"),
    onRemoved: (graph) =>
      log.warn(
        { graph },
        `Graph "${graph}" has a Langfuse handler of its own, which is left out: its runs are traced by this server.`,
      ),
  });
}

/** What the types of the graphs tell; reads nothing yet, and has to be closed. */
export function createTypeSchemas(config: Config, log: Logger): TypeSchemas {
  const { cwd, database } = config;
  return new TypeSchemas({
    cwd,
    // A worker answers no question about graphs.
    reading: config.role === "worker" ? "off" : (config.schemas?.types ?? "off"),
    cache:
      database.dataDir === "memory://"
        ? undefined
        : createTypeSchemaCache(join(database.dataDir, "schemas"), cwd),
    log: (level, message, details) => log[level](details, message),
  });
}
