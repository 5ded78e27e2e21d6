import { readFile } from "node:fs/promises";
import { afterAll, describe, expect, it } from "vitest";
import { createProject, startChild, until, type ChildServer } from "../support/child-server.ts";
import { createTestDatabases } from "../support/databases.ts";

const GRAPH = `
import { Annotation, StateGraph } from "@langchain/langgraph";
const State = Annotation.Root({ pids: Annotation<number[]>({ reducer: (a, b) => a.concat(b), default: () => [] }) });
export const who = new StateGraph(State)
  .addNode("who", async () => {
    await new Promise((resolve) => setTimeout(resolve, 300));
    return { pids: [process.pid] };
  })
  .addEdge("__start__", "who")
  .compile();
`;

describe("aegra start --processes", () => {
  const databases = createTestDatabases("postgres");
  const cleanups: (() => Promise<unknown>)[] = [];
  afterAll(async () => {
    for (const cleanup of cleanups.toReversed()) await cleanup();
  });

  const setUp = async () => {
    const { databaseUrl } = await databases.configure();
    const project = await createProject({
      "graph.ts": GRAPH,
      "aegra.json": JSON.stringify({ graphs: { who: "./graph.ts:who" } }),
    });
    cleanups.push(project.remove);
    return {
      start: async (args: string[], env: object = {}): Promise<ChildServer> => {
        const child = await startChild(
          project.folder,
          { DATABASE_URL: databaseUrl, ...env, NODE_NO_WARNINGS: "1" },
          args,
        );
        cleanups.push(() => child.kill());
        return child;
      },
    };
  };

  const childrenOf = async ({ process: { pid } }: ChildServer): Promise<number[]> => {
    const list = await readFile(`/proc/${pid}/task/${pid}/children`, "utf8");
    return list.trim().split(" ").filter(Boolean).map(Number);
  };

  it("shares the port, replaces a process that dies, and closes on SIGTERM", async () => {
    const { start } = await setUp();
    const parent = await start(["--processes", "2", "--workers", "1"]);
    const both = () =>
      until(async () => {
        const pids = await childrenOf(parent);
        return pids.length === 2 ? pids : undefined;
      }, "two processes");
    const [first] = await both();
    const client = parent.client;
    const ask = async (): Promise<number> => {
      const values = (await client.runs.wait(null, "who", { input: {} })) as { pids: number[] };
      return values.pids[0]!;
    };
    // One run each at a time: of several at once, each process has some.
    await until(async () => {
      const pids = await Promise.all([ask(), ask(), ask(), ask()]);
      return new Set(pids).size === 2 ? true : undefined;
    }, "runs in both processes");
    process.kill(first!, "SIGKILL");
    await until(async () => {
      const pids = await childrenOf(parent);
      return pids.length === 2 && !pids.includes(first!) ? true : undefined;
    }, "another process");
    expect(await ask()).toBeGreaterThan(0);
    expect(parent.output().match(/aegra \d/gu)).toHaveLength(1);
    expect(parent.output()).toContain("2 processes");
    expect(await parent.kill("SIGTERM")).toBe(0);
    expect(parent.output()).toContain(`Process ${first} ended by SIGKILL`);
  });

  it("is refused without PostgreSQL, and so are roles", async () => {
    const { start } = await setUp();
    const none = { DATABASE_URL: undefined };
    await expect(start(["--processes", "2"], none)).rejects.toThrow(
      "--processes 2 needs PostgreSQL",
    );
    await expect(start([], { ...none, AEGRA_ROLE: "api" })).rejects.toThrow("needs PostgreSQL");
    await expect(start(["--role", "boss"])).rejects.toThrow("must be one of all, api, worker");
  });
});
