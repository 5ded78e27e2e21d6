import { randomUUID } from "node:crypto";
import type { Client } from "@langchain/langgraph-sdk";
import { openPostgres } from "../../src/storage/postgres.ts";
import type { Database } from "../../src/storage/database.ts";
import { createRunQueue } from "../../src/storage/run-queue.ts";
import { emptyQueue, fill, fillQueue } from "./fill.ts";
import { writePlans } from "./plans.ts";
import { openServers } from "./servers.ts";

export interface RowsOptions {
  /** Numbers of threads to compare, rising. */
  threads: readonly number[];
  checkpoints: number;
  waiting: number;
  /** Whether the plans of the statements are written down, with the last and largest database. */
  plans: boolean;
}

const TIMES = 30;
const CLAIMS = 100;
/** Runs of the long queue that wait behind a running one, at its head. */
const CROWD = 1_000;

/** What is asked of a server, with the medians for each size of its database. */
export async function measureRows(options: RowsOptions): Promise<string> {
  const servers = await openServers(1, 10);
  const database = await openPostgres({ connectionString: servers.databaseUrl });
  try {
    const columns: Map<string, string>[] = [];
    for (const threads of options.threads) {
      await database.query("TRUNCATE threads, runs, checkpoints, checkpoint_blobs CASCADE");
      await fill(database, { threads, checkpoints: options.checkpoints });
      const column = await measureRequests(servers.list[0]!.client);
      const waiting = Math.min(options.waiting, threads - 1);
      // The server would take them.
      servers.list[0]!.process.kill("SIGSTOP");
      await fillQueue(database, { waiting, crowd: CROWD });
      if (options.plans && threads === options.threads.at(-1)) await writePlans(database);
      column.set(
        `claim one run, with as many waiting (at most ${options.waiting}), ${CROWD} of them behind one`,
        await measureClaims(database, 1),
      );
      column.set("claim ten", await measureClaims(database, 10));
      await emptyQueue(database);
      servers.list[0]!.process.kill("SIGCONT");
      columns.push(column);
    }
    const heads = options.threads.map(
      (count) =>
        `${count.toLocaleString("en")} threads, ${(count * options.checkpoints).toLocaleString("en")} checkpoints`,
    );
    return [
      `| best, median, p99 in ms | ${heads.join(" | ")} |`,
      `| --- | ${heads.map(() => "---:").join(" | ")} |`,
      ...[...columns[0]!.keys()].map(
        (name) => `| ${name} | ${columns.map((column) => column.get(name)).join(" | ")} |`,
      ),
    ].join("\n");
  } finally {
    await database.close();
    await servers.close();
  }
}

async function measureRequests(client: Client): Promise<Map<string, string>> {
  const thread = await client.threads.search({ limit: 1 });
  const threadId = thread[0]!.thread_id;
  const requests: Record<string, (at: number) => Promise<unknown>> = {
    "create a thread": () => client.threads.create({ metadata: { owner: "user7" } }),
    "read a thread": () => client.threads.get(threadId),
    "search the newest": () => client.threads.search({ limit: 10 }),
    "search by rare metadata": (at) =>
      client.threads.search({ limit: 10, metadata: { owner: `user${at}` } }),
    "search by metadata a fifth has": () =>
      client.threads.search({ limit: 10, metadata: { graph_id: "five" } }),
    "search by a rare status": () => client.threads.search({ limit: 10, status: "error" }),
    "history of a thread": () => client.threads.getHistory(threadId, { limit: 10 }),
    "a run on a new thread": () =>
      client.runs.wait(randomUUID(), "five", { input: { messages: [] }, ifNotExists: "create" }),
  };
  const results = new Map<string, string>();
  for (const [name, request] of Object.entries(requests)) {
    await request(0);
    results.set(name, await timed(TIMES, request));
  }
  return results;
}

/** Each claim is undone, so that the next one finds the same queue. */
async function measureClaims(database: Database, limit: number): Promise<string> {
  const text = await timed(CLAIMS, async () => {
    await createRunQueue(database).claim({ workerId: randomUUID(), leaseMs: 60_000, limit });
  });
  await database.query(
    `UPDATE runs SET status = 'pending', worker_id = NULL, attempt = 0 WHERE status = 'running' AND attempt = 1
       AND lease_expires_at < now() + interval '1 hour'`,
  );
  return text;
}

async function timed(times: number, work: (at: number) => Promise<unknown>): Promise<string> {
  const spent: number[] = [];
  for (let at = 0; at < times; at += 1) {
    const from = performance.now();
    await work(at);
    spent.push(performance.now() - from);
  }
  const sorted = spent.toSorted((a, b) => a - b);
  const median = sorted[Math.floor(times / 2)] ?? Number.NaN;
  const late = sorted[Math.min(times - 1, Math.floor(times * 0.99))] ?? Number.NaN;
  return [sorted[0] ?? Number.NaN, median, late].map((ms) => ms.toFixed(1)).join(", ");
}
