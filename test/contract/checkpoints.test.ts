import { spawn } from "node:child_process";
import { randomUUID } from "node:crypto";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import type { BaseMessage } from "@langchain/core/messages";
import {
  Annotation,
  Command,
  END,
  interrupt,
  MessagesAnnotation,
  MessagesDeltaValue,
  START,
  StateGraph,
  StateSchema,
} from "@langchain/langgraph";
import { uuid6 } from "@langchain/langgraph-checkpoint";
import type {
  BaseCheckpointSaver,
  Checkpoint,
  CheckpointTuple,
} from "@langchain/langgraph-checkpoint";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { deltaChannelHistoryTests, validate } from "@langchain/langgraph-checkpoint-validation";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { ServerError } from "../../src/errors.ts";
import { createThreadStateRepository } from "../../src/storage/thread-state.ts";
import { createThreadRepository } from "../../src/storage/threads.ts";
import { openCheckpoints } from "../../src/storage/checkpoints.ts";
import type { Checkpoints, RunSaverOptions } from "../../src/storage/checkpoints.ts";
import type { Database } from "../../src/storage/database.ts";
import { openDatabase } from "../../src/storage/open.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";

// LangGraph's validation suite is written for a runner that has these as globals.
Object.assign(globalThis, { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it });

describeDatabases("checkpoints of a killed process", (databases) => {
  it("are all there, whatever it was doing", async () => {
    const { databaseUrl, dataDir } = await databases.configure();
    const script = fileURLToPath(new URL("checkpoint-child.mjs", import.meta.url));
    const child = spawn(process.execPath, [script, databaseUrl ?? "", dataDir]);
    const committed = new Map<string, number>();
    let count = 0;
    let complaints = "";
    child.stderr.on("data", (data: Buffer) => (complaints += data.toString()));
    for await (const line of createInterface({ input: child.stdout })) {
      const [threadId = "", step] = line.split(" ");
      committed.set(threadId, Number(step));
      count += 1;
      if (count === 200) child.kill("SIGKILL");
    }
    expect(complaints).toBe("");
    expect(committed.size).toBe(10);
    const database = await openDatabase({ databaseUrl, dataDir });
    const checkpoints = openCheckpoints(database);
    for (const [threadId, step] of committed) {
      const history = await collect(
        checkpoints.forRun().list({ configurable: { thread_id: threadId } }),
      );
      const steps = history.map((tuple) => tuple.checkpoint.channel_values["step"]);
      // Every step from the newest to the first, and none without its value.
      expect(steps).toEqual(steps.map((_, index) => steps.length - 1 - index));
      expect(steps[0]).toBeGreaterThanOrEqual(step);
      const reported = history.find((tuple) => tuple.checkpoint.channel_values["step"] === step);
      expect(reported?.pendingWrites).toEqual([["task", "step", step]]);
    }
    await checkpoints.close();
    await database.close();
  });
});

