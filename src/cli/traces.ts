import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { loadConfiguredTracing } from "../observability/configured.ts";
import {
  findDeadLetters,
  inspectSpool,
  replayDeadLetters,
  type SpoolReport,
} from "../observability/delivery/spool-report.ts";
import { createLogger } from "../observability/log.ts";
import type { ServeOptions } from "./options.ts";
import { readVersion } from "./serve.ts";

export const TRACES_ACTIONS = ["status", "flush", "dead-letters", "replay"] as const;

export interface TracesOptions extends ServeOptions {
  action: (typeof TRACES_ACTIONS)[number];
  json: boolean;
  /** How long `flush` may take. */
  timeoutMs: number;
}

const LOOK_EVERY_MS = 200;

/**
 * `aegra traces`: what waits on disk for Langfuse and the other targets, and what to do about it. Servers of the
 * same project may run meanwhile. Resolves with the exit code: 1 if something is left that should not be.
 */
export async function traces(options: TracesOptions): Promise<number> {
  const config = await loadConfig({ ...options, mode: "start", needsGraphs: false });
  const { directory, spool } = config.tracing;
  if (spool === "memory") {
    print("Traces wait in memory (tracing.spool): there is nothing on disk.");
    return 0;
  }
  switch (options.action) {
    case "status":
      return showStatus(directory, options.json);
    case "flush":
      return flush(config, options.timeoutMs);
    case "dead-letters":
      return showDeadLetters(directory, options.json);
    case "replay":
      return replay(directory);
  }
}

async function showStatus(folder: string, json: boolean): Promise<number> {
  const reports = await inspectSpool(folder);
  if (json) {
    const spool = reports.map((report) => ({ ...report, oldest: toIso(report.oldest) }));
    print(JSON.stringify({ folder, spool }, null, 2));
    return 0;
  }
  print(`Spool ${folder}`);
  if (reports.length === 0) print("  nothing waits");
  for (const report of reports) for (const line of renderReport(report)) print(`  ${line}`);
  return 0;
}

function renderReport(report: SpoolReport): string[] {
  const { target, stream, records, bytes, oldest, writers, dead_letters: letters } = report;
  const age = oldest === undefined ? "" : `, the oldest for ${toAge(Date.now() - oldest)}`;
  const waiting = records === 0 ? "nothing waits" : `${records} wait (${toSize(bytes)}${age})`;
  const dead = letters === 0 ? "" : `; ${letters} dead letters`;
  return [
    `${target} ${stream}: ${waiting}${dead}`,
    ...writers.map(({ pid, state, records: count }) => {
      const whose = {
        alive: `of process ${pid}, which sends them`,
        elsewhere: `of process ${pid} of another host or container`,
        gone: `of a process that is gone: the next start, or "aegra traces flush", sends them`,
      };
      return `  ${count} ${whose[state]}`;
    }),
  ];
}

async function flush(config: Config, timeoutMs: number): Promise<number> {
  const { directory } = config.tracing;
  const log = createLogger({ level: "warn", pretty: config.log.pretty });
  const observer = await loadConfiguredTracing(config, { log, version: readVersion() });
  const deadline = Date.now() + timeoutMs;
  try {
    if (observer.status().length === 0) {
      print("Tracing is off, so there is nowhere to send traces to (LANGFUSE_LOGGING=true).");
      return 1;
    }
    // What processes that are gone left is taken over in the background, and then sent.
    while (Date.now() < deadline) {
      await delay(LOOK_EVERY_MS);
      const empty = await observer.flush(Math.min(1_000, deadline - Date.now()));
      if (empty && (await countOurs(directory)) === 0) break;
    }
    const statuses = observer.status();
    const left = sum(
      statuses,
      ({ spans, delivery }) => spans.pending + (delivery?.scores?.pending ?? 0),
    );
    const sent = sum(statuses, ({ spans, delivery }) => spans.sent + (delivery?.scores?.sent ?? 0));
    print(`${sent} sent, ${left} left.`);
    for (const { name, last_error: error } of statuses)
      if (error !== undefined) print(`  ${name}: ${error}`);
    return left === 0 && (await countOurs(directory)) === 0 ? 0 : 1;
  } finally {
    await observer.shutdown(0);
  }
}

/** What nobody but this process will send, on its way into it or there. */
async function countOurs(folder: string): Promise<number> {
  const writers = (await inspectSpool(folder)).flatMap((report) => report.writers);
  const ours = writers.filter(({ pid, state }) => state === "gone" || pid === process.pid);
  return sum(ours, ({ records }) => records);
}

async function showDeadLetters(folder: string, json: boolean): Promise<number> {
  const letters = await findDeadLetters(folder);
  if (json) {
    print(
      JSON.stringify(
        letters.map(({ buriedAt, traceId, ...letter }) => ({
          ...letter,
          trace_id: traceId,
          buried_at: toIso(buriedAt),
        })),
        null,
        2,
      ),
    );
    return 0;
  }
  if (letters.length === 0) print("There are no dead letters.");
  for (const { target, stream, traceId, bytes, buriedAt, answer, path } of letters) {
    print(`${toIso(buriedAt)}  ${target} ${stream}  trace ${traceId}  ${toSize(bytes)}`);
    print(`  ${answer}`);
    print(`  ${path}`);
  }
  return 0;
}

async function replay(folder: string): Promise<number> {
  const replayed = await replayDeadLetters(folder);
  print(
    replayed === 0
      ? "There are no dead letters."
      : `${replayed} dead letters are in the spool again. A running server sends them within seconds; "aegra traces flush" does so at once.`,
  );
  return 0;
}

function print(line: string): void {
  process.stdout.write(`${line}\n`);
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0);
}

function toIso(time: number | undefined): string | undefined {
  return time === undefined ? undefined : new Date(time).toISOString();
}

function toSize(bytes: number): string {
  return bytes < 1_000_000
    ? `${Math.ceil(bytes / 1_000)} kB`
    : `${(bytes / 1_000_000).toFixed(1)} MB`;
}

function toAge(ms: number): string {
  const seconds = Math.round(ms / 1_000);
  if (seconds < 120) return `${seconds} s`;
  return seconds < 7_200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3_600)} h`;
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, ms);
  });
}
