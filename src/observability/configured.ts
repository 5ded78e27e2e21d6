import type { Config, OtlpTarget } from "../config/schema.ts";
import { loadFunction } from "../modules/function.ts";
import { Outbox, type OutboxTable } from "./delivery/outbox.ts";
import type { AskSuperseded } from "./delivery/record.ts";
import type { Spool } from "./delivery/spooled-sender.ts";
import type { Mask } from "./trace/mask.ts";
import type { Route } from "./langfuse/projects.ts";
import type { Logger } from "./log.ts";
import type { Observer } from "./observer.ts";
import { loadTracing } from "./tracing.ts";

export interface ConfiguredTracingDeps {
  log: Logger;
  version: string;
  /** The outbox of the database, where traces may wait. */
  outbox?: OutboxTable | undefined;
  /** Who knows what became of a run, for roots that wait for its result. */
  superseded?: AskSuperseded | undefined;
}

/**
 * The tracing a configuration asks for, with the functions it names loaded. Rejects with `startup_failed` if one
 * of those cannot be loaded. `shutdown` releases it.
 */
export async function loadConfiguredTracing(
  config: Config,
  deps: ConfiguredTracingDeps,
): Promise<Observer> {
  const { mask, route, projects, capture, ...langfuse } = config.langfuse;
  const load = (option: "mask" | "route") =>
    loadFunction(config.langfuse[option]!, { cwd: config.cwd, option: `langfuse.${option}` });
  const otlp = [toTarget("otlp", config.otlp), toTarget("phoenix", config.phoenix)].flat();
  const traced = langfuse.enabled || otlp.length > 0;
  return loadTracing(
    {
      langfuse: { ...langfuse, version: undefined },
      projects,
      route: langfuse.enabled && route ? ((await load("route")) as Route) : undefined,
      otlp,
      mask: traced && mask ? ((await load("mask")) as Mask) : undefined,
      capture,
      traceparent: config.tracing.traceparent,
      version: deps.version,
    },
    {
      log: deps.log,
      spool: toSpool(config, deps.outbox),
      maxRecordBytes: config.tracing.maxRecordBytes,
      superseded: deps.superseded,
    },
  );
}

function toTarget<Name extends "otlp" | "phoenix">(name: Name, target: OtlpTarget | undefined) {
  return target === undefined ? [] : [{ name, ...target }];
}

/** Where traces wait; `undefined` where that is memory. */
function toSpool({ tracing, database }: Config, table: OutboxTable | undefined): Spool | undefined {
  const { directory: folder, fsync, maxBytes, maxAgeMs, maxRecordBytes } = tracing;
  const limits = { maxBytes, maxAgeMs, maxRecordBytes };
  switch (tracing.spool) {
    case "memory":
      return undefined;
    case "disk":
      return { folder, fsync, limits };
    case "database":
      if (table === undefined) throw new Error("tracing.spool is database, and none was opened");
      return new Outbox({ table, alone: database.url === undefined, limits });
  }
}
