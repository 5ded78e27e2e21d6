import { join } from "node:path";
import { runCli } from "../fixtures/cli.ts";
import { createProject, startChild, type ChildServer } from "./child-server.ts";
import type { LangfuseReceiver, ReceivedSpan } from "./langfuse-receiver.ts";

/**
 * Three quick nodes; three of 5 ms; three that take their time, so that a process can be killed between them; and three of which the
 * second kills its process.
 */
const GRAPH = `
import { Annotation, StateGraph } from "@langchain/langgraph";

const State = Annotation.Root({
  input: Annotation<string>(),
  trail: Annotation<string[]>({ reducer: (a, b) => a.concat(b), default: () => [] }),
});
const build = (ms: number, deadly = "") => {
  const node = (name: string) => async () => {
    if (ms > 0) await new Promise((resolve) => setTimeout(resolve, ms));
    if (name === deadly) process.kill(process.pid, "SIGKILL");
    // Only the slow graph: a process that is to be killed in its second node does not get beyond it.
    if (ms === 300 && process.env.HOLD === name) await new Promise(() => {});
    return { trail: [name] };
  };
  return new StateGraph(State)
    .addNode("one", node("one"))
    .addNode("two", node("two"))
    .addNode("three", node("three"))
    .addEdge("__start__", "one")
    .addEdge("one", "two")
    .addEdge("two", "three")
    .compile();
};
export const quick = build(0);
export const brief = build(5);
export const slow = build(300);
export const poison = build(100, "two");
`;

/** The observations of a run of either graph: the root and its nodes. */
const SPANS = ["one", "three", "two"];

/** A project whose runs are traced, in a folder of its own with its own data. */
export interface TracedProject {
  folder: string;
  /** Starts `aegra start`; variables outrank those of the project. */
  start(env?: Record<string, string | undefined>): Promise<ChildServer>;
  /** Runs `aegra traces` with these arguments, and gives what it printed when it has ended. */
  traces(...args: string[]): Promise<{ code: number; output: string }>;
  remove(): Promise<void>;
}

/** Creates it, with more settings for its `aegra.json`. Nothing waits long: short timeouts, small batches. */
export async function createTracedProject(
  receiver: Pick<LangfuseReceiver, "url" | "publicKey" | "secretKey">,
  env: Record<string, string | undefined> = {},
  settings: Record<string, unknown> = {},
): Promise<TracedProject> {
  const project = await createProject({
    "graph.ts": GRAPH,
    "aegra.json": JSON.stringify({
      graphs: {
        quick: "./graph.ts:quick",
        brief: "./graph.ts:brief",
        slow: "./graph.ts:slow",
        poison: "./graph.ts:poison",
      },
      ...settings,
    }),
  });
  const ownEnv = {
    AEGRA_DATA_DIR: join(project.folder, ".aegra"),
    LANGFUSE_LOGGING: "true",
    LANGFUSE_PUBLIC_KEY: receiver.publicKey,
    LANGFUSE_SECRET_KEY: receiver.secretKey,
    LANGFUSE_HOST: receiver.url,
  };
  return {
    ...project,
    start: (overrides = {}) =>
      startChild(project.folder, {
        ...ownEnv,
        LANGFUSE_TIMEOUT: "0.5",
        LANGFUSE_FLUSH_INTERVAL: "0.05",
        ...env,
        ...overrides,
      }),
    async traces(...args) {
      const cli = runCli(["traces", ...args], {
        cwd: project.folder,
        env: { ...ownEnv, LOG_FORMAT: "json", ...env },
      });
      return { code: await cli.exited, output: cli.output() };
    },
  };
}

/** One run without a thread, waited for. Gives its trace id; throws if it did not succeed. */
export async function runOnce(server: ChildServer, graph: "quick" | "slow"): Promise<string> {
  let runId = "";
  const output: unknown = await server.client.runs.wait(null, graph, {
    input: { input: "x" },
    onRunCreated: (run) => (runId = run.run_id),
  });
  const trail = (output as { trail?: string[] }).trail?.join();
  if (trail !== "one,two,three")
    throw new Error(`the run answered ${JSON.stringify(output).slice(0, 500)}`);
  return runId.replaceAll("-", "");
}

/** What is missing of these traces, as sentences; empty if each has its root and the named spans. */
export function missing(
  spans: readonly ReceivedSpan[],
  traceIds: readonly string[],
  expected: readonly string[] = SPANS,
): string[] {
  const byTrace = new Map<string, Map<string, ReceivedSpan>>();
  for (const span of spans) {
    const trace = byTrace.get(span.traceId) ?? new Map<string, ReceivedSpan>();
    byTrace.set(span.traceId, trace.set(span.spanId, span));
  }
  return traceIds.flatMap((traceId) => {
    const trace = [...(byTrace.get(traceId)?.values() ?? [])];
    const roots = trace.filter((span) => span.parentSpanId === undefined);
    const names = new Set(trace.map((span) => span.name));
    return [
      ...(roots.length === 1 ? [] : [`${traceId}: ${roots.length} roots`]),
      ...expected.filter((name) => !names.has(name)).map((name) => `${traceId}: no ${name}`),
    ];
  });
}
