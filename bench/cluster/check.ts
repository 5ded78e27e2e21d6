import type { LabDatabase } from "./database.ts";
import type { Conversation } from "./conversation.ts";
import {
  ATTEMPT_IDS,
  checkOrder,
  checkStored,
  type Kind,
  type RunView,
  type StoredEvent,
} from "./views.ts";

/** A run as the database has it. */
export interface RunRow {
  run_id: string;
  thread_id: string;
  status: string;
  attempt: number;
  interrupted: boolean;
  turn: string;
  kind: Kind;
  error: { error: string; message: string } | null;
  started_ms: number | null;
}

/** What the checker found. */
export interface Verdict {
  violations: string[];
  runs: readonly RunRow[];
  /** Runs that took more than one attempt. */
  retried: number;
  /** Runs that ended with an error, by its message; those that were given up are among them. */
  failed: Map<string, number>;
  events: number;
  checkpoints: number;
  /** Events that a client saw of an attempt that was lost before they were stored. */
  seenOnly: number;
}

const ENDED = new Set(["success", "error", "timeout", "interrupted"]);

/** Compares what all clients saw with the database, when no run is active any more. */
export async function check(
  database: LabDatabase,
  conversations: readonly Conversation[],
): Promise<Verdict> {
  const views = conversations.flatMap((conversation) => conversation.views);
  const runs = await database.query<RunRow>(
    `SELECT run_id, thread_id, status, attempt, interrupted, metadata ->> 'turn' AS turn,
       metadata ->> 'kind' AS kind, error, extract(epoch FROM started_at) * 1000 AS started_ms
     FROM runs WHERE metadata ? 'turn' ORDER BY position`,
  );
  const stored = await readEvents(database);
  const [counted] = await database.query<{ checkpoints: number }>(
    "SELECT count(*)::int AS checkpoints FROM checkpoints",
  );
  const followed = views.filter((view) => view.follows && view.run_id !== undefined);
  const violations = [
    ...conversations.flatMap((conversation) => conversation.stuck),
    ...checkRuns(views, runs),
    ...followed.flatMap((view) => checkOrder(view)),
    ...followed.flatMap((view) => checkStored(view, stored.get(view.run_id!) ?? [])),
    ...runs.flatMap((run) => checkAttempts(run, stored.get(run.run_id) ?? [])),
    ...(await checkThreads(database, runs)),
  ];
  return {
    violations,
    runs,
    retried: runs.filter((run) => run.attempt > 1).length,
    failed: countBy(runs.flatMap((run) => run.error?.message ?? [])),
    events: [...stored.values()].reduce((sum, events) => sum + events.length, 0),
    checkpoints: counted?.checkpoints ?? 0,
    seenOnly: followed.reduce((sum, view) => sum + countSeenOnly(view, stored), 0),
  };
}

async function readEvents(database: LabDatabase): Promise<Map<string, StoredEvent[]>> {
  const byRun = new Map<string, StoredEvent[]>();
  const rows = await database.query<StoredEvent>(
    "SELECT run_id, id::float8 AS id, event, data FROM run_events ORDER BY run_id, id",
  );
  for (const row of rows) {
    const events = byRun.get(row.run_id);
    if (events) events.push(row);
    else byRun.set(row.run_id, [row]);
  }
  return byRun;
}

/** Each acknowledged run is there once, and has ended; none was asked for twice. */
function checkRuns(views: readonly RunView[], runs: readonly RunRow[]): string[] {
  const byId = new Map(runs.map((run) => [run.run_id, run]));
  const problems: string[] = [];
  for (const [turn, times] of countBy(runs.map((run) => run.turn)))
    if (times > 1) problems.push(`turn ${turn} has ${times} runs`);
  for (const { run_id: id, turn } of views) {
    if (id !== undefined && !byId.has(id)) problems.push(`${id} (${turn}) was lost`);
  }
  for (const { run_id: id, status, turn } of runs)
    if (!ENDED.has(status)) problems.push(`${id} (${turn}) is still ${status}`);
  return problems;
}

