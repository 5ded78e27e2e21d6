import { startChild, type Child } from "../child.ts";
import type { Measurement, Workload } from "../closed-loop.ts";
import { openServers } from "./servers.ts";

export interface ThroughputOptions {
  /** Numbers of processes to compare. */
  processes: readonly number[];
  rounds: number;
  durationMs: number;
}

/** Requests under way for each process, and runs it executes at a time: none waits in a queue. */
const AT_ONCE = 10;

/**
 * Runs a second on one process and on several, in turns, in one go: all processes run all the time, and the load
 * goes to some of them. One table for a graph that only computes, one for a graph that waits.
 */
export async function measureThroughput(options: ThroughputOptions): Promise<string> {
  const most = Math.max(...options.processes);
  const servers = await openServers(most, AT_ONCE);
  const loads = servers.list.map(() => startChild("load.ts"));
  try {
    const lines = [
      `| runs/s | ${options.processes.map((count) => `${count} process${count === 1 ? "" : "es"}`).join(" | ")} |`,
      `| --- | ${options.processes.map(() => "---:").join(" | ")} |`,
    ];
    const urls = servers.list.map(({ url }) => url);
    for (const graph of ["five", "patient"] as const) {
      for (const kind of ["wait", "wait on a thread"] as const) {
        const rates = await measureGraph(options, { urls, loads, graph, kind });
        const base = median(rates.get(options.processes[0]!) ?? []);
        const cells = options.processes.map((count) => {
          const rate = median(rates.get(count) ?? []);
          return `${rate.toFixed(0)} (${(rate / base).toFixed(2)})`;
        });
        const what = graph === "five" ? "five nodes that compute" : "five nodes that wait 50 ms";
        lines.push(
          `| ${what}, ${kind === "wait" ? "no thread" : "on a thread"} | ${cells.join(" | ")} |`,
        );
      }
    }
    return lines.join("\n");
  } finally {
    for (const load of loads) await load.close();
    await servers.close();
  }
}

async function measureGraph(
  { processes, rounds, durationMs }: ThroughputOptions,
  what: {
    urls: readonly string[];
    loads: readonly Child[];
    graph: Workload["graph"];
    kind: Workload["kind"];
  },
): Promise<Map<number, number[]>> {
  const rates = new Map<number, number[]>();
  // Round 0 is the warm-up.
  for (let round = 0; round <= rounds; round += 1) {
    for (const count of round % 2 === 0 ? processes : processes.toReversed()) {
      const workload: Workload = {
        kind: what.kind,
        graph: what.graph,
        concurrency: AT_ONCE,
        durationMs: round === 0 ? Math.min(500, durationMs) : durationMs,
        minimumRuns: AT_ONCE,
      };
      const measured = await Promise.all(
        what.urls
          .slice(0, count)
          .map((url, at) => what.loads[at]!.ask<Measurement>({ url, workload })),
      );
      const rate = measured.reduce((sum, one) => sum + (one.runs * 1_000) / one.elapsedMs, 0);
      if (round > 0) rates.set(count, [...(rates.get(count) ?? []), rate]);
    }
  }
  return rates;
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}
