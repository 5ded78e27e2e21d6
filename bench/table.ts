import type { Measurement } from "./closed-loop.ts";

/** A measurement with the processor time the target's process took for it, where the system tells. */
export interface Measured extends Measurement {
  cpuMs: number | undefined;
}

/** Target to measure to what each round gave. */
export type Results = Map<string, Map<string, Measured[]>>;

interface Column {
  title: string;
  measure: string;
  value: (measured: Measured) => number | undefined;
  digits: number;
  /** Whether more is better, for the ratio to the raw graph; no ratio without it. */
  rate?: boolean;
}

const perSecond = (count: number, { elapsedMs }: Measured): number => (count * 1_000) / elapsedMs;
const cpuPerRun = ({ cpuMs, runs }: Measured): number | undefined =>
  cpuMs === undefined ? undefined : cpuMs / runs;

const COLUMNS: Record<string, Column[]> = {
  "Five-node graph": [
    { title: "runs/s", measure: "wait", value: (m) => perSecond(m.runs, m), digits: 0, rate: true },
    { title: "CPU ms/run", measure: "wait", value: cpuPerRun, digits: 1 },
    {
      title: "alone p50 ms",
      measure: "wait alone",
      value: (m) => quantile(m.totals, 0.5),
      digits: 1,
    },
    { title: "p99 ms", measure: "wait alone", value: (m) => quantile(m.totals, 0.99), digits: 1 },
    {
      title: "on a thread runs/s",
      measure: "thread",
      value: (m) => perSecond(m.runs, m),
      digits: 0,
      rate: true,
    },
    { title: "CPU ms/run", measure: "thread", value: cpuPerRun, digits: 1 },
    {
      title: "alone p50 ms",
      measure: "thread alone",
      value: (m) => quantile(m.totals, 0.5),
      digits: 1,
    },
    { title: "p99 ms", measure: "thread alone", value: (m) => quantile(m.totals, 0.99), digits: 1 },
  ],
  "500 tokens, streamed": [
    {
      title: "events/s",
      measure: "stream",
      value: (m) => perSecond(m.events, m),
      digits: 0,
      rate: true,
    },
    { title: "CPU ms/run", measure: "stream", value: cpuPerRun, digits: 1 },
    {
      title: "first event p50 ms",
      measure: "stream alone",
      value: (m) => quantile(m.firstEvents, 0.5),
      digits: 1,
    },
    {
      title: "p99 ms",
      measure: "stream alone",
      value: (m) => quantile(m.firstEvents, 0.99),
      digits: 1,
    },
    {
      title: "first token p50 ms",
      measure: "stream alone",
      value: (m) => quantile(m.firstTokens, 0.5),
      digits: 1,
    },
    {
      title: "whole p50 ms",
      measure: "stream alone",
      value: (m) => quantile(m.totals, 0.5),
      digits: 1,
    },
  ],
};

/** The medians of all rounds as Markdown, rates also as a share of the raw graph's in the same round. */
export function toMarkdown(results: Results): string {
  return Object.entries(COLUMNS)
    .map(([heading, columns]) => {
      const rows = [...results].map(([target, measures]) => [
        target,
        ...columns.map((column) => toCell(column, measures, results.get("raw"))),
      ]);
      const lines = [
        ["", ...columns.map(({ title }) => title)],
        columns.map(() => "---:"),
        ...rows,
      ];
      lines[1] = ["---", ...lines[1]!];
      return `${heading}:\n\n${lines.map((cells) => `| ${cells.join(" | ")} |`).join("\n")}`;
    })
    .join("\n\n");
}

function toCell(
  column: Column,
  measures: Map<string, Measured[]>,
  raw: Map<string, Measured[]> | undefined,
): string {
  const rounds = (measures.get(column.measure) ?? []).map((m) => column.value(m));
  const value = median(rounds);
  if (value === undefined) return "";
  // There is no raw graph on a thread; it is compared with the one without.
  const base = raw?.get(column.measure === "thread" ? "wait" : column.measure) ?? [];
  const shares = rounds.map((round, index) => {
    const reference = base[index] && column.value(base[index]);
    return round === undefined || reference === undefined ? undefined : round / reference;
  });
  const share = column.rate ? median(shares) : undefined;
  const text = value.toFixed(column.digits);
  return share === undefined ? text : `${text} (${(share * 100).toFixed(0)}%)`;
}

export function median(values: (number | undefined)[]): number | undefined {
  return quantile(
    values.filter((value) => value !== undefined),
    0.5,
  );
}

/** The value below which this share of the values is; between two, the nearer one. */
export function quantile(values: number[], share: number): number | undefined {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.round((sorted.length - 1) * share)];
}
