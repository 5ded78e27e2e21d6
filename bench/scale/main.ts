/**
 * What many processes, many readers and many rows do, on a PostgreSQL of its own with its own defaults.
 *
 *   npm run bench -- scale [--only processes,delivery,rows] [--processes 1,2,4] [--rounds 3] [--seconds 3]
 *                          [--readers 1x5000,10x1000,100x100] [--idle 1000]
 *                          [--threads 1000,100000] [--checkpoints 10] [--waiting 100000] [--write]
 *
 * `--readers` are cases of so many readers of one run and the events it says in a second. `--write` puts the
 * tables into docs/performance.md.
 */
import { readFile, writeFile } from "node:fs/promises";
import { cpus, loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { measureDelivery } from "./delivery.ts";
import { measureRows } from "./rows.ts";
import { measureThroughput } from "./throughput.ts";

const { values: flags } = parseArgs({
  options: {
    only: { type: "string", default: "processes,delivery,rows" },
    processes: { type: "string", default: "1,2,4" },
    rounds: { type: "string", default: "3" },
    seconds: { type: "string", default: "3" },
    readers: { type: "string", default: "1x5000,10x1000,100x100" },
    idle: { type: "string", default: "1000" },
    threads: { type: "string", default: "1000,100000" },
    checkpoints: { type: "string", default: "10" },
    waiting: { type: "string", default: "100000" },
    write: { type: "boolean", default: false },
  },
});

const numbers = (text: string): number[] => text.split(",").map(Number);
const seconds = Number(flags.seconds);
const parts: Record<string, () => Promise<string>> = {
  processes: () =>
    measureThroughput({
      processes: numbers(flags.processes),
      rounds: Number(flags.rounds),
      durationMs: seconds * 1_000,
    }),
  delivery: () =>
    measureDelivery({
      cases: flags.readers.split(",").map((word) => {
        const [readers = 1, rate = 1] = word.split("x").map(Number);
        return { readers, rate };
      }),
      seconds,
      idle: Number(flags.idle),
    }),
  rows: () =>
    measureRows({
      threads: numbers(flags.threads),
      checkpoints: Number(flags.checkpoints),
      waiting: Number(flags.waiting),
      plans: flags.write,
    }),
};

const given = process.argv.slice(2).filter((word) => word !== "--write");
for (const name of flags.only.split(",")) {
  const part = parts[name];
  if (!part) throw new Error(`--only: "${name}" is none of ${Object.keys(parts).join(", ")}`);
  const table = await part();
  const machine = `${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)} at the end, Node ${process.version}`;
  const text = `\`npm run bench -- scale ${given.join(" ")}\` on ${new Date().toISOString().slice(0, 10)}: ${machine}.\n\n${table}\n`;
  process.stdout.write(`${text}\n`);
  if (flags.write) await writeTable(name, text);
}
process.exit(0);

async function writeTable(name: string, text: string): Promise<void> {
  const path = fileURLToPath(new URL("../../docs/performance.md", import.meta.url));
  const page = await readFile(path, "utf8");
  const marked = new RegExp(`(<!-- scale ${name} -->\n)[\\s\\S]*(<!-- /scale ${name} -->)`, "u");
  if (!marked.test(page)) throw new Error(`${path} has no place for the table of ${name}`);
  await writeFile(
    path,
    page.replace(marked, (_all, begin: string, end: string) => `${begin}\n${text}\n${end}`),
  );
}
