import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openPostgres } from "../../src/storage/postgres.ts";
import type { Database } from "../../src/storage/database.ts";
import { createProject, startChild, until, type ChildServer } from "../support/child-server.ts";
import { createTestDatabases } from "../support/databases.ts";
import { five, registryOf } from "../support/graphs.ts";
import { startServer, wireEvents, type TestServer, type WireEvent } from "../support/server.ts";

/**
 * Four nodes that each send five tokens and note in a file who ran them; the file outlives the process. The second
 * does not end while there is a file that holds it.
 */
const GRAPH = `
import { existsSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { Annotation, StateGraph } from "@langchain/langgraph";

const State = Annotation.Root({
  trail: Annotation<string[]>({ reducer: (a, b) => a.concat(b), default: () => [] }),
});
const names = ["one", "two", "three", "four"] as const;
let builder: any = new StateGraph(State);
for (const name of names) {
  builder = builder.addNode(name, async (_state: unknown, config: any) => {
    await appendFile(process.env.TRAIL_FILE!, config.configurable.run_id + " " + name + " " + process.pid + "\\n");
    for (let token = 0; token < 5; token += 1) {
      config.writer(name + token);
      await new Promise((resolve) => setTimeout(resolve, 60));
    }
    while (name === "two" && existsSync(process.env.TRAIL_FILE! + ".hold"))
      await new Promise((resolve) => setTimeout(resolve, 20));
    return { trail: [name] };
  });
}
builder.addEdge("__start__", "one");
names.slice(1).forEach((name, i) => builder.addEdge(names[i], name));
export const steps = builder.compile();
`;
const NODES = ["one", "two", "three", "four"];
/** Long enough for a process that lives to renew it on a slow machine. */
const LEASE_SECONDS = 10;