describe("checkpoints on postgres, when connections are lost", () => {
  const databases = createTestDatabases("postgres");

  it("are sent again", async () => {
    const database = await databases.open();
    const checkpoints = openCheckpoints(database);
    const savers = Array.from({ length: 10 }, () => {
      const threadId = randomUUID();
      return { threadId, saver: checkpoints.forRun({ threadId, resolve: "queued" }) };
    });
    // More than one connection, so that there are others to end beside the one that ends them.
    await Promise.all([1, 2, 3].map(() => database.query("SELECT pg_sleep(0.2)")));
    let lost = 0;
    for (let step = 0; step < 10; step += 1) {
      for (const { saver, threadId } of savers) {
        const checkpoint = toCheckpoint({ step });
        const config = { configurable: { thread_id: threadId } };
        await saver.put(config, checkpoint, METADATA, checkpoint.channel_versions);
      }
      // A statement is sent four times at most, however many steps it takes on its way.
      if (step % 4 === 1) lost += await terminateOthers(database);
    }
    expect(lost).toBeGreaterThan(0);
    for (const { saver, threadId } of savers) {
      await saver.settled();
      const history = await collect(saver.list({ configurable: { thread_id: threadId } }));
      expect(history.map((tuple) => tuple.checkpoint.channel_values["step"])).toEqual([
        9, 8, 7, 6, 5, 4, 3, 2, 1, 0,
      ]);
    }
    await checkpoints.close();
  });

  async function terminateOthers(database: Database): Promise<number> {
    const { rowCount } = await database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
      WHERE datname = current_database() AND pid <> pg_backend_pid()`,
    );
    return rowCount;
  }
});

describeDatabases("checkpoints", (databases) => {
  let database: Database;
  let checkpoints: Checkpoints;
  let statements: string[] = [];

  beforeAll(async () => {
    database = await databases.open();
    checkpoints = openCheckpoints({
      ...unwrap(database),
      query: (text, params) => {
        statements.push(text);
        return database.query(text, params);
      },
    });
  });
  beforeEach(() => {
    statements = [];
  });
  afterAll(() => checkpoints.close());

  const initializer = {
    checkpointerName: "aegra",
    createCheckpointer: async () => {
      await database.query("TRUNCATE checkpoints, checkpoint_blobs, checkpoint_writes");
      return checkpoints.forRun();
    },
  };
  validate(initializer);
  deltaChannelHistoryTests(initializer);

  async function countRows(threadId: string): Promise<Record<string, number>> {
    const { rows } = await database.query<{ counts: Record<string, number> }>(
      `SELECT json_build_object(
        'checkpoints', (SELECT count(*) FROM checkpoints WHERE thread_id = $1),
        'blobs', (SELECT count(*) FROM checkpoint_blobs WHERE thread_id = $1),
        'writes', (SELECT count(*) FROM checkpoint_writes WHERE thread_id = $1)) AS counts`,
      [threadId],
    );
    return rows[0]!.counts;
  }

  function withThread(options: Omit<RunSaverOptions, "threadId"> = {}) {
    const threadId = randomUUID();
    return {
      threadId,
      config: { configurable: { thread_id: threadId } },
      saver: checkpoints.forRun({ ...options, threadId }),
    };
  }

  describe("what a run costs", () => {
    it("reads nothing on a thread known to be new, and writes in fewer statements than supersteps", async () => {
      const { saver, config } = withThread({ assumeEmpty: true, resolve: "queued" });
      await chain(saver).invoke({ messages: ["hello"] }, { ...config, durability: "async" });
      await saver.settled();
      expect(statements.filter(isRead)).toEqual([]);
      expect(statements.filter(isWrite).length).toBeLessThan(7);
      const tuple = await saver.getTuple(config);
      expect(tuple?.checkpoint.channel_values["messages"]).toHaveLength(6);
    });

    it("commits fifty concurrent runs together, each with its own state", async () => {
      const runs = Array.from({ length: 50 }, () => withThread({ assumeEmpty: true }));
      await Promise.all(
        runs.map(({ saver, config, threadId }) =>
          chain(saver).invoke({ messages: [threadId] }, { ...config, durability: "sync" }),
        ),
      );
      // One run alone needs seven; apart they would need 350.
      expect(statements.filter(isWrite).length).toBeLessThan(175);
      for (const { threadId, config } of runs) {
        const values = (await chain(checkpoints.forRun()).getState(config)).values;
        expect(values.messages.map((message: { content: unknown }) => message.content)).toEqual([
          threadId,
          ...NAMES.map((name) => `I am ${name}.`),
        ]);
      }
    });

    it("looks up a checkpoint in one query", async () => {
      const { saver, config } = withThread();
      await chain(saver).invoke({ messages: ["hello"] }, config);
      statements = [];
      await checkpoints.forRun().getTuple(config);
      expect(statements).toHaveLength(1);
    });

    it("does not look for the checkpoints of a subgraph's task that this run has just created", async () => {
      const { saver, config } = withThread({ resolve: "queued" });
      await nested(saver).invoke({ log: [] }, config);
      expect(statements.filter(isRead)).toHaveLength(1);
    });
  });

  describe("order", () => {
    it("reads what was given to it before, without waiting for it in between", async () => {
      const { saver, config, threadId } = withThread({ resolve: "queued" });
      const first = toCheckpoint({ value: 1 });
      const address = {
        configurable: { thread_id: threadId, checkpoint_ns: "", checkpoint_id: first.id },
      };
      const given = [
        saver.put(config, first, METADATA, first.channel_versions),
        saver.putWrites(address, [["value", 2]], "task"),
      ];
      const tuple = await saver.getTuple(config);
      await Promise.all(given);
      expect(tuple?.checkpoint.channel_values).toEqual({ value: 1 });
      expect(tuple?.pendingWrites).toEqual([["task", "value", 2]]);
    });

    it("saves the values as they are when they are given", async () => {
      const { saver, config } = withThread();
      const checkpoint = toCheckpoint({ list: [1] });
      const put = saver.put(config, checkpoint, METADATA, checkpoint.channel_versions);
      (checkpoint.channel_values["list"] as number[]).push(2);
      await put;
      expect((await saver.getTuple(config))?.checkpoint.channel_values).toEqual({ list: [1] });
    });

    it("keeps a task's first results and its last interrupt", async () => {
      const { saver, config } = withThread();
      const checkpoint = toCheckpoint({});
      const address = await saver.put(config, checkpoint, METADATA, {});
      await Promise.all([
        saver.putWrites(address, [["value", "first"]], "task"),
        saver.putWrites(address, [["value", "second"]], "task"),
        saver.putWrites(address, [["__interrupt__", "first"]], "task"),
        saver.putWrites(address, [["__interrupt__", "second"]], "task"),
      ]);
      await saver.putWrites(address, [["value", "third"]], "task");
      await saver.putWrites(address, [["__interrupt__", "third"]], "task");
      expect((await saver.getTuple(config))?.pendingWrites).toEqual([
        ["task", "__interrupt__", "third"],
        ["task", "value", "first"],
      ]);
    });

    it("returns a superstep's writes by task path, then task, then index", async () => {
      const { saver, config } = withThread();
      const address = await saver.put(config, toCheckpoint({}), METADATA, {});
      await saver.putWrites(address, [["value", 3]], "a", "~__pregel_pull, b");
      await saver.putWrites(address, [["value", 2]], "b", "~__pregel_pull, a");
      await saver.putWrites(
        address,
        [
          ["value", 0],
          ["value", 1],
        ],
        "c",
      );
      const writes = (await saver.getTuple(config))?.pendingWrites ?? [];
      expect(writes.map(([, , value]) => value)).toEqual([0, 1, 2, 3]);
    });
  });

  describe("values PostgreSQL cannot hold as text", () => {
    it("keeps NUL characters, lone surrogates and bytes in the state", async () => {
      const { saver, config } = withThread();
      const values = {
        text: "a\u0000b\ud800c",
        quoted: '\\u0000 "',
        bytes: new Uint8Array([0, 255]),
      };
      const checkpoint = toCheckpoint(values);
      await saver.put(config, checkpoint, METADATA, checkpoint.channel_versions);
      expect((await saver.getTuple(config))?.checkpoint.channel_values).toEqual(values);
    });

    it("leaves NUL characters out of metadata, and nothing that only looks like one", async () => {
      const { saver, config } = withThread();
      const metadata = { ...METADATA, note: "a\u0000b\ud800c 😀 \\u0000 \\\\" };
      await saver.put(config, toCheckpoint({}), metadata, {});
      expect((await saver.getTuple(config))?.metadata).toMatchObject({
        note: "ab\ufffdc 😀 \\u0000 \\\\",
      });
    });
  });

  describe("failure", () => {
    it("fails the run whose row is refused, with a clear error, and no other", async () => {
      const good = Array.from({ length: 5 }, () => withThread({ resolve: "queued" }));
      const bad = withThread({ resolve: "queued" });
      const saves = [...good.slice(0, 3), bad, ...good.slice(3)].map(async ({ saver, config }) => {
        const checkpoint = toCheckpoint({ value: 1 });
        const address = await saver.put(config, checkpoint, METADATA, checkpoint.channel_versions);
        const channel = saver === bad.saver ? "not\u0000text" : "value";
        await saver.putWrites(address, [[channel, 2]], "task");
      });
      await Promise.all(saves);
      for (const { saver, config } of good) {
        await saver.settled();
        expect((await saver.getTuple(config))?.pendingWrites).toEqual([["task", "value", 2]]);
      }
      await expect(bad.saver.settled()).rejects.toThrow(
        `The state of thread ${bad.threadId} cannot be saved: invalid byte sequence`,
      );
      // What came before the refused row is there, what comes after it is not taken.
      expect(await countRows(bad.threadId)).toEqual({ checkpoints: 1, blobs: 1, writes: 0 });
      await expect(bad.saver.put(bad.config, toCheckpoint({}), METADATA, {})).rejects.toThrow(
        "cannot be saved",
      );
      expect(await countRows(bad.threadId)).toEqual({ checkpoints: 1, blobs: 1, writes: 0 });
    });

    it("fails the run whose checkpoint cannot be serialised, and no other", async () => {
      const bad = withThread();
      const good = withThread();
      const unserialisable = {
        ...toCheckpoint({}),
        versions_seen: { node: { value: 1n as unknown as number } },
      };
      const [one, two] = await Promise.allSettled([
        bad.saver.put(bad.config, unserialisable, METADATA, {}),
        good.saver.put(good.config, toCheckpoint({}), METADATA, {}),
      ]);
      expect(one).toMatchObject({
        status: "rejected",
        reason: { message: expect.stringContaining("BigInt") },
      });
      expect(two).toMatchObject({ status: "fulfilled" });
    });

    it("writes nothing for an attempt that no longer holds its run", async () => {
      const held = await withLease();
      const lost = await withLease();
      await database.query("UPDATE runs SET attempt = 2 WHERE run_id = $1", [lost.runId]);
      const save = async ({ saver, config }: typeof held): Promise<void> => {
        const checkpoint = toCheckpoint({ value: 1 });
        const address = await saver.put(config, checkpoint, METADATA, checkpoint.channel_versions);
        await saver.putWrites(address, [["value", 2]], "task");
      };
      const [one, two] = await Promise.allSettled([save(held), save(lost)]);
      expect(one).toMatchObject({ status: "fulfilled" });
      expect(two).toMatchObject({ status: "rejected", reason: expect.any(ServerError) });
      expect(await countRows(held.threadId)).toEqual({ checkpoints: 1, blobs: 1, writes: 1 });
      expect(await countRows(lost.threadId)).toEqual({ checkpoints: 0, blobs: 0, writes: 0 });
    });

    async function withLease() {
      const runId = randomUUID();
      const run = withThread({ guard: { runId, attempt: 1 } });
      await database.query(
        `INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, kwargs, multitask_strategy, attempt)
        VALUES ($1, $2, $3, 'agent', 'running', '{}', 'enqueue', 1)`,
        [runId, run.threadId, randomUUID()],
      );
      return { ...run, runId };
    }
  });

  describe("a run's view", () => {
    it("reports the root graph's checkpoints and knows the final state", async () => {
      const reported: unknown[] = [];
      const { saver, config } = withThread({
        onCheckpoint: (_, checkpoint) => reported.push(checkpoint.id),
      });
      const graph = nested(saver);
      await graph.invoke({ log: [] }, config);
      const history: string[] = [];
      for await (const { config: at } of graph.getStateHistory(config))
        history.push(at.configurable?.["checkpoint_id"]);
      expect(reported).toEqual(history.toReversed());
      expect(saver.last?.checkpoint.channel_values["log"]).toEqual(["inner", "outer"]);
      expect(saver.last?.pendingWrites).toEqual([]);
    });

    it("knows the interrupts a run stopped at, also when it made no checkpoint of its own", async () => {
      const first = withThread();
      await approval(first.saver).invoke({ log: [] }, first.config);
      expect(interruptsOf(first.saver.last)).toEqual(["first?"]);
      const second = checkpoints.forRun({ threadId: first.threadId });
      await approval(second).invoke(new Command({ resume: "yes" }), first.config);
      expect(interruptsOf(second.last)).toEqual(["second?"]);
      const stored = await checkpoints.forRun().getTuple(first.config);
      expect(interruptsOf(stored)).toEqual(["second?"]);
    });
  });

  describe("graphs", () => {
    it("resumes at interrupts, also inside a subgraph", async () => {
      const { saver, config } = withThread();
      await nestedApproval(saver).invoke({ log: [] }, config);
      const state = await nestedApproval(checkpoints.forRun()).getState(config, {
        subgraphs: true,
      });
      expect(state.next).toEqual(["outer"]);
      expect(state.tasks[0]?.interrupts[0]?.value).toBe("first?");
      const resume = (answer: string) =>
        nestedApproval(checkpoints.forRun()).invoke(new Command({ resume: answer }), config);
      await resume("one");
      expect(await resume("two")).toMatchObject({ log: ["one two"] });
    });

    it("branches from an older checkpoint without touching the branch before it", async () => {
      const { saver, config } = withThread();
      const graph = echo(saver);
      await graph.invoke({ who: "first", log: [] }, config);
      const history = await collect(graph.getStateHistory(config));
      const beforeA = history.find(({ next }) => next[0] === "a")!;
      const branch = await graph.updateState(beforeA.config, { who: "second" });
      expect(await graph.invoke(null, branch)).toEqual({
        who: "second",
        log: ["a second", "b second"],
      });
      expect((await graph.getState(config)).values).toEqual({
        who: "second",
        log: ["a second", "b second"],
      });
      expect((await graph.getState(history[0]!.config)).values).toEqual({
        who: "first",
        log: ["a first", "b first"],
      });
    });

    it.each(["sync", "async", "exit"] as const)(
      "keeps the state with durability %s",
      async (durability) => {
        for (const resolve of ["committed", "queued"] as const) {
          const { saver, config } = withThread({ resolve });
          await chain(saver).invoke({ messages: ["hello"] }, { ...config, durability });
          await saver.settled();
          const { values, next } = await chain(checkpoints.forRun()).getState(config);
          expect(values.messages).toHaveLength(6);
          expect(next).toEqual([]);
        }
      },
    );

    it("rebuilds channels that store only what is written, in one query", async () => {
      const { saver, config, threadId } = withThread();
      const say = async (text: string, checkpointer: BaseCheckpointSaver): Promise<void> => {
        await deltas(checkpointer).invoke({ messages: [new HumanMessage(text)] }, config);
      };
      const contents = async (): Promise<unknown[]> => {
        const state = await deltas(checkpoints.forRun()).getState(config);
        return state.values.messages.map((message: BaseMessage) => message.content);
      };
      await say("one", saver);
      await say("two", checkpoints.forRun());
      statements = [];
      expect(await contents()).toEqual(["one", "echo one", "two", "echo two"]);
      expect(statements).toHaveLength(2);
      const [newest] = await collect(saver.list(config, { limit: 1 }));
      await say("three", checkpoints.forRun());
      await checkpoints.deleteAfter(threadId, newest!.checkpoint.id);
      expect(await contents()).toEqual(["one", "echo one", "two", "echo two"]);
      await say("four", checkpoints.forRun());
      expect(await contents()).toEqual(["one", "echo one", "two", "echo two", "four", "echo four"]);
    });

    it("pages through a long history", async () => {
      const { saver, config } = withThread({ resolve: "queued" });
      const ids: string[] = [];
      let at: { configurable?: Record<string, unknown> } = config;
      for (let step = 0; step < 120; step += 1) {
        const checkpoint = toCheckpoint({ step });
        ids.push(checkpoint.id);
        at = await saver.put(at, checkpoint, { ...METADATA, step }, checkpoint.channel_versions);
      }
      const all = await collect(saver.list(config));
      expect(all.map((tuple) => tuple.checkpoint.id)).toEqual(ids.toReversed());
      expect(all.map((tuple) => tuple.checkpoint.channel_values["step"])).toEqual(
        ids.map((_, index) => 119 - index),
      );
      expect(await collect(saver.list(config, { limit: 60 }))).toHaveLength(60);
      const before = { configurable: { checkpoint_id: ids[70]! } };
      expect(await collect(saver.list(config, { before, limit: 60 }))).toHaveLength(60);
    });
  });

  describe("with LangGraph's PostgresSaver", () => {
    it("finds its tables in place", async () => {
      await new PostgresSaver(database.pool).setup();
    });

    it("shares threads in both directions", async () => {
      const theirs = new PostgresSaver(database.pool);
      for (const [first, second] of [
        [checkpoints.forRun(), theirs],
        [theirs, checkpoints.forRun()],
      ] as const) {
        const { config } = withThread();
        await nestedApproval(first).invoke({ log: [] }, config);
        const [ownHistory, otherHistory] = await Promise.all(
          [first, second].map(async (saver) => collect(saver.list(config))),
        );
        expect(otherHistory).toEqual(ownHistory);
        await nestedApproval(second).invoke(new Command({ resume: "one" }), config);
        expect(
          await nestedApproval(first).invoke(new Command({ resume: "two" }), config),
        ).toMatchObject({
          log: ["one two"],
        });
        await nestedApproval(second).invoke({ log: ["again"] }, config);
        const state = await nestedApproval(first).getState(config);
        expect(state.values).toEqual({ log: ["one two", "again"] });
        expect(state.tasks[0]?.interrupts).toHaveLength(1);
      }
    });
  });

  describe("threads", () => {
    it("copies a thread, which then goes its own way", async () => {
      const { saver, config, threadId } = withThread();
      await nestedApproval(saver).invoke({ log: [] }, config);
      const copyId = randomUUID();
      await createThreadRepository(database).create(threadId, {});
      await createThreadStateRepository(database).copy(threadId, copyId, {});
      expect(await countRows(copyId)).toEqual(await countRows(threadId));
      const copy = { configurable: { thread_id: copyId } };
      for (const answer of ["one", "two"]) {
        await nestedApproval(checkpoints.forRun()).invoke(new Command({ resume: answer }), copy);
      }
      expect((await nestedApproval(saver).getState(copy)).values).toEqual({ log: ["one two"] });
      expect((await nestedApproval(saver).getState(config)).next).toEqual(["outer"]);
    });

    it("deletes a thread with all of its rows, also those that are on their way", async () => {
      const { saver, config, threadId } = withThread({ resolve: "queued" });
      await nested(saver).invoke({ log: [] }, config);
      await checkpoints.deleteThread(threadId);
      expect(await countRows(threadId)).toEqual({ checkpoints: 0, blobs: 0, writes: 0 });
    });

    it("takes a thread back to an earlier run, leaving no row of the later one", async () => {
      const { saver, config, threadId } = withThread();
      await nested(saver).invoke({ log: [] }, config);
      const before = await collect(saver.list(config));
      const rows = await countRows(threadId);
      await nested(checkpoints.forRun()).invoke({ log: ["again"] }, config);
      expect((await nested(saver).getState(config)).values.log).toHaveLength(5);
      await checkpoints.deleteAfter(threadId, before[0]!.checkpoint.id);
      expect(await collect(saver.list(config))).toEqual(before);
      expect(await countRows(threadId)).toEqual(rows);
      await checkpoints.deleteAfter(threadId, undefined);
      expect(await countRows(threadId)).toEqual({ checkpoints: 0, blobs: 0, writes: 0 });
    });

    it("takes a thread back to an interrupt, which then waits again", async () => {
      const { saver, config, threadId } = withThread();
      await nestedApproval(saver).invoke({ log: [] }, config);
      const before = await collect(saver.list(config));
      const root = before.find((tuple) => tuple.config.configurable?.["checkpoint_ns"] === "")!;
      const newest = before[0]!.checkpoint.id;
      for (const answer of ["one", "two"]) {
        await nestedApproval(checkpoints.forRun()).invoke(new Command({ resume: answer }), config);
      }
      await checkpoints.deleteAfter(threadId, newest);
      const state = await nestedApproval(saver).getState(config);
      expect(state.config.configurable?.["checkpoint_id"]).toBe(root.checkpoint.id);
      expect(state.next).toEqual(["outer"]);
      for (const answer of ["three", "four"]) {
        await nestedApproval(checkpoints.forRun()).invoke(new Command({ resume: answer }), config);
      }
      expect((await nestedApproval(saver).getState(config)).values).toEqual({
        log: ["three four"],
      });
    });
  });
});

const NAMES = ["one", "two", "three", "four", "five"] as const;
const METADATA = { source: "loop", step: 0, parents: {} } as const;
const Log = Annotation.Root({
  log: Annotation<string[]>({ reducer: (left, right) => left.concat(right), default: () => [] }),
});

/** Five nodes, each of which adds a message. */
function chain(checkpointer: BaseCheckpointSaver) {
  const say = (name: string) => () => ({ messages: [new AIMessage(`I am ${name}.`)] });
  return new StateGraph(MessagesAnnotation)
    .addNode("one", say("one"))
    .addNode("two", say("two"))
    .addNode("three", say("three"))
    .addNode("four", say("four"))
    .addNode("five", say("five"))
    .addEdge(START, "one")
    .addEdge("one", "two")
    .addEdge("two", "three")
    .addEdge("three", "four")
    .addEdge("four", "five")
    .addEdge("five", END)
    .compile({ checkpointer });
}

/** A graph whose node is a graph. */
function nested(checkpointer: BaseCheckpointSaver) {
  const inner = new StateGraph(Log)
    .addNode("inner", () => ({ log: ["inner"] }))
    .addEdge(START, "inner")
    .compile();
  return new StateGraph(Log)
    .addNode("middle", async (_, config) => ({
      log: (await inner.invoke({ log: [] }, config)).log,
    }))
    .addNode("outer", () => ({ log: ["outer"] }))
    .addEdge(START, "middle")
    .addEdge("middle", "outer")
    .compile({ checkpointer });
}

/** Asks twice in one node. */
function approval(checkpointer?: BaseCheckpointSaver) {
  return new StateGraph(Log)
    .addNode("ask", () => {
      const first = interrupt<string, string>("first?");
      const second = interrupt<string, string>("second?");
      return { log: [`${first} ${second}`] };
    })
    .addEdge(START, "ask")
    .compile(checkpointer && { checkpointer });
}

/** The same, inside a subgraph. */
function nestedApproval(checkpointer: BaseCheckpointSaver) {
  const inner = approval();
  return new StateGraph(Log)
    .addNode("outer", async (_, config) => ({ log: (await inner.invoke({ log: [] }, config)).log }))
    .addEdge(START, "outer")
    .compile({ checkpointer });
}

/** Its messages are a channel that stores only what is written to it. */
function deltas(checkpointer: BaseCheckpointSaver) {
  return new StateGraph(new StateSchema({ messages: MessagesDeltaValue }))
    .addNode("echo", ({ messages }) => ({
      messages: [new AIMessage(`echo ${messages.at(-1)?.text}`)],
    }))
    .addEdge(START, "echo")
    .compile({ checkpointer });
}

function echo(checkpointer: BaseCheckpointSaver) {
  const State = Annotation.Root({ who: Annotation<string>, ...Log.spec });
  return new StateGraph(State)
    .addNode("a", ({ who }) => ({ log: [`a ${who}`] }))
    .addNode("b", ({ who }) => ({ log: [`b ${who}`] }))
    .addEdge(START, "a")
    .addEdge("a", "b")
    .compile({ checkpointer });
}

function toCheckpoint(values: Record<string, unknown>): Checkpoint {
  return {
    v: 4,
    id: uuid6(0),
    ts: new Date().toISOString(),
    channel_values: values,
    channel_versions: Object.fromEntries(
      Object.keys(values).map((channel) => [channel, 1 + Math.random()]),
    ),
    versions_seen: {},
  };
}

function interruptsOf(tuple: CheckpointTuple | undefined): unknown[] {
  return (tuple?.pendingWrites ?? [])
    .filter(([, channel]) => channel === "__interrupt__")
    .flatMap(([, , value]) => value as { value: unknown }[])
    .map(({ value }) => value);
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const all: T[] = [];
  for await (const item of items) all.push(item);
  return all;
}

function isRead(statement: string): boolean {
  return statement.startsWith("SELECT");
}

function isWrite(statement: string): boolean {
  return statement.includes("INSERT INTO");
}

/** The parts of a database that a wrapper can take over as they are. */
function unwrap(database: Database): Database {
  return {
    kind: database.kind,
    location: database.location,
    listens: database.listens,
    pool: database.pool,
    query: (text, params) => database.query(text, params),
    transaction: (work) => database.transaction(work),
    listen: (channel, onNotify, onReconnect) => database.listen(channel, onNotify, onReconnect),
    close: () => database.close(),
  };
}
