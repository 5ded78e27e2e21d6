import { readFile, writeFile } from "node:fs/promises";
import { cpus, loadavg } from "node:os";
import { fileURLToPath } from "node:url";
import type { LabResult } from "./lab.ts";
import { recoveryMs } from "./probe.ts";

/** What the lab found, as Markdown. */
export function render(result: LabResult, args: readonly string[]): string {
  const views = result.conversations.flatMap((conversation) => conversation.views);
  const reconnects = views.reduce((sum, view) => sum + view.reconnects, 0);
  const unanswered = result.conversations.flatMap((conversation) => conversation.unanswered);
  const ended = new Set(result.runs.map((run) => run.turn));
  const machine = `${cpus().length} cores, load ${loadavg()[0]?.toFixed(1)} at the end, Node ${process.version}`;
  const facts = [
    `${result.runs.length} runs on ${new Set(result.runs.map((run) => run.thread_id)).size} threads, ${result.events} stored events, ${result.checkpoints} checkpoints, ${result.spans} spans`,
    `${result.violations.length} violations; ${result.untraced.length} gaps in traces`,
    `${result.retried} runs took more than one attempt; ${[...result.failed.values()].reduce((a, b) => a + b, 0)} ended with an error`,
    `${reconnects} times a client had to ask again by itself; ${unanswered.length} requests got no answer, of which ${unanswered.filter((turn) => ended.has(turn)).length} began a run nevertheless`,
    `${result.seenOnly} events were seen of attempts that were lost before they were stored`,
    `no run was active ${(result.settledMs / 1_000).toFixed(1)} s after the last client; the processes ended with ${result.exits.join(", ")}`,
    ...[...result.failed].map(([message, count]) => `error, ${count} times: ${message}`),
  ];
  return [
    `\`npm run cluster -- ${args.join(" ")}\` on ${new Date().toISOString().slice(0, 10)}: ${machine}.\n\n`,
    ...facts.map((fact) => `- ${fact}\n`),
    "\n",
    ...renderFaults(result),
  ].join("");
}

function renderFaults({ faults, probes }: LabResult): string[] {
  const kinds = [...new Set(faults.map((fault) => fault.kind))];
  if (kinds.length === 0) return [];
  const rows = kinds.map((kind) => {
    const recoveries = faults.flatMap((fault, at) =>
      fault.kind === kind
        ? [recoveryMs(probes, fault.at, faults[at + 1]?.at ?? Number.POSITIVE_INFINITY)]
        : [],
    );
    const longest = Math.max(...faults.filter((f) => f.kind === kind).map((f) => f.until - f.at));
    const sorted = recoveries.toSorted((a, b) => a - b);
    return [
      kind,
      String(recoveries.length),
      seconds(longest),
      seconds(sorted[Math.floor((sorted.length - 1) / 2)] ?? 0),
      seconds(sorted.at(-1) ?? 0),
    ];
  });
  const heads = ["fault", "times", "lasted at most", "prompt again after, median", "at most"];
  return [heads, heads.map(() => "---"), ...rows].map((cells) => `| ${cells.join(" | ")} |\n`);
}

function seconds(ms: number): string {
  return `${(ms / 1_000).toFixed(1)} s`;
}

/** Puts the numbers into their place in docs/reliability.md. */
export async function writeReport(text: string): Promise<void> {
  const path = fileURLToPath(new URL("../../docs/reliability.md", import.meta.url));
  const page = await readFile(path, "utf8");
  const marked = /(<!-- cluster -->\n)[\s\S]*(<!-- \/cluster -->)/u;
  if (!marked.test(page)) throw new Error(`${path} has no place for the numbers`);
  await writeFile(
    path,
    page.replace(marked, (_all, begin: string, end: string) => `${begin}\n${text}\n${end}`),
  );
}
