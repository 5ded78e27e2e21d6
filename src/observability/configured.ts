import type { Config, OtlpTarget } from "../config/schema.ts";
import { loadFunction } from "../modules/function.ts";
import type { SpoolOptions } from "./delivery/spooled-sender.ts";
import type { Mask } from "./langfuse/config.ts";
import type { Route } from "./langfuse/projects.ts";
import type { Logger } from "./log.ts";
import type { Observer } from "./observer.ts";
import { loadTracing } from "./tracing.ts";

/**
 * The tracing a configuration asks for, with the functions it names loaded. Rejects with `startup_failed` if one
 * of those cannot be loaded. `shutdown` releases it.
 */
export async function loadConfiguredTracing(
  config: Config,
  deps: { log: Logger; version: string },
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
    { log: deps.log, spool: toSpool(config) },
  );
}

function toTarget<Name extends "otlp" | "phoenix">(name: Name, target: OtlpTarget | undefined) {
  return target === undefined ? [] : [{ name, ...target }];
}

/** Where traces wait on disk; `undefined` where they wait in memory. */
function toSpool({ tracing }: Config): SpoolOptions | undefined {
  if (tracing.spool === "memory") return undefined;
  const { directory: folder, fsync, maxBytes, maxAgeMs, maxRecordBytes } = tracing;
  return { folder, fsync, limits: { maxBytes, maxAgeMs, maxRecordBytes } };
}
