/**
 * `aegra/observability`: the server's traces for graphs of your own process.
 *
 * ```ts
 * import { openTracing } from "aegra/observability";
 * const tracing = await openTracing();
 * const agent = tracing.trace(graph);
 * ```
 */
import { pino } from "pino";
import { processEnvironment, readTracingEnvironment, type Variables } from "../config/env.ts";
import { toStartupError, type Problem } from "../config/problems.ts";
import type { Mask } from "./trace/mask.ts";
import type { Logger } from "./log.ts";
import type { ObserverStatus } from "./observer.ts";
import { GraphTracer, type TracedGraphOptions } from "./trace-graph.ts";
import { loadTracing } from "./tracing.ts";

export { traceEmbeddings } from "./embeddings.ts";
export type { Mask, ObserverStatus, TracedGraphOptions };

/** Everything is optional: the environment says where traces go. */
export interface OpenTracingOptions {
  /** Variables to read instead of the process's: `LANGFUSE_LOGGING`, `LANGFUSE_PUBLIC_KEY`, `OTEL_TARGETS`, ... */
  env?: Variables;
  /** Applied to every text before it leaves the process. A field whose mask throws is withheld. */
  mask?: Mask;
  /** What content is captured; both default to true. */
  capture?: { input?: boolean; output?: boolean };
  /** `parent` lets a run join the trace of its config's `configurable.traceparent`; by default it is noted. */
  traceparent?: "link" | "parent";
  /** The version of your application. */
  version?: string;
  /** A pino logger. Default: warnings and errors as JSON lines on stderr. */
  log?: Logger;
}

/** Traces graphs of this process until it is closed. */
export interface Tracing {
  /**
   * The same graph, traced: every `invoke`, `stream`, `streamEvents` and `batch` of it is one trace. Session and user
   * are the config's `configurable.thread_id` and `configurable.user_id`, tags and metadata the config's own. A
   * run with `metadata: { aegra_trace: false }` is not traced. The graph itself stays as it is.
   */
  trace<Graph extends object>(graph: Graph, options?: TracedGraphOptions): Graph;
  /** How each target stands. Empty where tracing is off. */
  status(): ObserverStatus[];
  /** Sends what waits; true if nothing is left after at most `timeoutMs` (5,000). */
  flush(timeoutMs?: number): Promise<boolean>;
  /** Sends what waits for at most `timeoutMs` (5,000), then lets go of everything. Safe to call twice. */
  close(timeoutMs?: number): Promise<void>;
}

const DEFAULT_TIMEOUT_MS = 5_000;

/**
 * Reads the environment and opens the targets it names; with none, or without their packages, graphs run as
 * before, untraced. What waits is sent when the process runs out of work; before `process.exit`, and on
 * signals, `close` it. Throws `startup_failed` for a variable that is wrong.
 */
export async function openTracing(options: OpenTracingOptions = {}): Promise<Tracing> {
  const problems: Problem[] = [];
  const environment = readTracingEnvironment(options.env ?? processEnvironment(), problems);
  if (problems.length > 0) throw toStartupError(problems);
  const { otlp, phoenix } = environment;
  const observer = await loadTracing(
    {
      langfuse: { ...environment.langfuse, version: options.version },
      otlp: [
        ...(otlp === undefined ? [] : [{ name: "otlp" as const, ...otlp }]),
        ...(phoenix === undefined ? [] : [{ name: "phoenix" as const, ...phoenix }]),
      ],
      mask: options.mask,
      capture: options.capture,
      traceparent: options.traceparent,
      version: options.version,
    },
    { log: options.log ?? pino({ level: "warn" }, pino.destination({ fd: 2, sync: true })) },
  );
  const tracer = new GraphTracer(observer);
  const onIdle = (): void => void observer.flush(DEFAULT_TIMEOUT_MS);
  process.once("beforeExit", onIdle);
  return {
    trace: (graph, about = {}) => tracer.trace(graph, about),
    status: () => observer.status(),
    flush: (timeoutMs = DEFAULT_TIMEOUT_MS) => observer.flush(timeoutMs),
    async close(timeoutMs = DEFAULT_TIMEOUT_MS) {
      process.off("beforeExit", onIdle);
      await observer.shutdown(timeoutMs);
    },
  };
}
