import { beforeAll, expect, it } from "vitest";
import type { Event } from "@langchain/protocol";
import { describeDatabases } from "../support/databases.ts";
import { approval, chat, nested, registryOf } from "../support/graphs.ts";
import { collect, startServer, type TestServer } from "../support/server.ts";

describeDatabases("the v2 protocol over SSE", (databases) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ chat, approval, nested }));
  });
  const open = (assistantId: string) => server.client.threads.stream({ assistantId });

  it("streams a message token by token, and the values", async () => {
    const thread = open("chat");
    const { messages } = thread;
    const { run_id } = await thread.run.start({
      input: { messages: [{ role: "user", content: "Hi" }] },
    });
    expect(await server.client.runs.get(thread.threadId, run_id!)).toMatchObject({ run_id });
    const tokens: string[][] = [];
    for await (const message of messages) tokens.push(await collect(message.text));
    expect(tokens).toEqual(["Hello there!".split("")]);
    expect(await thread.values).toMatchObject({
      messages: [{ content: "Hi" }, { content: [{ type: "text", text: "Hello there!" }] }],
    });
    await thread.close();
  });

  it("asks, and goes on with the answer", async () => {
    const thread = open("approval");
    const events = await thread.subscribe({ channels: ["values", "lifecycle", "input"] });
    const read = async () => {
      const seen: Event[] = await collect(events);
      return seen.map(({ method, params }) =>
        method === "lifecycle" ? (params.data as { event: string }).event : method,
      );
    };
    await thread.run.start({ input: { input: "x" } });
    expect(await read()).toEqual(["running", "values", "values", "input.requested", "interrupted"]);
    const [question] = thread.interrupts;
    expect(question).toMatchObject({ payload: { question: "Go on?" }, namespace: [] });
    expect((await server.client.threads.get(thread.threadId)).status).toBe("interrupted");

    await thread.input.respond({
      namespace: [],
      interrupt_id: question!.interruptId,
      response: "yes",
    });
    expect(await read()).toEqual([
      "running",
      "input.answered",
      "values",
      "values",
      "values",
      "completed",
    ]);
    expect(await thread.state.get({ namespace: [] })).toMatchObject({
      values: { trail: ["prepare", "answer:yes", "done"] },
    });
    await thread.close();
  });
});