/** The stored events of each attempt have no gap, and the last attempt says how it began and ended. */
function checkAttempts(run: RunRow, events: readonly StoredEvent[]): string[] {
  const problems: string[] = [];
  events.forEach(({ id }, at) => {
    const before = events[at - 1]?.id ?? -1;
    if (id !== before + 1 && id % ATTEMPT_IDS !== 0)
      problems.push(`stored event ${id} follows ${before}`);
  });
  const beginnings = events.filter(({ event }) => event === "metadata");
  const said = beginnings.map(({ data }) => (JSON.parse(data) as { attempt: number }).attempt);
  if (said.some((attempt, at) => attempt <= (said[at - 1] ?? 0)))
    problems.push(`attempts said: ${said.join()}`);
  // The events of a run nobody asked to follow need not be stored.
  if (run.status === "success" && said.length > 0 && said.at(-1) !== run.attempt)
    problems.push(`attempt ${run.attempt} ended it, ${said.at(-1)} was the last one said`);
  return problems.map((text) => `${run.run_id} (${run.turn}): ${text}`);
}

function countSeenOnly(view: RunView, stored: ReadonlyMap<string, StoredEvent[]>): number {
  const ids = new Set((stored.get(view.run_id!) ?? []).map(({ id }) => id));
  return view.events.filter(({ id }) => !ids.has(id)).length;
}

interface ThreadRow {
  thread_id: string;
  status: string;
  active_runs: number;
  trail: string[] | null;
}

/** Each thread is at rest, its checkpoints are one line, and every step of every run is in its state once. */
async function checkThreads(database: LabDatabase, runs: readonly RunRow[]): Promise<string[]> {
  const threads = await database.query<ThreadRow>(
    "SELECT thread_id, status, active_runs, values -> 'trail' AS trail FROM threads",
  );
  const forks = await database.query<{ thread_id: string; parent: string; children: number }>(
    `SELECT thread_id, parent_checkpoint_id AS parent, count(*)::int AS children FROM checkpoints
     WHERE checkpoint_ns = '' GROUP BY 1, 2 HAVING count(*) > 1`,
  );
  const asked = await database.query<{ thread_id: string; questions: number }>(
    `SELECT thread_id, count(DISTINCT (checkpoint_id, task_id))::int AS questions FROM checkpoint_writes
     WHERE channel = '__interrupt__' GROUP BY 1`,
  );
  const questions = new Map(asked.map((row) => [row.thread_id, row.questions]));
  const byThread = new Map<string, RunRow[]>();
  for (const run of runs)
    byThread.set(run.thread_id, [...(byThread.get(run.thread_id) ?? []), run]);
  return [
    ...forks.map(
      ({ thread_id: id, parent, children }) =>
        `thread ${id}: checkpoint ${parent ?? "(none)"} has ${children} children`,
    ),
    ...threads.flatMap((thread) => {
      const own = byThread.get(thread.thread_id) ?? [];
      const stopped = own.filter((run) => run.interrupted).length;
      const times = questions.get(thread.thread_id) ?? 0;
      return [
        ...(thread.active_runs === 0 ? [] : [`counts ${thread.active_runs} active runs`]),
        ...(thread.status === "busy" ? ["is busy with nothing"] : []),
        ...(times === stopped ? [] : [`asked ${times} times, and ${stopped} runs stopped to ask`]),
        ...checkTrail(own, thread.trail ?? []),
      ].map((text) => `thread ${thread.thread_id}: ${text}`);
    }),
  ];
}

/** A run that succeeded did each of its steps once, any other one some of them; runs do so in their order. */
function checkTrail(runs: readonly RunRow[], trail: readonly string[]): string[] {
  let at = 0;
  const problems: string[] = [];
  runs.forEach((run, index) => {
    const steps = toSteps(run, runs[index - 1]);
    const done = steps.findIndex((step, offset) => trail[at + offset] !== step);
    const count = done === -1 ? steps.length : done;
    if (run.status === "success" && count < steps.length)
      problems.push(`${run.run_id} (${run.turn}) has not done "${steps[count]}"`);
    at += count;
  });
  if (at < trail.length) problems.push(`"${trail[at]}" is once too often, or out of order`);
  return problems;
}

function toSteps({ kind, turn }: RunRow, before: RunRow | undefined): string[] {
  if (kind === "resume")
    return before?.interrupted ? [`${before.turn} ask yes`, `${before.turn} say`] : [];
  const first = [`${turn} hear`, `${turn} use`];
  return kind === "ask" ? first : [...first, `${turn} ask no need`, `${turn} say`];
}

function countBy(words: readonly string[]): Map<string, number> {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return counts;
}
