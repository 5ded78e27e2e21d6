import type { Interrupt, Thread } from "@langchain/langgraph-sdk";
import { interrupt, StateGraph, type LangGraphRunnableConfig } from "@langchain/langgraph";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { approval, five, registryOf, Trail } from "../support/graphs.ts";
import { request, startServer, type TestServer } from "../support/server.ts";

/** Works until it is stopped; `entered` tells that it has begun. */
function createWork() {
  const begun = new Map<string, () => void>();
  return {
    entered: (input: string) => new Promise<void>((resolve) => begun.set(input, resolve)),
    node: async ({ input }: typeof Trail.State, { signal }: LangGraphRunnableConfig) => {
      begun.get(input)?.();
      await new Promise((_, reject) => {
        signal?.addEventListener("abort", () => reject(signal.reason as Error));
      });
      return {};
    },
  };
}

describeDatabases("a question that waits when a run is stopped or fails", (databases) => {
  const work = createWork();
  let server: TestServer;
  beforeAll(async () => {
    // Asks, and works on once it is answered.
    const asksAndWorks = new StateGraph(Trail)
      .addNode("ask", async (state, config: LangGraphRunnableConfig) => {
        interrupt("Go on?");
        return work.node(state, config);
      })
      .addEdge("__start__", "ask")
      .compile();
    const team = new StateGraph(Trail)
      .addNode("agent", asksAndWorks)
      .addEdge("__start__", "agent")
      .compile();
    // One node asks beside one that fails, or works.
    const beside = new StateGraph(Trail)
      .addNode("ask", () => ({ trail: [`answer:${String(interrupt("Go on?"))}`] }))
      .addNode("fast", () => ({ trail: ["fast"] }))
      .addNode("other", async (state, config: LangGraphRunnableConfig) => {
        if (state.input === "fail") throw new Error("The other failed");
        return state.input === "done" ? {} : work.node(state, config);
      })
      .addEdge("__start__", "ask")
      .addEdge("__start__", "fast")
      .addEdge("__start__", "other")
      .compile();
    const long = new StateGraph(Trail)
      .addNode("first", () => ({ trail: ["first"] }))
      .addNode("work", work.node)
      .addEdge("__start__", "first")
      .addEdge("first", "work")
      .compile();
    server = await startServer(
      databases,
      registryOf({ approval, asksAndWorks, beside, five, long, team }),
    );
  });

  const newThread = async () => (await server.client.threads.create()).thread_id;
  const questions = (thread: Thread): Interrupt[] => Object.values(thread.interrupts).flat();

  /** Runs until the graph is at work, and stops it. */
  const stopAtWork = async (
    threadId: string,
    graph: string,
    options: { action?: "interrupt" | "rollback"; run: Record<string, unknown>; input: string },
  ) => {
    const entered = work.entered(options.input);
    const run = await server.client.runs.create(threadId, graph, options.run);
    await entered;
    await server.client.runs.cancel(threadId, run.run_id, true, options.action ?? "interrupt");
    return run;
  };

  it.each(["asksAndWorks", "team"])(
    "still waits when its answer is taken back (%s)",
    async (graph) => {
      const { client, url } = server;
      const threadId = await newThread();
      const input = `taken back by ${graph} on ${threadId}`;
      await client.runs.wait(threadId, graph, { input: { input } });
      const asked = questions(await client.threads.get(threadId));
      await stopAtWork(threadId, graph, { run: { command: { resume: "yes" } }, input });

      const thread = await client.threads.get(threadId);
      expect(thread.status).toBe("interrupted");
      expect(questions(thread)).toEqual(asked);
      const found = await client.threads.search({ ids: [threadId], status: "interrupted" });
      expect(found).toHaveLength(1);

      // It can be answered over both APIs.
      const entered = work.entered(input);
      const answer = await request(url, `/threads/${threadId}/commands`, {
        json: {
          id: 1,
          method: "input.respond",
          params: { namespace: [], interrupt_id: asked[0]!.id, response: "no" },
        },
      });
      expect(answer.json).toMatchObject({ type: "success" });
      await entered;
      const [run] = await client.runs.list(threadId);
      expect(run).toMatchObject({ resumed_from: expect.any(String) as string });
      await client.runs.cancel(threadId, run!.run_id, true);
      expect((await client.threads.get(threadId)).status).toBe("interrupted");
    },
  );

  it("waits beside a node that failed, and is answered", async () => {
    const { client } = server;
    const threadId = await newThread();
    const failed = await client.runs.wait(threadId, "beside", {
      input: { input: "fail" },
      raiseError: false,
    });
    expect(failed).toMatchObject({ __error__: { message: "The other failed" } });
    const thread = await client.threads.get(threadId);
    expect(thread.status).toBe("error");
    expect(questions(thread)).toMatchObject([{ value: "Go on?" }]);
    const state = await client.threads.getState(threadId);
    expect(thread.values).toEqual(state.values);

    const answered = await client.runs.wait(threadId, "beside", {
      command: { resume: { [questions(thread)[0]!.id!]: "yes" }, update: { input: "done" } },
    });
    expect(answered).toMatchObject({ trail: expect.arrayContaining(["answer:yes"]) as string[] });
  });

  it("waits beside a node that was stopped, and the thread shows what the others did", async () => {
    const { client } = server;
    const threadId = await newThread();
    await stopAtWork(threadId, "beside", {
      run: { input: { input: threadId } },
      input: threadId,
    });
    const thread = await client.threads.get(threadId);
    expect(thread.status).toBe("interrupted");
    expect(questions(thread)).toMatchObject([{ value: "Go on?" }]);
    expect(thread.values).toMatchObject({ trail: ["fast"] });
    expect(thread.values).toEqual((await client.threads.getState(threadId)).values);
  });

  it("leaves a thread idle that asks nothing", async () => {
    const { client } = server;
    const threadId = await newThread();
    await stopAtWork(threadId, "long", { run: { input: { input: threadId } }, input: threadId });
    const thread = await client.threads.get(threadId);
    expect(thread).toMatchObject({ status: "idle", interrupts: {}, values: { trail: ["first"] } });
  });

  it("is there again when another graph's run is rolled back", async () => {
    const { client } = server;
    const threadId = await newThread();
    await client.runs.wait(threadId, "approval", { input: { input: "x" } });
    const before = await client.threads.get(threadId);
    const stateBefore = await client.threads.getState(threadId);
    await stopAtWork(threadId, "long", {
      action: "rollback",
      run: { input: { input: threadId } },
      input: threadId,
    });
    const {
      updated_at: _at,
      state_updated_at: _stateAt,
      config: _config,
      ...thread
    } = (await client.threads.get(threadId)) as Thread & { state_updated_at: string };
    expect(before).toMatchObject(thread);
    expect(await client.threads.getState(threadId)).toEqual(stateBefore);
    const answered = await client.runs.wait(threadId, "approval", { command: { resume: "yes" } });
    expect(answered).toMatchObject({ trail: ["prepare", "answer:yes", "done"] });
  });

  it("a rolled-back run leaves a breakpoint, or an error, as it was", async () => {
    const { client } = server;
    for (const prepare of [
      { graph: "five", run: { input: { input: "x" }, interruptBefore: ["three"] } },
      { graph: "beside", run: { input: { input: "fail" }, raiseError: false } },
    ] as const) {
      const threadId = await newThread();
      await client.runs.wait(threadId, prepare.graph, prepare.run as object);
      const before = await client.threads.get(threadId);
      expect(before.status).toMatch(/interrupted|error/);
      await stopAtWork(threadId, "long", {
        action: "rollback",
        run: { input: { input: threadId } },
        input: threadId,
      });
      const { status, values, interrupts, metadata, error } = before as Thread & { error: unknown };
      expect(await client.threads.get(threadId)).toMatchObject({
        status,
        values,
        interrupts,
        metadata,
        error,
      });
    }
  });

  it("a run that never started leaves the thread its graph", async () => {
    const { client } = server;
    const threadId = await newThread();
    await client.runs.wait(threadId, "approval", { input: { input: "x" } });
    for (const graph of ["five", "long"]) {
      const later = await client.runs.create(threadId, graph, {
        input: { input: "y" },
        afterSeconds: 100,
      });
      await client.runs.cancel(threadId, later.run_id, true);
      expect((await client.threads.get(threadId)).metadata).toMatchObject({ graph_id: "approval" });
    }
    expect((await client.threads.getState(threadId)).next).toEqual(["ask"]);
  });
});
