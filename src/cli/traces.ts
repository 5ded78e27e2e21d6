import { loadConfig } from "../config/load.ts";
import type { Config } from "../config/schema.ts";
import { loadConfiguredTracing } from "../observability/configured.ts";
import { createLogger } from "../observability/log.ts";
import type { ServeOptions } from "./options.ts";
import { readVersion } from "./serve.ts";
import { openTraceSpool, type TraceSpool, type WaitingReport } from "./trace-spool.ts";

export const TRACES_ACTIONS = ["status", "flush", "dead-letters", "replay"] as const;

export interface TracesOptions extends ServeOptions {
  action: (typeof TRACES_ACTIONS)[number];
  json: boolean;
  /** How long `flush` may take. */
  timeoutMs: number;
}

const LOOK_EVERY_MS = 200;

/**
 * `aegra traces`: what waits for Langfuse and the other targets, on disk or in the database, and what to do about it.
 * Servers of the same project may run meanwhile. Resolves with the exit code: 1 if something is left that should not
 * be.
 */
export async function traces(options: TracesOptions): Promise<number> {
  const config = await loadConfig({ ...options, mode: "start", needsGraphs: false });
  if (config.tracing.spool === "memory") {
    print("Traces wait in memory (tracing.spool): there is nothing to see from outside.");
    return 0;
  }
  const spool = await openTraceSpool(config);
  try {
    switch (options.action) {
      case "status":
        return await showStatus(spool, options.json);
      case "flush":
        return await flush(config, spool, options.timeoutMs);
      case "dead-letters":
        return await showDeadLetters(spool, options.json);
      case "replay":
        return await replay(spool);
    }
  } finally {
    await spool.close();
  }
}

async function showStatus(spool: TraceSpool, json: boolean): Promise<number> {
  const reports = await spool.status();
  if (json) {
    const waiting = reports.map((report) => ({ ...report, oldest: toIso(report.oldest) }));
    print(JSON.stringify({ place: spool.place, spool: waiting }, null, 2));
    return 0;
  }
  print(`Spool ${spool.place}`);
  if (reports.length === 0) print("  nothing waits");
  for (const report of reports) for (const line of renderReport(report)) print(`  ${line}`);
  return 0;
}

function renderReport(report: WaitingReport): string[] {
  const { target, stream, records, bytes, oldest, owners, dead_letters: letters } = report;
  const age = oldest === undefined ? "" : `, the oldest for ${toAge(Date.now() - oldest)}`;
  const waiting = records === 0 ? "nothing waits" : `${records} wait (${toSize(bytes)}${age})`;
  const dead = letters === 0 ? "" : `; ${countLetters(letters)}`;
  return [
    `${target} ${stream}: ${waiting}${dead}`,
    ...owners.map((owner) => `  ${owner.records} ${owner.whose}`),
  ];
}

async function flush(config: Config, spool: TraceSpool, timeoutMs: number): Promise<number> {
  const log = createLogger({ level: "warn", pretty: config.log.pretty });
  const { outbox, superseded } = spool;
  const observer = await loadConfiguredTracing(config, {
    log,
    version: readVersion(),
    outbox,
    superseded,
  });
  const deadline = Date.now() + timeoutMs;
  try {
    if (observer.status().length === 0) {
      print("Tracing is off, so there is nowhere to send traces to (LANGFUSE_LOGGING=true).");
      return 1;
    }
    // What processes that are gone left is taken over in the background, and then sent.
    while (Date.now() < deadline) {
      await delay(Math.min(LOOK_EVERY_MS, deadline - Date.now()));
      const empty = await observer.flush(Math.min(1_000, deadline - Date.now()));
      if (empty && (await spool.left()) === 0) break;
    }
    const statuses = observer.status();
    const taken = sum(
      statuses,
      ({ spans, delivery }) => spans.pending + (delivery?.scores?.pending ?? 0),
    );
    const sent = sum(statuses, ({ spans, delivery }) => spans.sent + (delivery?.scores?.sent ?? 0));
    // What was not taken over in time is known to the spool alone.
    const unsent = await spool.left();
    const left = Math.max(taken, unsent);
    print(`${sent} sent, ${left} left.`);
    for (const { name, last_error: error, delivery } of statuses) {
      if (error !== undefined) print(`  ${name}: ${error}`);
      const scores = delivery?.scores?.last_error;
      if (scores !== undefined) print(`  ${name}, scores: ${scores}`);
    }
    if (unsent > taken) {
      const late = `The time was over before ${unsent - taken} of them were taken over: --timeout takes more seconds.`;
      print(`  ${spool.problem() ?? late}`);
    }
    return left === 0 ? 0 : 1;
  } finally {
    await observer.shutdown(0);
  }
}

async function showDeadLetters(spool: TraceSpool, json: boolean): Promise<number> {
  const letters = await spool.deadLetters();
  if (json) {
    print(JSON.stringify(letters, null, 2));
    return 0;
  }
  if (letters.length === 0) print("There are no dead letters.");
  for (const { target, stream, trace_id: traceId, bytes, buried_at, answer, path } of letters) {
    print(`${buried_at}  ${target} ${stream}  trace ${traceId}  ${toSize(bytes)}`);
    print(`  ${answer}`);
    if (path !== undefined) print(`  ${path}`);
  }
  return 0;
}

async function replay(spool: TraceSpool): Promise<number> {
  const replayed = await spool.replay();
  print(
    replayed === 0
      ? "There are no dead letters."
      : `${countLetters(replayed)} ${replayed === 1 ? "is" : "are"} in the spool again. A running server sends what is there within seconds; "aegra traces flush" does so at once.`,
  );
  return 0;
}

function countLetters(letters: number): string {
  return letters === 1 ? "1 dead letter" : `${letters} dead letters`;
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
