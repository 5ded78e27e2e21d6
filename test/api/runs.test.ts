import { expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { approval, chat, custom, failing, five, nested, registryOf } from "../support/graphs.ts";
import { startServer } from "../support/server.ts";

const trailOf = (values: unknown): string[] => (values as { trail: string[] }).trail;

async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}

describeDatabases("runs", (databases) => {
  const start = () =>
    startServer(databases, registryOf({ five, chat, approval, failing, custom, nested }));
  let started: ReturnType<typeof start> | undefined;
  const server = () => (started ??= start());

  it("waits for a run on a thread, and leaves its state on the thread", async () => {
    const { client } = await server();
    const thread = await client.threads.create();
    const values = await client.runs.wait(thread.thread_id, "five", { input: { input: "x" } });
    expect(trailOf(values)).toEqual(["one", "two", "three", "four", "five"]);
    const after = await client.threads.get(thread.thread_id);
    expect(after.status).toBe("idle");
    expect(trailOf(after.values)).toHaveLength(5);
    const state = await client.threads.getState(thread.thread_id);
    expect(state.next).toEqual([]);
    expect(trailOf(state.values)).toHaveLength(5);
    const history = await client.threads.getHistory(thread.thread_id, { limit: 20 });
    expect(history).toHaveLength(7);
  });

  it("waits for a run without a thread", async () => {
    const { client } = await server();
    const values = await client.runs.wait(null, "five", { input: { input: "x" } });
    expect(trailOf(values)).toHaveLength(5);
  });

  it("streams tokens as message tuples", async () => {
    const { client } = await server();
    const thread = await client.threads.create();
    const parts = await collect(
      client.runs.stream(thread.thread_id, "chat", {
        input: { messages: [{ role: "user", content: "Hi" }] },
        streamMode: ["messages-tuple", "values"],
      }),
    );
    expect(parts[0]).toMatchObject({ id: "0", event: "metadata", data: { attempt: 1 } });
    const tokens = parts
      .filter((part) => part.event === "messages")
      .map((part) => (part.data as unknown as [{ content: string }])[0].content);
    expect(tokens.join("")).toBe("Hello there!");
    expect(tokens.length).toBeGreaterThan(5);
    expect(parts.map((part) => (part as { id?: string }).id)).toEqual(
      parts.map((_, index) => String(index)),
    );
  });

  it("stops at an interrupt and goes on with the answer", async () => {
    const { client } = await server();
    const thread = await client.threads.create();
    const asked = (await client.runs.wait(thread.thread_id, "approval", {
      input: { input: "x" },
    })) as unknown as { __interrupt__: { value: unknown }[]; trail: string[] };
    expect(asked.__interrupt__).toMatchObject([{ value: { question: "Go on?" } }]);
    const waiting = await client.threads.get(thread.thread_id);
    expect(waiting.status).toBe("interrupted");
    expect(Object.values(waiting.interrupts).flat()).toMatchObject([
      { value: { question: "Go on?" } },
    ]);
    const [run] = await client.runs.list(thread.thread_id);
    expect(run?.status).toBe("success");
    const done = await client.runs.wait(thread.thread_id, "approval", {
      command: { resume: "yes" },
    });
    expect(trailOf(done)).toEqual(["prepare", "answer:yes", "done"]);
    expect((await client.threads.get(thread.thread_id)).status).toBe("idle");
  });

  it("tells what failed, without a stack", async () => {
    const { client } = await server();
    const thread = await client.threads.create();
    await expect(
      client.runs.wait(thread.thread_id, "failing", { input: { input: "x" } }),
    ).rejects.toThrow("TypeError: The second node is broken");
    const after = await client.threads.get(thread.thread_id);
    expect(after).toMatchObject({ status: "error", error: { error: "TypeError" } });
    const parts = await collect(
      client.runs.stream(thread.thread_id, "failing", { input: { input: "x" } }),
    );
    expect(parts.at(-1)).toMatchObject({
      event: "error",
      data: { error: "TypeError", message: "The second node is broken" },
    });
    expect(JSON.stringify(parts)).not.toContain(".ts:");
  });
});
