/**
 * A cluster under faults: real `aegra start` processes on one real PostgreSQL behind a proxy, official clients that
 * hold conversations with tools and questions, and one fault after the other. Afterwards what every client saw is
 * compared with the database: runs, events, checkpoints, questions, traces.
 *
 *   npm run cluster -- [--seconds 60] [--conversations 16] [--pause 500] [--api 2] [--workers 2] [--all 0]
 *                      [--faults all|none|"kill -9,SIGTERM,..."] [--every 4] [--seed 1] [--lease 10] [--untraced] [--write]
 *
 * `--every` is the time between two faults in seconds, about. The same seed chooses the same faults and turns; when
 * they meet what is for the machine to decide. `--write` puts the numbers into docs/reliability.md. The exit code is 1
 * if anything was violated.
 */
import { parseArgs } from "node:util";
import { FAULTS, type FaultKind } from "./faults.ts";
import { runLab } from "./lab.ts";
import type { Role } from "./members.ts";
import { render, writeReport } from "./report.ts";

const { values: flags } = parseArgs({
  options: {
    seconds: { type: "string", default: "60" },
    conversations: { type: "string", default: "16" },
    pause: { type: "string", default: "500" },
    api: { type: "string", default: "2" },
    workers: { type: "string", default: "2" },
    all: { type: "string", default: "0" },
    faults: { type: "string", default: "all" },
    every: { type: "string", default: "4" },
    seed: { type: "string", default: "1" },
    lease: { type: "string", default: "10" },
    untraced: { type: "boolean", default: false },
    logs: { type: "boolean", default: false },
    write: { type: "boolean", default: false },
  },
});

const result = await runLab({
  durationMs: Number(flags.seconds) * 1_000,
  minimumRuns: 0,
  minimumFaults: 0,
  conversations: Number(flags.conversations),
  pauseMs: Number(flags.pause),
  roles: [
    ...times("api", flags.api),
    ...times("worker", flags.workers),
    ...times("all", flags.all),
  ],
  faults: toKinds(flags.faults),
  maxFaults: Number.POSITIVE_INFINITY,
  gapMs: Number(flags.every) * 1_000,
  seed: Number(flags.seed),
  leaseMs: Number(flags.lease) * 1_000,
  traced: !flags.untraced,
});
if (flags.logs) process.stderr.write(result.output.join("\n"));
const text = render(
  result,
  process.argv.slice(2).filter((word) => word !== "--write"),
);
process.stdout.write(`${text}\n`);
for (const violation of [...result.violations, ...result.untraced].slice(0, 50))
  process.stdout.write(`VIOLATION ${violation}\n`);
if (flags.write) await writeReport(text);
process.exit(result.violations.length + result.untraced.length === 0 ? 0 : 1);

function times(role: Role, count: string): Role[] {
  return Array.from({ length: Number(count) }, () => role);
}

function toKinds(words: string): FaultKind[] {
  const kinds = Object.keys(FAULTS) as FaultKind[];
  if (words === "all") return kinds;
  if (words === "none") return [];
  return words.split(",").map((word) => {
    const kind = kinds.find((known) => known === word.trim());
    if (!kind) throw new Error(`--faults: "${word}" is none of ${kinds.join(", ")}`);
    return kind;
  });
}
