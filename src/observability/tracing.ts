import type { Logger } from "pino";
import { composeObservers } from "./compose.ts";
import type { AskSuperseded } from "./delivery/record.ts";
import type { Spool } from "./delivery/spooled-sender.ts";
import type { LangfuseConfig } from "./langfuse/config.ts";
import type { Mask } from "./trace/mask.ts";
import { traceIdOf } from "./trace/identity.ts";
import { loadLangfuseObserver } from "./langfuse/observer.ts";
import { createProjectsObserver, type Route } from "./langfuse/projects.ts";
import {
  createNoopObserver,
  type ObservedRun,
  type Observer,
  type TraceableRun,
  type TracePlace,
} from "./observer.ts";
import { isOptedOut } from "./opt-out.ts";
import { loadOtlpObserver, type OtlpConfig } from "./otlp/observer.ts";
import { parseTraceparent } from "./trace/traceparent.ts";
import { TurnBudget } from "./trace/turn-budget.ts";

/** The keys of one further Langfuse project. */
export interface ProjectKeys {
  publicKey: string;
  secretKey: string;
  host: string;
}

/** Every target, and what holds for all of them. */
export interface TracingOptions {
  langfuse: Omit<LangfuseConfig, "mask" | "capture">;
  /** Further Langfuse projects by name, and what chooses among them. */
  projects?: Readonly<Record<string, ProjectKeys>> | undefined;
  route?: Route | undefined;
  /** OTLP backends. */
  otlp?: readonly Omit<OtlpConfig, "mask" | "capture" | "version">[] | undefined;
  /** Applied to every text, whatever the target. */
  mask?: Mask | undefined;
  /** What content is captured, whatever the target; both default to true. */
  capture?:
    | { input?: boolean | undefined; output?: boolean | undefined; maxChars?: number | undefined }
    | undefined;
  /** What an incoming `traceparent` does; `link` by default. */
  traceparent?: "link" | "parent" | undefined;
  /** The instrumentation's version. */
  version?: string | undefined;
}

export interface TracingDeps {
  log: Logger;
  /** Where traces wait; in memory without it. */
  spool?: Spool | undefined;
  /** The largest record the spool takes; a larger span is cut. Default 16 MB. */
  maxRecordBytes?: number | undefined;
  /** Who knows what became of a run, for roots that wait for its result. */
  superseded?: AskSuperseded | undefined;
}

/**
 * One observer over every target that is asked for; without any it does nothing. Always resolves. A run that
 * opted out reaches no target. `shutdown` releases it.
 */
export async function loadTracing(options: TracingOptions, deps: TracingDeps): Promise<Observer> {
  const { mask, capture } = options;
  const shared = { ...deps, budget: new TurnBudget() };
  const targets = await Promise.all([
    ...(options.langfuse.enabled ? [loadProjects(options, shared)] : []),
    ...(options.otlp ?? []).map((target) =>
      loadOtlpObserver({ ...target, mask, capture, version: options.version }, shared),
    ),
  ]);
  if (targets.length === 0) return createNoopObserver();
  const failures = new Set<string>();
  const onError = (error: unknown): void => {
    const text = String(error);
    if (failures.has(text) || failures.size > 20) return;
    failures.add(text);
    deps.log.error(
      { err: error },
      "A tracing target failed; runs and other targets are not affected.",
    );
  };
  return createGate(composeObservers(targets, onError), options.traceparent ?? "link");
}

async function loadProjects(
  options: TracingOptions,
  deps: TracingDeps & { budget: TurnBudget },
): Promise<Observer> {
  const { mask, capture, route, projects = {} } = options;
  const config = { ...options.langfuse, mask, capture };
  const main = await loadLangfuseObserver(config, deps);
  if (Object.keys(projects).length === 0 && route === undefined) return main;
  const opened = new Map<string, Observer>();
  for (const [project, keys] of Object.entries(projects)) {
    opened.set(project, await loadLangfuseObserver({ ...config, ...keys }, { ...deps, project }));
  }
  return createProjectsObserver({ main, projects: opened, route, log: deps.log });
}

/** Decides for all targets together whether a run is traced, and in which trace. */
function createGate(targets: Observer, traceparent: "link" | "parent"): Observer {
  const untraced = createNoopObserver();
  const place = (run: TraceableRun): TracePlace | undefined => {
    if (isOptedOut(run)) return undefined;
    const caller = traceparent === "parent" ? parseTraceparent(run.traceparent) : undefined;
    const own: TracePlace =
      caller === undefined
        ? { trace_id: traceIdOf(run.run_id) }
        : { trace_id: caller.traceId, parent_span_id: caller.spanId };
    return targets.place?.({ ...run, place: own });
  };
  return {
    place,
    startRun(run: ObservedRun) {
      const at = isOptedOut(run) ? undefined : (run.place ?? place(run));
      return at === undefined ? untraced.startRun(run) : targets.startRun({ ...run, place: at });
    },
    score: (score) => targets.score(score),
    traceUrl: (runId, at) => targets.traceUrl(runId, at),
    status: () => targets.status(),
    ready: () => targets.ready(),
    flush: (timeoutMs) => targets.flush(timeoutMs),
    shutdown: (timeoutMs) => targets.shutdown(timeoutMs),
  };
}
