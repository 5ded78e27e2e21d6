import { randomUUID } from "node:crypto";
import { afterAll, describe, expect, it } from "vitest";
import type { Event } from "@langchain/protocol";
import { createProject, startChild, type ChildServer } from "../support/child-server.ts";
import { createTestDatabases } from "../support/databases.ts";
import { request } from "../support/server.ts";
import { subscribe } from "../support/thread-stream.ts";

const GRAPH = `
import { Annotation, StateGraph } from "@langchain/langgraph";

const State = Annotation.Root({
  trail: Annotation<string[]>({ reducer: (a, b) => a.concat(b), default: () => [] }),
});
const step = (name: string) => async () => {
  await new Promise((resolve) => setTimeout(resolve, Number(process.env.STEP_MS ?? 300)));
  // The process is killed in it.
  if (process.env.HOLD === name) await new Promise(() => {});
  return { trail: [name] };
};
export const steps = new StateGraph(State)
  .addNode("one", step("one"))
  .addNode("two", step("two"))
  .addNode("three", step("three"))
  .addEdge("__start__", "one")
  .addEdge("one", "two")
  .addEdge("two", "three")
  .compile();
`;

// On PostgreSQL the run would wait for its lease; what it does then is in kill.test.ts.
describe("kill -9 under a page", () => {
  const databases = createTestDatabases("pglite");
  const cleanups: (() => Promise<unknown>)[] = [];
  afterAll(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });

  it("keeps what was told but for the last moment, and tells the rest of the run", async () => {
    const { databaseUrl, dataDir } = await databases.configure();
    const project = await createProject({
      "graph.ts": GRAPH,
      "aegra.json": JSON.stringify({
        graphs: { steps: "./graph.ts:steps" },
        database: { data_dir: dataDir },
      }),
    });
    cleanups.push(project.remove);
    const start = async (env: Record<string, string> = {}): Promise<ChildServer> => {
      const child = await startChild(project.folder, { ...env, DATABASE_URL: databaseUrl });
      cleanups.push(() => child.kill());
      return child;
    };
    // A step takes long enough for what was told before it to be in the database.
    const first = await start({ HOLD: "two", STEP_MS: "1500" });
    const threadId = randomUUID();
    const channels = ["values", "lifecycle"];
    const page = await subscribe(first.url, threadId, { channels });
    await request(first.url, `/threads/${threadId}/commands`, {
      json: { id: 1, method: "run.start", params: { assistant_id: "steps", input: {} } },
    });
    const trailOf = (event: Event): string[] | undefined =>
      (event.params.data as { trail?: string[] }).trail;
    const seen: Event[] = [];
    while (seen.length === 0 || trailOf(seen.at(-1)!)?.at(-1) !== "one") {
      seen.push(await page.next());
    }
    page.close();
    // What a page has seen is in the database a moment later; the process does not live to see it.
    await first.kill();

    const second = await start();
    const again = await subscribe(second.url, threadId, { channels });
    const all = await again.untilRunEnd();
    again.close();
    const kept = new Set(all.map(({ event_id }) => event_id));
    const lost = seen.filter(({ event_id }) => !kept.has(event_id!));
    // At most what was on its way to the database.
    expect(lost.length).toBeLessThanOrEqual(1);
    const seqs = all.map(({ seq }) => seq!);
    expect(seqs).toEqual(seqs.toSorted((left, right) => left - right));
    const lives = all.filter(({ method }) => method === "lifecycle");
    expect(lives.map(({ params }) => params.data)).toMatchObject([
      { event: "running" },
      { event: "running", attempt: 2 },
      { event: "completed" },
    ]);
    expect(trailOf(all.findLast(({ method }) => method === "values")!)).toEqual([
      "one",
      "two",
      "three",
    ]);

    const rest = await subscribe(second.url, threadId, { channels, since: seen.at(-1)!.seq });
    expect((await rest.untilRunEnd())[0]!.seq).toBeGreaterThan(seen.at(-1)!.seq!);
    rest.close();
    await second.kill("SIGTERM");
  });
});
