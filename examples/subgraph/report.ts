import type { RunnableConfig } from "@langchain/core/runnables";
import { Annotation, END, START, StateGraph } from "@langchain/langgraph";

/** Why the server asks for the graph: to run it, or only to look at it, as for its drawing. */
interface Runtime {
  accessContext: string;
  /** Only while a run is executed; `context` is what the client sent with it. */
  executionRuntime: { context?: { audience?: string } } | null;
}

const append = (old: string[], more: string[]): string[] => [...old, ...more];

const Report = Annotation.Root({
  topic: Annotation<string>,
  findings: Annotation<string[]>({ reducer: append, default: () => [] }),
  report: Annotation<string>,
});

/**
 * A graph made anew for every run. The number of sources comes from the run's `config.configurable.sources`,
 * the reader from its `context.audience`.
 */
export async function createReport(config: RunnableConfig, runtime?: Runtime) {
  const sources = Number(config.configurable?.["sources"] ?? 2);
  // What costs time or money, such as a connection, is best opened only if there is something to run.
  const audience = runtime?.executionRuntime?.context?.audience ?? "everybody";

  return new StateGraph(Report)
    .addNode("research", createResearch(sources))
    .addNode("write", ({ topic, findings }) => ({
      report: [`Report on ${topic} for ${audience}`, ...findings.map((line) => `- ${line}`)].join(
        "\n",
      ),
    }))
    .addEdge(START, "research")
    .addEdge("research", "write")
    .addEdge("write", END)
    .compile();
}

/** The subgraph: its steps appear in streams with `stream_subgraphs`, and as an agent in a trace. */
function createResearch(sources: number) {
  const Research = Annotation.Root({
    topic: Annotation<string>,
    hits: Annotation<string[]>,
    findings: Annotation<string[]>({ reducer: append, default: () => [] }),
  });
  return new StateGraph(Research)
    .addNode("search", ({ topic }) => ({
      hits: Array.from({ length: sources }, (_, i) => `source ${i + 1} about ${topic}`),
    }))
    .addNode("summarise", ({ hits }) => ({ findings: hits.map((hit) => `${hit}, in one line`) }))
    .addEdge(START, "search")
    .addEdge("search", "summarise")
    .addEdge("summarise", END)
    .compile();
}
