/**
 * What tracing costs a graph, without a server around it: no handler, this project's observer, and the official
 * handler with its span processor, each in a process of its own, measured in turns. Prints Markdown.
 *
 *   npm run bench:tracing -- --rounds 5 --seconds 2 --runs 10000
 */
import { parseArgs } from "node:util";
import { startChild, type Child } from "./child.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "5" },
    seconds: { type: "string", default: "2" },
    runs: { type: "string", default: "10000" },
  },
});
const rounds = Number(values.rounds);
const VARIANTS = ["none", "aegra", "official"] as const;
type Variant = (typeof VARIANTS)[number];

interface Measured {
  runs: number;
  elapsedMs: number;
  cpuMs: number;
  latencies: number[];
}
interface Sent {
  traces: number;
  spans: number;
  bytes: number;
}

const median = (numbers: number[]): number =>
  numbers.toSorted((left, right) => left - right)[numbers.length >> 1] ?? 0;
const at = (sorted: number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;

const started: Child[] = [];
const open = (script: string, variables: Record<string, string> = {}): Child => {
  const child = startChild(script, variables, "evaluated");
  started.push(child);
  return child;
};

try {
  const sinks = new Map<Variant, Child>();
  const children = new Map<Variant, Child>();
  for (const variant of VARIANTS) {
    const sink = open("./langfuse-sink.ts");
    sinks.set(variant, sink);
    const SINK = await sink.ask<string>({ what: "address" });
    children.set(
      variant,
      open("./traced.ts", { TRACED: variant, SINK, NODE_OPTIONS: "--expose-gc" }),
    );
  }
  for (const kb of [0, 20]) await compare(kb, children, sinks);
  await memory(children.get("aegra")!, Number(values.runs));
} finally {
  for (const child of started) await child.close();
}

async function compare(
  kb: number,
  children: ReadonlyMap<Variant, Child>,
  sinks: ReadonlyMap<Variant, Child>,
): Promise<void> {
  const found = new Map<Variant, { measured: Measured; sent: Sent; ofNone: number }[]>();
  for (let round = -1; round < rounds; round += 1) {
    const order = round % 2 === 0 ? VARIANTS : VARIANTS.toReversed();
    const row = new Map<Variant, { measured: Measured; sent: Sent }>();
    for (const variant of order) {
      const question = { kb, durationMs: Number(values.seconds) * 1000 };
      const measured = await children.get(variant)!.ask<Measured>(question);
      const sent = await sinks.get(variant)!.ask<Sent>({ what: "traces" });
      row.set(variant, { measured, sent });
    }
    // The first round warms up.
    if (round < 0) continue;
    const rate = ({ runs, elapsedMs }: Measured): number => runs / elapsedMs;
    const none = rate(row.get("none")!.measured);
    for (const [variant, { measured, sent }] of row) {
      const list = found.get(variant) ?? [];
      found.set(variant, [...list, { measured, sent, ofNone: rate(measured) / none }]);
    }
  }
  console.log(`\nFive nodes, input of ${kb} KB, 8 at once:\n`);
  console.log("| | runs/s | of none | p50 ms | p99 ms | CPU ms/run | bytes/run | traces/run |");
  console.log("|---|---:|---:|---:|---:|---:|---:|---:|");
  for (const variant of VARIANTS) {
    const list = found.get(variant) ?? [];
    const of = (pick: (entry: (typeof list)[number]) => number): number => median(list.map(pick));
    const cells = [
      of(({ measured }) => (measured.runs / measured.elapsedMs) * 1000).toFixed(0),
      `${(of((entry) => entry.ofNone) * 100).toFixed(0)}%`,
      of(({ measured }) => at(measured.latencies, 0.5)).toFixed(1),
      of(({ measured }) => at(measured.latencies, 0.99)).toFixed(1),
      of(({ measured }) => measured.cpuMs / measured.runs).toFixed(2),
      of(({ measured, sent }) => sent.bytes / measured.runs).toFixed(0),
      of(({ measured, sent }) => sent.traces / measured.runs).toFixed(2),
    ];
    console.log(`| ${variant} | ${cells.join(" | ")} |`);
  }
}

async function memory(child: Child, runs: number): Promise<void> {
  const steps: string[] = [];
  for (let step = 1; step <= 5; step += 1) {
    const { heapMb } = await child.ask<{ heapMb: number }>({ kb: 0, runs: Math.ceil(runs / 5) });
    steps.push(`${(runs / 5) * step}: ${heapMb.toFixed(1)} MB`);
  }
  console.log(`\nHeap of the traced process after so many runs, collected: ${steps.join(", ")}`);
}
