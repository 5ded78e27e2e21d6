/*
 * Many runs at once in one process, whose event loop has no time to spare: does everything arrive, and is anything
 * left? Run: node --import jiti/register bench/faults/burst.ts [runs, default 20000]
 */
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Annotation, StateGraph } from "@langchain/langgraph";
import { pino } from "pino";
import { loadLangfuseObserver } from "../../src/observability/langfuse/observer.ts";
import { observedRun } from "../../test/langfuse/harness.ts";
import { startChild } from "../child.ts";
import type { Checked } from "./receiver.ts";

const RUNS = Number(process.argv[2] ?? 20_000);
const AT_ONCE = 100;
const NODE_MS = 5;

const State = Annotation.Root({
  trail: Annotation<string[]>({ reducer: (a, b) => a.concat(b), default: () => [] }),
});
const node = (name: string) => async () => {
  await new Promise((resolve) => setTimeout(resolve, NODE_MS));
  return { trail: [name] };
};
const graph = new StateGraph(State)
  .addNode("one", node("one"))
  .addNode("two", node("two"))
  .addNode("three", node("three"))
  .addEdge("__start__", "one")
  .addEdge("one", "two")
  .addEdge("two", "three")
  .compile();

const folder = await mkdtemp(join(tmpdir(), "aegra-burst-"));
const receiver = startChild("faults/receiver.ts");
const langfuse = await receiver.ask<{ url: string; publicKey: string; secretKey: string }>({
  what: "open",
});
const observer = await loadLangfuseObserver(
  { enabled: true, ...langfuse, host: langfuse.url },
  { log: pino({ level: "warn" }), spool: { folder } },
);

const traceIds: string[] = [];
let begun = 0;
let slowestRecorded = 0;
let mostPending = 0;
const from = performance.now();
await Promise.all(
  Array.from({ length: AT_ONCE }, async () => {
    while (begun < RUNS) {
      begun += 1;
      const run = observedRun({ input: { trail: [] } });
      const observation = observer.startRun(run);
      const output = await graph.invoke({ trail: [] }, { callbacks: observation.callbacks });
      observation.end({ status: "success", output });
      const ended = performance.now();
      await observation.recorded?.();
      slowestRecorded = Math.max(slowestRecorded, performance.now() - ended);
      mostPending = Math.max(mostPending, observer.status()[0]?.spans.pending ?? 0);
      traceIds.push(observation.traceId ?? "");
    }
  }),
);
const ranMs = performance.now() - from;
const empty = await observer.flush(120_000);
const sentMs = performance.now() - from;
const checked = await receiver.ask<Checked>({ what: "check", traceIds });
const heapMb = process.memoryUsage().heapUsed / 1e6;
await observer.shutdown(5_000);
const left = await readdir(join(folder, "langfuse", "spans"));
console.log(
  `${RUNS} runs, ${AT_ONCE} at once, ${NODE_MS} ms nodes: ${(RUNS / (ranMs / 1_000)).toFixed(0)} runs/s; ` +
    `${checked.spans} spans in ${checked.requests} requests; lost ${checked.missing.length}, sent twice ${checked.duplicates}; ` +
    `at most ${mostPending} waited; all there ${((sentMs - ranMs) / 1_000).toFixed(1)} s after the last run; ` +
    `slowest write ${slowestRecorded.toFixed(0)} ms; heap ${heapMb.toFixed(0)} MB; files left ${left.length}.`,
);
await receiver.close();
await rm(folder, { recursive: true });
process.exit(empty && checked.missing.length === 0 ? 0 : 1);
