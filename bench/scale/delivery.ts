import { readFile } from "node:fs/promises";
import { startChild } from "../child.ts";
import type { ChildServer } from "../../test/support/child-server.ts";
import { openLabDatabase } from "../cluster/database.ts";
import type { Heard } from "./listeners.ts";
import { openServers } from "./servers.ts";

export interface DeliveryOptions {
  /** Readers of one run, and how many events it says in a second. */
  cases: readonly { readers: number; rate: number }[];
  seconds: number;
  idle: number;
}

const PATIENCE_MS = 60_000;

/** How late events arrive at readers in the executing process and in another one; and what quiet readers cost. */
export async function measureDelivery(options: DeliveryOptions): Promise<string> {
  const servers = await openServers(2, Math.max(10, options.idle));
  const listeners = startChild("scale/listeners.ts");
  const [here, there] = servers.list as [ChildServer, ChildServer];
  try {
    const lines = [
      "| readers | in | events/s said | delivered/s | p50 ms | p99 ms | most ms | missing |",
      "| ---: | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ];
    for (const one of options.cases) {
      for (const place of [here, there]) {
        const heard = await listen(
          { ...one, seconds: options.seconds },
          { here, place, listeners },
        );
        const expected = one.readers * one.rate * options.seconds;
        lines.push(
          `| ${one.readers} | ${place === here ? "the same process" : "another process"} | ${one.rate} | ${(heard.events / options.seconds).toFixed(0)} | ${heard.p50.toFixed(1)} | ${heard.p99.toFixed(1)} | ${heard.most.toFixed(0)} | ${expected - heard.events} |`,
        );
      }
    }
    if (options.idle > 0) lines.push("", await measureIdle(options.idle, { servers, listeners }));
    return lines.join("\n");
  } finally {
    await listeners.close();
    await servers.close();
  }
}

async function listen(
  what: { readers: number; rate: number; seconds: number },
  on: { here: ChildServer; place: ChildServer; listeners: ReturnType<typeof startChild> },
): Promise<Heard> {
  const { client } = on.here;
  const thread = await client.threads.create();
  const run = await client.runs.create(thread.thread_id, "ticker", {
    input: { rate: what.rate, seconds: what.seconds },
    streamMode: "custom",
    streamResumable: true,
  });
  const url = `${on.place.url}/threads/${thread.thread_id}/runs/${run.run_id}/stream`;
  await on.listeners.ask({ what: "listen", urls: Array.from({ length: what.readers }, () => url) });
  await whenEnded(on.listeners, what.readers);
  return on.listeners.ask<Heard>({ what: "heard" });
}

async function whenEnded(listeners: ReturnType<typeof startChild>, readers: number): Promise<void> {
  const until = Date.now() + PATIENCE_MS;
  while (Date.now() < until) {
    const { ended } = await listeners.ask<Heard>({ what: "heard" });
    if (ended === readers) return;
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  throw new Error("streams did not end");
}

/** Readers of as many runs, all of them in one process and executed in another, that say nothing. */
async function measureIdle(
  count: number,
  on: {
    servers: Awaited<ReturnType<typeof openServers>>;
    listeners: ReturnType<typeof startChild>;
  },
): Promise<string> {
  const [here, there] = on.servers.list as [ChildServer, ChildServer];
  const urls: string[] = [];
  for (let at = 0; at < count; at += 50) {
    const runs = await Promise.all(
      Array.from({ length: Math.min(50, count - at) }, async () => {
        const { thread_id: threadId } = await here.client.threads.create();
        const { run_id: runId } = await here.client.runs.create(threadId, "sleeper", {
          input: { seconds: 600 },
          streamMode: "values",
        });
        return `${there.url}/threads/${threadId}/runs/${runId}/stream`;
      }),
    );
    urls.push(...runs);
  }
  const before = await readUse(there.process.pid!);
  await on.listeners.ask({ what: "listen", urls });
  await new Promise((resolve) => setTimeout(resolve, 5_000));
  const database = openLabDatabase(on.servers.databaseUrl);
  const begun = { use: await readUse(there.process.pid!), commits: await readCommits(database) };
  await new Promise((resolve) => setTimeout(resolve, 10_000));
  const after = await readUse(there.process.pid!);
  const commits = (await readCommits(database)) - begun.commits;
  await database.close();
  const { readers } = await on.listeners.ask<Heard>({ what: "heard" });
  await on.listeners.ask({ what: "leave" });
  return [
    `${readers} quiet streams of ${count} runs that another process executes: ${((after.rss - before.rss) / count).toFixed(0)} kB of memory each`,
    `(${(before.rss / 1_024).toFixed(0)} to ${(after.rss / 1_024).toFixed(0)} MB), ${((after.cpuMs - begun.use.cpuMs) / 100).toFixed(1)}% of a core,`,
    `${(commits / 10).toFixed(0)} transactions a second in the database from both processes.`,
  ].join(" ");
}

async function readCommits(database: ReturnType<typeof openLabDatabase>): Promise<number> {
  const [row] = await database.query<{ commits: number }>(
    "SELECT xact_commit::float8 AS commits FROM pg_stat_database WHERE datname = current_database()",
  );
  return row?.commits ?? 0;
}

/** Resident memory in kB, and processor time, of a process on Linux. */
async function readUse(pid: number): Promise<{ rss: number; cpuMs: number }> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const stat = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return {
    rss: Number(/VmRSS:\s+(\d+)/u.exec(status)?.[1]),
    // The kernel counts in hundredths of a second.
    cpuMs: (Number(fields[11]) + Number(fields[12])) * 10,
  };
}
