import type { Interrupt } from "@langchain/langgraph-sdk";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import {
  approval,
  five,
  nestedQuestion,
  registryOf,
  routed,
  twoQuestions,
  type Trail,
} from "../support/graphs.ts";
import { collect, startServer, type TestServer } from "../support/server.ts";

type Values = typeof Trail.State & { __interrupt__?: Interrupt[] };

describeDatabases("interrupts", (databases) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(
      databases,
      registryOf({ approval, five, nestedQuestion, routed, twoQuestions }),
    );
  });
  const newThread = async () => (await server.client.threads.create()).thread_id;

  it("asks in the stream, in the state and on the thread", async () => {
    const { client } = server;
    const thread_id = await newThread();
    const parts = await collect(
      client.runs.stream(thread_id, "approval", {
        input: { input: "x" },
        streamMode: ["values", "updates"],
      }),
    );
    const asked = [{ id: expect.any(String) as string, value: { question: "Go on?" } }];
    expect(parts.filter(({ event }) => event === "updates").at(-1)?.data).toEqual({
      __interrupt__: asked,
    });
    expect(parts.filter(({ event }) => event === "values").at(-1)?.data).toMatchObject({
      __interrupt__: asked,
    });
    const thread = await client.threads.get(thread_id);
    expect(thread.status).toBe("interrupted");
    expect(Object.values(thread.interrupts)).toEqual([asked]);
    const state = await client.threads.getState(thread_id);
    expect(state).toMatchObject({
      next: ["ask"],
      interrupts: asked,
      tasks: [{ interrupts: asked }],
    });
    expect(Object.keys(thread.interrupts)).toEqual([state.tasks[0]!.id]);
  });

  it("joins as the run was answered", async () => {
    const { client } = server;
    const thread_id = await newThread();
    const run = await client.runs.create(thread_id, "approval", { input: { input: "x" } });
    const joined = (await client.runs.join(thread_id, run.run_id)) as unknown as Values;
    expect(joined.__interrupt__).toMatchObject([{ value: { question: "Go on?" } }]);
    // And so does one who comes when it is over.
    expect(await client.runs.join(thread_id, run.run_id)).toEqual(joined);
    expect((await client.runs.get(thread_id, run.run_id)).status).toBe("success");
  });

  it("takes false, zero, nothing and lists for an answer, but not null", async () => {
    const { client } = server;
    for (const [resume, shown] of [
      [false, "false"],
      [0, "0"],
      ["", ""],
      [["a", "b"], "a,b"],
    ] as const) {
      const thread_id = await newThread();
      await client.runs.wait(thread_id, "approval", { input: { input: "x" } });
      const done = (await client.runs.wait(thread_id, "approval", {
        command: { resume },
      })) as Values;
      expect(done.trail).toContain(`answer:${shown}`);
    }
    const thread_id = await newThread();
    for (const command of [{ resume: null }, {}]) {
      await expect(client.runs.wait(thread_id, "approval", { command })).rejects.toMatchObject({
        status: 422,
        text: expect.stringContaining("command: needs goto, update, or a resume") as string,
      });
    }
  });

  it("answers two questions by their ids, together or one by one", async () => {
    const { client } = server;
    const thread_id = await newThread();
    const asked = (await client.runs.wait(thread_id, "twoQuestions", {
      input: { input: "x" },
    })) as Values;
    const questions = asked.__interrupt__!;
    expect(questions.map(({ value }) => String(value)).toSorted()).toEqual(["Left?", "Right?"]);
    const thread = await client.threads.get(thread_id);
    expect(Object.keys(thread.interrupts)).toHaveLength(2);
    const answers = Object.fromEntries(
      questions.map(({ id, value }) => [id!, `re ${String(value)}`]),
    );
    const done = (await client.runs.wait(thread_id, "twoQuestions", {
      command: { resume: answers },
    })) as Values;
    expect(done.trail.toSorted()).toEqual(["left:re Left?", "right:re Right?"]);
    expect(await client.threads.get(thread_id)).toMatchObject({ status: "idle", interrupts: {} });

    const other = await newThread();
    const again = (await client.runs.wait(other, "twoQuestions", {
      input: { input: "x" },
    })) as Values;
    const first = again.__interrupt__!.find(({ value }) => value === "Left?")!;
    const half = (await client.runs.wait(other, "twoQuestions", {
      command: { resume: { [first.id!]: "l" } },
    })) as Values;
    expect(half.__interrupt__).toMatchObject([{ value: "Right?" }]);
    expect(await client.threads.get(other)).toMatchObject({ status: "interrupted" });
    const whole = (await client.runs.wait(other, "twoQuestions", {
      command: { resume: { [half.__interrupt__![0]!.id!]: "r" } },
    })) as Values;
    expect(whole.trail.toSorted()).toEqual(["left:l", "right:r"]);
  });

  it("asks from inside a subgraph", async () => {
    const { client } = server;
    const thread_id = await newThread();
    const asked = (await client.runs.wait(thread_id, "nestedQuestion", {
      input: { input: "x" },
    })) as Values;
    expect(asked.__interrupt__).toMatchObject([{ value: "Inside?" }]);
    const done = (await client.runs.wait(thread_id, "nestedQuestion", {
      command: { resume: "ok" },
    })) as Values;
    expect(done.trail).toContain("inner:ok");
  });

  it("updates and goes where a command says", async () => {
    const { client } = server;
    const thread_id = await newThread();
    await client.runs.wait(thread_id, "approval", { input: { input: "x" } });
    const done = (await client.runs.wait(thread_id, "approval", {
      command: { resume: "yes", update: { trail: ["edited"] } },
    })) as Values;
    expect(done.trail).toEqual(["prepare", "edited", "answer:yes", "done"]);
    const sent = (await client.runs.wait(thread_id, "approval", {
      command: { goto: "done" },
    })) as Values;
    expect(sent.trail.slice(4)).toEqual(["done"]);
    const both = (await client.runs.wait(thread_id, "approval", {
      command: { goto: ["prepare", { node: "done", input: { input: "y" } }] as never },
    })) as Values;
    expect(both.trail.slice(5)).toEqual(expect.arrayContaining(["prepare", "done"]));
  });

  it("goes where a node's command says", async () => {
    const { client } = server;
    const values = (await client.runs.wait(null, "routed", { input: { input: "x" } })) as Values;
    expect(values.trail).toEqual(["start", "right"]);
  });

  it("stops before and after the nodes it was told to", async () => {
    const { client } = server;
    for (const [options, stops] of [
      [{ interruptBefore: ["three"] }, 2],
      [{ interruptAfter: ["three"] }, 3],
      [{ interruptBefore: "*" as const }, 0],
      [{ interruptAfter: "*" as const }, 1],
    ] as const) {
      const thread_id = await newThread();
      await client.runs.wait(thread_id, "five", {
        input: { input: "x" },
        ...(options as object),
      });
      const state = await client.threads.getState<Values>(thread_id);
      expect(state.values.trail ?? []).toHaveLength(stops);
      expect(state.next).toHaveLength(1);
      expect(await client.threads.get(thread_id)).toMatchObject({ status: "interrupted" });
      const done = (await client.runs.wait(thread_id, "five", { input: null })) as Values;
      expect(done.trail).toHaveLength(5);
      expect(await client.threads.get(thread_id)).toMatchObject({ status: "idle" });
    }
  });

  it("remembers nothing of a question that was passed over", async () => {
    const { client } = server;
    const thread_id = await newThread();
    await client.runs.wait(thread_id, "approval", { input: { input: "x" } });
    const values = (await client.runs.wait(thread_id, "approval", {
      input: { input: "instead" },
    })) as Values;
    expect(values.__interrupt__).toHaveLength(1);
    expect(values.input).toBe("instead");
  });

  it("says why a run without a thread cannot ask", async () => {
    const { client } = server;
    await expect(client.runs.wait(null, "approval", { input: { input: "x" } })).rejects.toThrow(
      /no thread to wait on/,
    );
    const parts = await collect(
      client.runs.stream(null, "approval", { input: { input: "x" }, streamMode: ["values"] }),
    );
    expect(parts.at(-1)).toMatchObject({
      event: "error",
      data: { message: expect.stringContaining("no thread to wait on") as string },
    });
    // One that keeps its thread can.
    let threadId: string | undefined;
    const kept = (await client.runs.wait(null, "approval", {
      input: { input: "x" },
      // The client sends it, but its types know it for a background run only.
      ...({ onCompletion: "keep" } as object),
      onRunCreated: ({ thread_id }) => {
        threadId = thread_id;
      },
    })) as Values;
    expect(kept.__interrupt__).toHaveLength(1);
    expect(await client.threads.get(threadId!)).toMatchObject({ status: "interrupted" });
    await expect(
      client.runs.wait(null, "five", { input: { input: "x" }, interruptBefore: ["two"] }),
    ).rejects.toMatchObject({
      status: 422,
      text: expect.stringContaining("interrupt_before: a run without a thread") as string,
    });
  });
});