describe("a process that dies or freezes", () => {
  const databases = createTestDatabases("postgres");
  const cleanups: (() => Promise<unknown>)[] = [];
  let database: Database;
  let api: TestServer;
  let workers: ChildServer[];
  let other: ChildServer;
  let trailFile: string;
  afterAll(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });
  beforeAll(async () => {
    const { databaseUrl, dataDir } = await databases.configure();
    const project = await createProject({
      "graph.ts": GRAPH,
      "aegra.json": JSON.stringify({
        graphs: { steps: "./graph.ts:steps" },
        workers: { lease_seconds: LEASE_SECONDS },
      }),
    });
    cleanups.push(project.remove);
    trailFile = join(project.folder, "trail.txt");
    database = await openPostgres({ connectionString: databaseUrl! });
    cleanups.push(() => database.close());
    const start = async (role: string): Promise<ChildServer> => {
      const child = await startChild(
        project.folder,
        { TRAIL_FILE: trailFile, DATABASE_URL: databaseUrl },
        ["--role", role],
      );
      cleanups.push(() => child.kill());
      return child;
    };
    // It executes nothing, so what its graph does is of no interest.
    api = await startServer(databases, registryOf({ steps: five }), {
      config: { database: { url: databaseUrl, dataDir }, role: "api" },
    });
    const children = ["worker", "worker", "worker", "api"].map(start);
    [workers, other] = [await Promise.all(children.slice(0, 3)), await children[3]!];
  });

  const letGo = (): Promise<void> => rm(`${trailFile}.hold`);

  /** A run whose events are followed over one of the processes. It stays in its second node until it is let go. */
  const stream = async (url: string) => {
    await writeFile(`${trailFile}.hold`, "");
    const { thread_id: threadId } = await api.client.threads.create();
    const response = await fetch(`${url}/threads/${threadId}/runs/stream`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({
        assistant_id: "steps",
        input: { trail: [] },
        stream_mode: ["custom", "values"],
        // A node that has begun has the checkpoint of the one before it behind it.
        durability: "sync",
      }),
    });
    const [, runId = ""] = /runs\/(.*)$/.exec(response.headers.get("Content-Location")!)!;
    const seen: WireEvent[] = [];
    const ended = (async () => {
      for await (const event of wireEvents(response)) seen.push(event);
    })();
    return { threadId, runId, seen, ended };
  };

  const trailOf = async (runId: string): Promise<{ node: string; pid: number }[]> => {
    const lines = (await readFile(trailFile, "utf8").catch(() => "")).trim().split("\n");
    return lines.flatMap((line) => {
      const [run, node = "", pid] = line.split(" ");
      return run === runId ? [{ node, pid: Number(pid) }] : [];
    });
  };

  /** The worker that executes the run, once it is in its second node. */
  const busyWorker = (runId: string): Promise<ChildServer> =>
    until(async () => {
      const second = (await trailOf(runId)).find(({ node }) => node === "two");
      return workers.find(({ process: { pid } }) => pid === second?.pid);
    }, "the second node");

  const ids = (events: readonly WireEvent[]) => events.map(({ id }) => Number(id));
  const tokens = (events: readonly WireEvent[]) =>
    events.filter(({ event }) => event === "custom").map(({ data }) => data as string);

  /** Nothing missing, nothing twice but what a second attempt does again, and said so. */
  const expectWhole = (events: readonly WireEvent[], attempts: number[]): void => {
    expect(ids(events)).toEqual([...new Set(ids(events))].toSorted((left, right) => left - right));
    const begun = events.filter(({ event }) => event === "metadata");
    expect(begun.map(({ data }) => (data as { attempt: number }).attempt)).toEqual(attempts);
    const all = NODES.flatMap((node) => [0, 1, 2, 3, 4].map((token) => `${node}${token}`));
    expect(new Set(tokens(events))).toEqual(new Set(all));
    if (attempts.length === 1) expect(tokens(events)).toEqual(all);
    expect(events.at(-1)).toMatchObject({ event: "values", data: { trail: NODES } });
  };

  it("kill -9 of the worker: the stream goes on elsewhere with attempt 2", async () => {
    const { runId, seen, ended } = await stream(api.url);
    const worker = await busyWorker(runId);
    await worker.kill();
    await letGo();
    workers = workers.filter((left) => left !== worker);
    await ended;
    expectWhole(seen, [1, 2]);
    // What was checkpointed is not done again.
    const ran = (await trailOf(runId)).map(({ node }) => node);
    expect(ran.filter((node) => node === "one")).toHaveLength(1);
    expect(ran.length).toBeLessThanOrEqual(5);
  });

  it("SIGSTOP past the lease: the worker that wakes up writes nothing more", async () => {
    const { threadId, runId, seen, ended } = await stream(api.url);
    const worker = await busyWorker(runId);
    worker.process.kill("SIGSTOP");
    await letGo();
    await ended;
    expectWhole(seen, [1, 2]);
    const state = async (): Promise<unknown> => {
      const { rows } = await database.query(
        `SELECT (SELECT json_agg(e.* ORDER BY id) FROM run_events e WHERE run_id = $1) AS events,
           (SELECT json_agg(c.checkpoint_id ORDER BY checkpoint_id) FROM checkpoints c WHERE thread_id = $2::text) AS checkpoints,
           (SELECT row_to_json(r.*) FROM runs r WHERE run_id = $1) AS run,
           (SELECT row_to_json(t.*) FROM threads t WHERE thread_id = $2::uuid) AS thread`,
        [runId, threadId],
      );
      return rows[0];
    };
    const before = await state();
    worker.process.kill("SIGCONT");
    await until(
      async () => (worker.output().includes('"status":"lost"') ? true : undefined),
      "the lost attempt to end",
    );
    expect(await state()).toEqual(before);
  });

  it("kill -9 of the process that serves: Last-Event-ID goes on at another", async () => {
    const { threadId, runId, seen, ended } = await stream(other.url);
    await busyWorker(runId);
    await until(async () => seen.at(-1), "an event");
    const cut = ended.catch(() => {});
    await other.kill();
    await letGo();
    await cut;
    const rest: WireEvent[] = [];
    const response = await fetch(`${api.url}/threads/${threadId}/runs/${runId}/stream`, {
      headers: { "Last-Event-ID": seen.at(-1)!.id! },
    });
    for await (const event of wireEvents(response)) rest.push(event);
    expectWhole([...seen, ...rest], [1]);
  });
});
