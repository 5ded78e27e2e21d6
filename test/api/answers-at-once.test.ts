import { interrupt, StateGraph, type LangGraphRunnableConfig } from "@langchain/langgraph";
import { randomUUID } from "node:crypto";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { registryOf, Trail } from "../support/graphs.ts";
import { eventually, request, startServer, type TestServer } from "../support/server.ts";

/** Asks beside a node that goes on working: the run stops a while after its question has been told. */
function createAsking() {
  let finish: (() => void) | undefined;
  const graph = new StateGraph(Trail)
    .addNode("ask", () => ({ trail: [`answer:${JSON.stringify(interrupt("Go on?"))}`] }))
    .addNode("work", async ({ input }, { signal }: LangGraphRunnableConfig) => {
      await new Promise<void>((resolve, reject) => {
        finish = resolve;
        signal?.addEventListener("abort", () => reject(signal.reason as Error));
        if (input !== "until told") setTimeout(resolve, 300);
      });
      return { trail: ["worked"] };
    })
    .addEdge("__start__", "ask")
    .addEdge("__start__", "work")
    .compile();
  return { graph, finish: () => finish?.() };
}

interface Asked {
  interrupt_id: string;
}

describeDatabases("an answer that comes before the run has stopped", (databases) => {
  const asking = createAsking();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ asking: asking.graph }));
  });

  const command = async (threadId: string, method: string, params: object) => {
    const { json } = await request(server.url, `/threads/${threadId}/commands`, {
      json: { id: 1, method, params },
    });
    return json as { type: string; error?: string; result?: { run_id: string } };
  };

  /** Starts a run over the v2 protocol, and gives its question as soon as it is told. */
  const ask = async (threadId: string, input: object): Promise<Asked> => {
    const gone = new AbortController();
    const events = await fetch(`${server.url}/threads/${threadId}/stream/events`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ channels: ["input"] }),
      signal: gone.signal,
    });
    await command(threadId, "run.start", { assistant_id: "asking", input });
    let text = "";
    for await (const chunk of events.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const data = /^data: (.*"input\.requested".*)\n\n/mu.exec(text)?.[1];
      if (data === undefined) continue;
      gone.abort();
      return (JSON.parse(data) as { params: { data: Asked } }).params.data;
    }
    throw new Error("The run did not ask.");
  };

  /** The trail of a thread whose two runs have ended. */
  const ended = (threadId: string): Promise<string[]> =>
    eventually(async () => {
      const runs = await server.client.runs.list(threadId);
      expect(runs.map(({ status }) => status)).toEqual(["success", "success"]);
      const { next, values } = await server.client.threads.getState<{ trail: string[] }>(threadId);
      expect(next).toEqual([]);
      return values.trail;
    });

  it("is taken, and goes on when it has (input.respond)", async () => {
    const threadId = randomUUID();
    const { interrupt_id: id } = await ask(threadId, { input: "until told" });
    expect((await server.client.threads.get(threadId)).status).toBe("busy");
    setTimeout(asking.finish, 300);
    const answer = { namespace: [], interrupt_id: id, response: "yes" };
    expect(await command(threadId, "input.respond", answer)).toMatchObject({ type: "success" });
    expect(await ended(threadId)).toEqual(expect.arrayContaining(['answer:"yes"', "worked"]));
    const [resumed, first] = await server.client.runs.list(threadId);
    expect(resumed).toMatchObject({ resumed_from: first!.run_id });
    expect(await command(threadId, "input.respond", answer)).toMatchObject({
      type: "error",
      error: "no_such_interrupt",
    });
  });

  it("is not taken for a question that nobody asks", async () => {
    const threadId = randomUUID();
    await ask(threadId, { input: "x" });
    const answer = { namespace: [], interrupt_id: "0".repeat(32), response: "yes" };
    expect(await command(threadId, "input.respond", answer)).toMatchObject({
      type: "error",
      error: "no_such_interrupt",
    });
  });

  it("is the input of a run that is started (run.start)", async () => {
    const threadId = randomUUID();
    await ask(threadId, { input: "x" });
    const answer = { assistant_id: "asking", input: { input: "mine" } };
    expect(await command(threadId, "run.start", answer)).toMatchObject({ type: "success" });
    expect(await ended(threadId)).toContain('answer:{"input":"mine"}');
  });

  it("waits for a run that goes on for long beside its question", async () => {
    const threadId = randomUUID();
    const { interrupt_id: id } = await ask(threadId, { input: "until told" });
    const answer = { namespace: [], interrupt_id: id, response: "yes" };
    expect(await command(threadId, "input.respond", answer)).toMatchObject({ type: "success" });
    const [resumed] = await server.client.runs.list(threadId);
    expect(resumed).toMatchObject({ status: "pending" });
    asking.finish();
    expect(await ended(threadId)).toContain('answer:"yes"');
  });

  it.each(["values", "updates"] as const)("over a run's own stream of %s too", async (mode) => {
    const { client } = server;
    const { thread_id: threadId } = await client.threads.create();
    const stream = client.runs.stream(threadId, "asking", {
      input: { input: "x" },
      streamMode: mode,
    });
    for await (const { data } of stream) {
      if (!Object.hasOwn((data ?? {}) as object, "__interrupt__")) continue;
      const values = await client.runs.wait(threadId, "asking", { command: { resume: "yes" } });
      expect(values).toMatchObject({
        trail: expect.arrayContaining(['answer:"yes"', "worked"]) as string[],
      });
      return;
    }
    throw new Error("The run did not ask.");
  });
});
