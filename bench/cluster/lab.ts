import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { createProject } from "../../test/support/child-server.ts";
import { startPostgres } from "../../test/support/postgres-server.ts";
import { createClient } from "../../test/support/server.ts";
import { startChild } from "../child.ts";
import type { Checked } from "../faults/receiver.ts";
import { check, type RunRow, type Verdict } from "./check.ts";
import { Talker, type Conversation } from "./conversation.ts";
import { openLabDatabase, type LabDatabase } from "./database.ts";
import { injectFaults, type Fault, type FaultKind } from "./faults.ts";
import { openMembers, type Role } from "./members.ts";
import { openProxy } from "./proxy.ts";
import { watchAnswers, type Probe } from "./probe.ts";
import { createRandom } from "./random.ts";
import type { Kind } from "./views.ts";

export interface LabOptions {
  durationMs: number;
  /** Goes on, for as long as `PATIENCE` durations, until clients have seen so many runs to their end ... */
  minimumRuns: number;
  /** ... and there were so many faults. */
  minimumFaults: number;
  /** Clients that talk at the same time. */
  conversations: number;
  /** Between two turns of a client, at most. */
  pauseMs: number;
  roles: readonly Role[];
  faults: readonly FaultKind[];
  /** After so many faults there are none. */
  maxFaults: number;
  /** Between two faults, about. */
  gapMs: number;
  seed: number;
  /** How long a lease lasts. */
  leaseMs: number;
  /** A migrated or empty database; without it, a PostgreSQL is started that can be paused and restarted. */
  databaseUrl?: string | undefined;
  /** Whether runs are traced, and the traces are looked for. */
  traced: boolean;
}

export interface LabResult extends Verdict {
  conversations: Conversation[];
  faults: Fault[];
  probes: Probe[];
  /** What is missing of the traces of runs that ended, as sentences. */
  untraced: string[];
  spans: number;
  /** From the last client's end until no run was active. */
  settledMs: number;
  /** Exit codes of the processes at the end. */
  exits: number[];
  /** What the processes printed. */
  output: string[];
}

const PATIENCE = 6;
/** A run may be lost three times before it is given up. */
const SETTLE_MS = 90_000;
const TRACES_MS = 30_000;
/** The spans each kind of run has below its root, if it succeeds. */
const SPANS: Record<Kind, string[]> = {
  talk: ["hear", "use", "look", "ask", "say"],
  ask: ["hear", "use", "look"],
  resume: ["say"],
  cancel: [],
};

/** Runs the cluster for a while under faults, and compares afterwards. Everything it starts has ended by then. */
export async function runLab(options: LabOptions): Promise<LabResult> {
  const closers: (() => Promise<unknown>)[] = [];
  const keep = <T extends object>(opened: T, close: (opened: T) => Promise<unknown>): T => {
    closers.push(() => close(opened));
    return opened;
  };
  try {
    const folder = await mkdtemp(join(tmpdir(), "aegra-lab-"));
    closers.push(() => rm(folder, { recursive: true, force: true }));
    const database = keep(await openDatabase(folder, options, closers), (it) => it.close());
    return await talk(options, database, { folder, keep });
  } finally {
    for (const close of closers.toReversed()) await close();
  }
}

async function openDatabase(
  folder: string,
  { databaseUrl }: LabOptions,
  closers: (() => Promise<unknown>)[],
): Promise<LabDatabase> {
  if (databaseUrl !== undefined) return openLabDatabase(databaseUrl);
  const server = await startPostgres(folder);
  closers.push(() => server.stop());
  return openLabDatabase(server.url, server);
}

interface Room {
  folder: string;
  keep: <T extends object>(opened: T, close: (opened: T) => Promise<unknown>) => T;
}

