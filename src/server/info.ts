import { createRequire } from "node:module";
import type { GraphRegistry } from "../graphs/registry.ts";
import type { Observer } from "../observability/observer.ts";
import type { RunRecord } from "../storage/run-record.ts";

/** What `/info` answers: what clients look for, and how the parts of this server are. */
export function toInfo(parts: {
  observer: Observer;
  database: { kind: string };
  graphs: GraphRegistry;
}): object {
  const { observer, database, graphs } = parts;
  return {
    version: ownVersion(),
    langgraph_js_version: packageVersion("@langchain/langgraph"),
    context: "js",
    flags: {
      assistants: true,
      crons: true,
      langsmith: false,
      langsmith_tracing_replicas: false,
      strict_resume: true,
      stream_namespaces: true,
    },
    server: "aegra",
    database: database.kind,
    graphs: {
      loaded: graphs.ids().filter((id) => graphs.describe(id)?.kind !== "failed"),
      failed: graphs.failures().map(({ id }) => id),
    },
    tracing: observer.status(),
  };
}

/** What the API adds to a run: where its trace is. */
export function toTrace(
  observer: Observer,
  run: RunRecord,
): { trace_id?: string; trace_url?: string } {
  const { trace } = run.origin;
  if (trace === undefined) return {};
  const url = observer.traceUrl(run.run_id, trace);
  return { trace_id: trace.trace_id, ...(url !== undefined && { trace_url: url }) };
}

/** The version of this package. */
export function ownVersion(): string {
  const require = createRequire(import.meta.url);
  return (require("../../package.json") as { version: string }).version;
}

/** The installed version of a package that does not export its package.json, or does. */
function packageVersion(name: string): string {
  try {
    const require = createRequire(import.meta.url);
    return (require(`${name}/package.json`) as { version: string }).version;
  } catch {
    return "unknown";
  }
}
