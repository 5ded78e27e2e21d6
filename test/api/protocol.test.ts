import type { Client } from "@langchain/langgraph-sdk";
import { WebSocket } from "ws";
import { beforeAll, describe, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import {
  approval,
  chat,
  createFeed,
  failing,
  five,
  nested,
  nestedQuestion,
  registryOf,
  twoQuestions,
} from "../support/graphs.ts";
import { calculator, channels } from "../support/protocol-graphs.ts";
import { collect, startServer, type TestServer } from "../support/server.ts";
import { brief } from "../support/thread-stream.ts";

type Transport = "sse" | "websocket";
type ThreadStream = ReturnType<Client["threads"]["stream"]>;

const CHANNELS = [
  "values",
  "updates",
  "messages",
  "tools",
  "lifecycle",
  "input",
  "custom",
] as const;

describeDatabases("the v2 protocol", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(
      databases,
      registryOf({
        approval,
        calculator,
        channels,
        chat,
        failing,
        feed: feed.graph,
        five,
        nested,
        nestedQuestion,
        twoQuestions,
      }),
    );
  });

  describe.each<Transport>(["sse", "websocket"])("over %s", (transport) => {
    const open = (assistantId: string, threadId?: string): ThreadStream => {
      const options = {
        assistantId,
        transport,
        webSocketFactory: (url: string) => new WebSocket(url) as unknown as globalThis.WebSocket,
      };
      const { threads } = server.client;
      return threadId === undefined ? threads.stream(options) : threads.stream(threadId, options);
    };
    const follow = (thread: ThreadStream) => thread.subscribe({ channels: [...CHANNELS] });

    it("streams a message token by token, and the values", async () => {
      const thread = open("chat");
      const { messages } = thread;
      const { run_id } = await thread.run.start({
        input: { messages: [{ role: "user", content: "Hi" }] },
      });
      const run = await server.client.runs.get(thread.threadId, run_id!);
      expect(run).toMatchObject({ run_id, multitask_strategy: "enqueue" });
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
      const read = async () => (await collect(events)).map(brief);
      await thread.run.start({ input: { input: "x" } });
      expect(await read()).toEqual([
        "running",
        "values",
        "values",
        "input.requested",
        "interrupted",
      ]);
      const [question] = thread.interrupts;
      expect(question).toMatchObject({ payload: { question: "Go on?" }, namespace: [] });
      expect((await server.client.threads.get(thread.threadId)).status).toBe("interrupted");

      const answer = { namespace: [], interrupt_id: question!.interruptId, response: "yes" };
      await thread.input.respond(answer);
      expect(await read()).toEqual([
        "running",
        "input.answered",
        "values",
        "values",
        "values",
        "completed",
      ]);
      expect(await thread.state.get({ namespace: [], keys: ["trail"] })).toMatchObject({
        values: { trail: ["prepare", "answer:yes", "done"] },
      });
      await expect(thread.input.respond(answer)).rejects.toMatchObject({
        code: "no_such_interrupt",
      });
      await thread.close();
    });

    it("tells one who comes late of every run there was, before it is at rest", async () => {
      const { client } = server;
      const { thread_id: threadId } = await client.threads.create();
      for (let count = 0; count < 8; count += 1)
        await client.runs.wait(threadId, "five", { input: { input: "x" } });
      // A reader that is told of an end takes the thread for at rest, if nothing follows at once.
      for (let times = 0; times < 5; times += 1) {
        const thread = open("five", threadId);
        const events = await thread.subscribe({ channels: ["values", "lifecycle"] });
        const told = (await collect(events)).map(brief);
        expect(told.filter((event) => event === "completed")).toHaveLength(8);
        expect(told.at(-1)).toBe("completed");
        await thread.close();
      }
    });

    it("takes the answers to several questions at once", async () => {
      const thread = open("twoQuestions");
      const events = await follow(thread);
      await thread.run.start({ input: { input: "x" } });
      await collect(events);
      expect(new Set(thread.interrupts.map(({ payload }) => payload))).toEqual(
        new Set(["Left?", "Right?"]),
      );
      await thread.input.respond({
        responses: thread.interrupts.map(({ interruptId, payload }) => ({
          namespace: [],
          interrupt_id: interruptId,
          response: `${String(payload)} yes`,
        })),
      });
      expect((await collect(events)).map(brief).at(-1)).toBe("completed");
      expect((await thread.state.get({ namespace: [] })) as object).toMatchObject({
        values: { trail: ["left:Left? yes", "right:Right? yes"] },
      });
      await thread.close();
    });

    it("tells where in the tree of graphs something happens", async () => {
      const thread = open("nested");
      const all = await thread.subscribe({ channels: ["values", "updates", "lifecycle"] });
      const root = await thread.subscribe({
        channels: ["updates"],
        namespaces: [[]],
        depth: 0,
      });
      const child = await thread.subscribe({ channels: ["updates"], namespaces: [["child"]] });
      await thread.run.start({ input: { input: "x" } });
      expect((await collect(all)).map(brief)).toEqual([
        "running",
        "values",
        "updates",
        "values",
        "started@child",
        "values@child",
        "updates@child",
        "values@child",
        "updates",
        "completed@child",
        "values",
        "completed",
      ]);
      expect((await collect(root)).map(brief)).toEqual(["updates", "updates"]);
      expect((await collect(child)).map(brief)).toEqual(["updates@child"]);
      const { tree } = await thread.agent.getTree();
      const namespace = tree.children![0]!.namespace;
      expect(await thread.state.get({ namespace })).toMatchObject({
        values: { trail: ["outer", "inner"] },
        checkpoint: { ns: namespace[0] },
      });
      const { checkpoints } = await thread.state.listCheckpoints({ namespace });
      expect(checkpoints.map(({ step }) => step)).toEqual([1, 0, -1]);
      expect(tree).toMatchObject({
        status: "completed",
        graph_name: "nested",
        children: [{ status: "completed", graph_name: "child" }],
      });
      await thread.close();
    });

    it("asks from inside a subgraph, once", async () => {
      const thread = open("nestedQuestion");
      const events = await thread.subscribe({ channels: ["input", "lifecycle"] });
      await thread.run.start({ input: { input: "x" } });
      const seen = (await collect(events)).map(brief);
      expect(seen.filter((event) => event.startsWith("input"))).toHaveLength(1);
      expect(seen.at(-1)).toBe("interrupted");
      const [question] = thread.interrupts;
      await thread.input.respond({
        namespace: question!.namespace,
        interrupt_id: question!.interruptId,
        response: "yes",
      });
      expect((await collect(events)).map(brief).at(-1)).toBe("completed");
      await thread.close();
    });

    it("tells of tools, and of a graph's own channels", async () => {
      const tools = open("calculator");
      const calls = await tools.subscribe({ channels: ["tools"] });
      await tools.run.start({ input: { input: "x" } });
      const told = (await collect(calls)).map(({ params }) => params.data);
      expect(told).toMatchObject([
        { event: "tool-started", tool_call_id: "call-1", tool_name: "add" },
        { event: "tool-finished", tool_call_id: "call-1", output: { content: "5" } },
      ]);
      await tools.close();

      const thread = open("channels");
      const every = await thread.subscribe({ channels: ["custom"] });
      const progress = await thread.subscribe("custom:progress");
      const odd = await thread.subscribe({ channels: ["custom:a|b c"] });
      await thread.run.start({ input: { input: "x" } });
      expect((await collect(every)).map(({ params }) => params.data)).toEqual([
        { payload: { percent: 10 } },
        { name: "progress", payload: { percent: 50 } },
        { name: "a|b c", payload: "odd" },
      ]);
      expect(await collect(progress)).toEqual([{ percent: 50 }]);
      expect((await collect(odd)).map(({ params }) => params.data)).toEqual([
        { name: "a|b c", payload: "odd" },
      ]);
      await thread.close();
    });

    it("tells why a run failed, and that one was stopped", async () => {
      const broken = open("failing");
      const events = await broken.subscribe({ channels: ["lifecycle"] });
      await broken.run.start({ input: { input: "x" } });
      expect((await collect(events)).map(({ params }) => params.data)).toEqual([
        { event: "running", graph_name: "failing" },
        { event: "failed", graph_name: "failing", error: "The second node is broken" },
      ]);
      await broken.close();

      const thread = open("feed");
      const input = `stopped-${transport}-${crypto.randomUUID()}`;
      const lives = await thread.subscribe({ channels: ["lifecycle"] });
      const { run_id } = await thread.run.start({ input: { input } });
      await feed.entered(input);
      await server.client.runs.cancel(thread.threadId, run_id!);
      expect((await collect(lives)).map(brief)).toEqual(["running", "interrupted"]);
      await thread.close();
    });

    it("goes on from an earlier checkpoint", async () => {
      const thread = open("five");
      const events = await thread.subscribe({ channels: ["lifecycle"] });
      await thread.run.start({ input: { input: "x" } });
      await collect(events);
      const { checkpoints } = await thread.state.listCheckpoints({ limit: 20 });
      expect(checkpoints.map(({ step }) => step)).toEqual([5, 4, 3, 2, 1, 0, -1]);
      const afterTwo = checkpoints.find(({ step }) => step === 2)!;
      const forked = await thread.state.fork({ checkpoint_id: afterTwo.id });
      expect(forked.thread_id).toBe(thread.threadId);
      await server.client.runs.join(thread.threadId, forked.run_id);
      const state = await server.client.threads.getState(thread.threadId);
      expect(state.values).toMatchObject({ trail: ["one", "two", "three", "four", "five"] });
      const { checkpoints: all } = await thread.state.listCheckpoints({ limit: 20 });
      expect(all.map(({ step }) => step)).toEqual([6, 5, 4, 3, 5, 4, 3, 2, 1, 0, -1]);
      await expect(
        thread.state.fork({ checkpoint_id: "1f000000-0000-6000-8000-000000000000" }),
      ).rejects.toMatchObject({ code: "no_such_checkpoint" });
      await thread.close();
    });

    it("shows every client of a thread the same, whenever they come", async () => {
      const first = open("feed");
      const input = `many-${transport}-${crypto.randomUUID()}`;
      const events = await follow(first);
      await first.run.start({ input: { input } });
      await feed.entered(input);
      feed.push(input, { n: 1 });
      const second = open("feed", first.threadId);
      const same = await follow(second);
      feed.push(input, { n: 2 });
      feed.end(input);
      const [one, two] = await Promise.all([collect(events), collect(same)]);
      expect(two).toEqual(one);
      expect(one.map(brief)).toEqual([
        "running",
        "values",
        "custom",
        "custom",
        "updates",
        "values",
        "completed",
      ]);
      await first.close();
      const late = open("feed", first.threadId);
      expect(await collect(await follow(late))).toEqual(one);
      await Promise.all([second.close(), late.close()]);
    });

    it("runs what is injected after the run that is at work", async () => {
      const thread = open("feed");
      const input = `inject-${transport}-${crypto.randomUUID()}`;
      const message = { role: "user", content: "And this?" } as const;
      await expect(thread.input.inject({ namespace: [], message })).rejects.toMatchObject({
        code: "no_such_run",
      });
      const { run_id } = await thread.run.start({ input: { input } });
      await feed.entered(input);
      await thread.input.inject({ namespace: [], message });
      const [injected, active] = await server.client.runs.list(thread.threadId);
      expect(active).toMatchObject({ run_id, status: "running" });
      expect(injected).toMatchObject({
        status: "pending",
        kwargs: { input: { messages: [message] } },
      });
      await server.client.runs.cancel(thread.threadId, injected!.run_id);
      feed.end(input);
      await server.client.runs.join(thread.threadId, run_id!);
      await thread.close();
    });
  });
});