async function talk(options: LabOptions, database: LabDatabase, room: Room): Promise<LabResult> {
  const { keep } = room;
  const receiver = options.traced
    ? keep(startChild("faults/receiver.ts"), (it) => it.close())
    : undefined;
  const langfuse = await receiver?.ask<{ url: string; publicKey: string; secretKey: string }>({
    what: "open",
  });
  const graphs = fileURLToPath(new URL("project/graphs.ts", import.meta.url));
  const project = await createProject({
    "graphs.ts": await readFile(graphs, "utf8"),
    "aegra.json": JSON.stringify({
      graphs: { talk: "./graphs.ts:talk", probe: "./graphs.ts:probe" },
      workers: { grace_seconds: 5, lease_seconds: options.leaseMs / 1_000 },
    }),
  });
  keep(project, (it) => it.remove());
  const data = join(room.folder, "data");
  await mkdir(data);
  const members = await openMembers({
    folder: project.folder,
    roles: options.roles,
    env: { DATABASE_URL: database.url, AEGRA_DATA_DIR: data, ...toTracing(langfuse) },
  });
  let exits: number[] | undefined;
  keep(members, async (it) => (exits ??= await it.close()));
  const proxy = keep(await openProxy(() => members.urls()), (it) => it.close());

  const random = createRandom(options.seed);
  const begun = Date.now();
  let seen = 0;
  const faults: Fault[] = [];
  const over = (): boolean => {
    const passedMs = Date.now() - begun;
    if (passedMs > options.durationMs * PATIENCE) return true;
    const enough = seen >= options.minimumRuns && faults.length >= options.minimumFaults;
    return enough && passedMs > options.durationMs;
  };
  const client = createClient(proxy.url);
  const talkers = Array.from({ length: options.conversations }, (_, at) => {
    const own = createRandom(options.seed * 1_000 + at);
    const { pauseMs } = options;
    const onRun = (): void => void (seen += 1);
    return new Talker({ client, random: own, pauseMs, until: over, onRun }).talk();
  });
  const injecting = injectFaults(
    { database, members, random, leaseMs: options.leaseMs },
    { kinds: options.faults, most: options.maxFaults, gapMs: options.gapMs, until: over, faults },
  );
  const watch = watchAnswers(client, over);
  const [, conversations] = await Promise.all([injecting, Promise.all(talkers)]);
  const probes = await watch;
  const settledMs = await whenSettled(database);
  const verdict = await check(database, conversations);
  const traces = receiver ? await findTraces(receiver.ask, verdict.runs) : undefined;
  exits = await members.close();
  return {
    ...verdict,
    conversations,
    faults,
    probes,
    untraced: traces?.missing ?? [],
    spans: traces?.spans ?? 0,
    settledMs,
    exits,
    output: members.output(),
  };
}

function toTracing(
  langfuse: { url: string; publicKey: string; secretKey: string } | undefined,
): Record<string, string> {
  if (!langfuse) return { LANGFUSE_LOGGING: "false" };
  return {
    LANGFUSE_LOGGING: "true",
    LANGFUSE_PUBLIC_KEY: langfuse.publicKey,
    LANGFUSE_SECRET_KEY: langfuse.secretKey,
    LANGFUSE_HOST: langfuse.url,
    LANGFUSE_FLUSH_INTERVAL: "0.2",
  };
}

/** Waits until no run is active, for a while. */
async function whenSettled(database: LabDatabase): Promise<number> {
  const from = Date.now();
  while (Date.now() - from < SETTLE_MS) {
    const rows = await database
      .query<{ active: number }>(
        "SELECT count(*)::int AS active FROM runs WHERE status IN ('pending', 'running')",
      )
      .catch(() => []);
    if (rows[0]?.active === 0) break;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return Date.now() - from;
}

/** Asks the receiver for the traces of all runs that succeeded, until they are whole or time is up. */
async function findTraces(
  ask: <Answer>(question: object) => Promise<Answer>,
  runs: readonly RunRow[],
): Promise<{ missing: string[]; spans: number }> {
  const until = Date.now() + TRACES_MS;
  for (;;) {
    const missing: string[] = [];
    let spans = 0;
    for (const [kind, names] of Object.entries(SPANS)) {
      const own = runs.filter((run) => run.kind === kind && run.status === "success");
      const traceIds = own.map((run) => run.run_id.replaceAll("-", ""));
      const checked = await ask<Checked>({ what: "check", traceIds, names });
      missing.push(...checked.missing);
      spans = checked.spans;
    }
    if (missing.length === 0 || Date.now() > until) return { missing, spans };
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}
