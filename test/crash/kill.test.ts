import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, expect, it } from "vitest";
import { createProject, startChild, until, type ChildServer } from "../support/child-server.ts";
import { describeDatabases } from "../support/databases.ts";

/** Six nodes that each note in a file that they ran; the file outlives the process. */
const GRAPH = `
import { appendFile } from "node:fs/promises";
import { Annotation, StateGraph, interrupt } from "@langchain/langgraph";

const State = Annotation.Root({
  trail: Annotation<string[]>({ reducer: (a, b) => a.concat(b), default: () => [] }),
});
const names = ["one", "two", "three", "four", "five", "six"] as const;
let builder: any = new StateGraph(State);
for (const name of names) {
  builder = builder.addNode(name, async () => {
    await appendFile(process.env.TRAIL_FILE!, name + "\\n");
    await new Promise((resolve) => setTimeout(resolve, 250));
    // The node in which the process is to die waits for that.
    if (process.env.HOLD === name) await new Promise(() => {});
    return { trail: [name] };
  });
}
builder.addEdge("__start__", "one");
names.slice(1).forEach((name, i) => builder.addEdge(names[i], name));
export const steps = builder.compile();

export const quick = new StateGraph(State)
  .addNode("only", async () => ({ trail: ["only"] }))
  .addEdge("__start__", "only")
  .compile();
`;

describeDatabases("kill -9", (databases) => {
  const cleanups: (() => Promise<unknown>)[] = [];
  afterAll(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });

  const setUp = async () => {
    const { databaseUrl, dataDir } = await databases.configure();
    const project = await createProject({
      "graph.ts": GRAPH,
      "aegra.json": JSON.stringify({
        graphs: { steps: "./graph.ts:steps", quick: "./graph.ts:quick" },
        database: { data_dir: dataDir },
      }),
    });
    cleanups.push(project.remove);
    const trailFile = join(project.folder, "trail.txt");
    const start = async (env: Record<string, string> = {}): Promise<ChildServer> => {
      const child = await startChild(project.folder, {
        ...env,
        TRAIL_FILE: trailFile,
        DATABASE_URL: databaseUrl,
      });
      cleanups.push(() => child.kill());
      return child;
    };
    return { start, trail: async () => (await readFile(trailFile, "utf8")).trim().split("\n") };
  };

  it("loses nothing that was acknowledged, and ends the run where it stopped", async () => {
    const { start, trail } = await setUp();
    const first = await start({ HOLD: "three" });
    const { thread_id: threadId } = await first.client.threads.create();
    const run = await first.client.runs.create(threadId, "steps", {
      input: { trail: ["input"] },
      streamResumable: true,
    });
    const acknowledged: string[] = [];
    const burst = (async (): Promise<never> => {
      for (;;) {
        const thread = await first.client.threads.create();
        const asked = await first.client.runs.create(thread.thread_id, "quick", { input: {} });
        acknowledged.push(`${thread.thread_id} ${asked.run_id}`);
      }
    })();
    const burstEnds = burst.catch((error: unknown) => error);
    await until(
      async () => ((await trail().catch(() => [])).length >= 3 ? true : undefined),
      "three nodes",
    );
    await first.kill();
    expect(await burstEnds).toBeInstanceOf(Error);
    expect(acknowledged.length).toBeGreaterThan(0);

    const second = await start();
    const ended = await until(async () => {
      const now = await second.client.runs.get(threadId, run.run_id);
      return now.status === "pending" || now.status === "running" ? undefined : now;
    }, "the run to end");
    expect(ended.status).toBe("success");

    const state = await second.client.threads.getState<{ trail: string[] }>(threadId);
    expect(state.values.trail).toEqual(["input", "one", "two", "three", "four", "five", "six"]);
    // A node that was cut off runs once more; none that was checkpointed does.
    const ran = await trail();
    expect(ran.length).toBeLessThanOrEqual(8);
    expect((await second.client.threads.get(threadId)).status).toBe("idle");

    const events = [];
    for await (const part of second.client.runs.joinStream(threadId, run.run_id, {
      lastEventId: "-1",
    })) {
      events.push(part);
    }
    const attempts = events.filter((part) => part.event === ("metadata" as never));
    expect(attempts.map((part) => (part.data as unknown as { attempt: number }).attempt)).toEqual([
      1, 2,
    ]);
    const ids = events.map((part) => Number(part.id));
    const resumedAt = ids.indexOf(10_000_000);
    expect(ids).toEqual(
      ids.map((_, index) => (index < resumedAt ? index : 10_000_000 + index - resumedAt)),
    );

    for (const pair of acknowledged) {
      const [thread, id] = pair.split(" ") as [string, string];
      const now = await second.client.runs.get(thread, id);
      expect(["pending", "running", "success"]).toContain(now.status);
    }
    const next = await second.client.runs.wait(threadId, "quick", { input: {} });
    expect((next as { trail: string[] }).trail.at(-1)).toBe("only");
    expect(await second.kill("SIGTERM")).toBe(0);
  });

  const unfinished = async (graceSeconds: string, env: Record<string, string> = {}) => {
    const { start, trail } = await setUp();
    const first = await start({ BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS: graceSeconds, ...env });
    const { thread_id: threadId } = await first.client.threads.create();
    const run = await first.client.runs.create(threadId, "steps", { input: { trail: [] } });
    const ran = async () => (await trail().catch(() => [])).length;
    await until(async () => ((await ran()) >= 2 ? true : undefined), "two nodes");
    expect(await first.kill("SIGTERM")).toBe(0);
    const before = await ran();
    const second = await start();
    const ended = await until(async () => {
      const now = await second.client.runs.get(threadId, run.run_id);
      return now.status === "pending" || now.status === "running" ? undefined : now;
    }, "the run to end");
    expect(ended.status).toBe("success");
    const state = await second.client.threads.getState<{ trail: string[] }>(threadId);
    expect(state.values.trail).toEqual(["one", "two", "three", "four", "five", "six"]);
    await second.kill("SIGTERM");
    return { before, after: await ran() };
  };

  it("lets a run finish within the grace on SIGTERM", async () => {
    expect(await unfinished("60")).toEqual({ before: 6, after: 6 });
  });

  it("hands an unfinished run back after the grace, and the next process goes on", async () => {
    const { before, after } = await unfinished("0", { HOLD: "two" });
    expect(before).toBeLessThan(6);
    // The node that was cut off runs once more; what was checkpointed does not.
    expect(after).toBeLessThanOrEqual(8);
  });
});
