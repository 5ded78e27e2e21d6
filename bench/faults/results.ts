import { readFile, rename, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Row } from "./lab.ts";

/** A row as it was measured, and how. */
export interface MeasuredRow extends Omit<Row, "elapsedMs"> {
  elapsedMs?: number;
  /** What tells the row from others of its rate. */
  name: string;
  /** Seconds. */
  outage: number;
  /** Rows measured at the same time. */
  parallel: number;
  /** Day. */
  on: string;
  /** Of the machine, at the row's end. */
  load: number;
  /** What a process held meanwhile, as a sentence. */
  note?: string | undefined;
}

interface Results {
  machine: string;
  rows: MeasuredRow[];
}

const FILE = fileURLToPath(new URL("results.json", import.meta.url));
const PAGE = fileURLToPath(new URL("../../docs/reliability.md", import.meta.url));

/** What was measured so far. A row that is measured again takes the place of the earlier one. */
export async function readResults(): Promise<Results> {
  const text = await readFile(FILE, "utf8").catch(() => undefined);
  return text === undefined ? { machine: "", rows: [] } : (JSON.parse(text) as Results);
}

/** Adds a row to the file, so that a measurement that is cut off keeps what it has. One call at a time. */
export async function keepRow(row: MeasuredRow, machine: string): Promise<void> {
  const { rows } = await readResults();
  const at = rows.findIndex(({ name, rate }) => name === row.name && rate === row.rate);
  if (at < 0) rows.push(row);
  else rows[at] = row;
  await writeFile(`${FILE}.tmp`, `${JSON.stringify({ machine, rows }, null, 2)}\n`);
  await rename(`${FILE}.tmp`, FILE);
}

const HEADS = [
  "fault",
  "asked",
  "for",
  "runs",
  "failed",
  "p50",
  "p99",
  "spans",
  "sent twice, same bytes",
  "not the same",
  "traces lost",
  "all there after",
  "measured",
  "load",
];

/** Puts the results into docs/reliability.md, rows in the order of `names`. */
export async function writePage(names: readonly string[]): Promise<void> {
  const { machine, rows } = await readResults();
  const place = ({ name, rate }: MeasuredRow): number => rate * 1_000 + names.indexOf(name);
  const sorted = rows.toSorted((a, b) => place(a) - place(b));
  const days = [...new Set(rows.map(({ on }) => on))].toSorted().join(", ");
  const table = [
    `Measured on ${days} (${machine}; at 10/s up to ${Math.max(...rows.map(({ parallel }) => parallel))} rows at the same time). The load is the machine's at the row's end: above 2, latencies tell of the queue for its cores.\n\n`,
    line(HEADS),
    line(HEADS.map(() => "---")),
    ...sorted.map((row) => line(toCells(row))),
    ...sorted.flatMap(({ fault, rate, note }) =>
      note === undefined ? [] : [`\n${fault} at ${rate}/s, ${note}.\n`],
    ),
  ].join("");
  const page = await readFile(PAGE, "utf8");
  const marked = /(<!-- faults -->\n)[\s\S]*(<!-- \/faults -->)/u;
  if (!marked.test(page)) throw new Error(`${PAGE} has no place for the table`);
  await writeFile(
    PAGE,
    page.replace(marked, (_all, begin, end) => `${begin}\n${table}\n${end}`),
  );
}

/** A row as a person reads it. */
export function toCells(row: MeasuredRow): string[] {
  const ms = (value: number): string => `${value.toFixed(0)} ms`;
  return [
    row.fault,
    row.name === "burst" ? "all" : `${row.rate}/s`,
    `${row.elapsedMs === undefined ? row.outage : Math.round(row.elapsedMs / 1_000)} s`,
    `${row.runs}`,
    `${row.failed}`,
    ms(row.p50),
    ms(row.p99),
    ...(row.spans === undefined
      ? ["", "", "", ""]
      : [`${row.spans}`, `${row.duplicates}`, `${row.different}`, `${row.lost}`]),
    row.recoveredMs === undefined ? "" : `${(row.recoveredMs / 1_000).toFixed(1)} s`,
    row.on,
    row.load.toFixed(0),
  ];
}

function line(cells: string[]): string {
  return `| ${cells.join(" | ")} |\n`;
}
