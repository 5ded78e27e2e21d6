import { randomUUID } from "node:crypto";
import { Annotation, StateGraph } from "@langchain/langgraph";
import { beforeAll, expect, it } from "vitest";
import { openCheckpoints, type Checkpoints } from "../../src/storage/checkpoints.ts";
import type { Database } from "../../src/storage/database.ts";
import { createRunQueue } from "../../src/storage/run-queue.ts";
import type { NewRun } from "../../src/storage/run-creation.ts";
import { createRunRepository } from "../../src/storage/runs.ts";
import {
  createThreadStateRepository,
  type StateWriter,
  type ThreadStateRepository,
} from "../../src/storage/thread-state.ts";
import { createThreadRepository } from "../../src/storage/threads.ts";
import { describeDatabases } from "../support/databases.ts";

const LEASE_MS = 30_000;
const SNAPSHOT = { values: { text: "by hand" }, interrupts: {}, interrupted: false };

describeDatabases("what clients write by hand, or send again", (databases) => {
  let database: Database;
  let states: ThreadStateRepository;
  let checkpoints: Checkpoints;
  beforeAll(async () => {
    database = await databases.open();
    states = createThreadStateRepository(database);
    checkpoints = openCheckpoints(database);
    databases.defer(() => checkpoints.close());
  });

  const newThread = async (): Promise<string> => {
    const id = randomUUID();
    await createThreadRepository(database).create(id, {});
    return id;
  };
  const hold = async (threadId: string, leaseMs = LEASE_MS): Promise<StateWriter> => {
    const held = await states.hold(threadId, leaseMs);
    if (typeof held !== "object") throw new Error(`not held: ${held}`);
    return held;
  };
  const createRun = (threadId: string, more: Partial<NewRun> = {}) =>
    createRunRepository(database).create({
      run_id: randomUUID(),
      thread_id: threadId,
      assistant_id: randomUUID(),
      graph_id: "graph",
      metadata: {},
      kwargs: {
        config: {},
        stream_mode: ["values"],
        subgraphs: false,
        resumable: false,
        on_disconnect: "continue",
      },
      thread_config: { configurable: {} },
      settings: {},
      multitask_strategy: "reject",
      user_id: undefined,
      temporary: false,
      origin: { trigger: "api", assistant_name: "graph", assistant_version: 1 },
      afterSeconds: 0,
      filter: undefined,
      logged: "on_demand",
      claim: { workerId: randomUUID(), leaseMs: LEASE_MS },
      ...more,
    } satisfies NewRun);
  const claimed = async (): Promise<string[]> => {
    const queue = createRunQueue(database);
    const runs = await queue.claim({ workerId: randomUUID(), leaseMs: LEASE_MS, limit: 100 });
    return runs.map((run) => run.thread_id);
  };
  const write = (writer: StateWriter): Promise<unknown> =>
    new StateGraph(Annotation.Root({ text: Annotation<string>() }))
      .addNode("say", async () => ({ text: "said" }))
      .addEdge("__start__", "say")
      .compile({ checkpointer: checkpoints.forRun({ guard: writer }) })
      .updateState({ configurable: { thread_id: writer.threadId } }, { text: "by hand" }, "say");
  const countOf = async (threadId: string): Promise<number> => {
    const { rows } = await database.query<{ count: number }>(
      "SELECT count(*)::integer AS count FROM checkpoints WHERE thread_id = $1",
      [threadId],
    );
    return rows[0]!.count;
  };

  it("is one writer's at a time, and nobody's that is not there", async () => {
    const threadId = await newThread();
    expect(await states.hold(randomUUID(), LEASE_MS)).toBeUndefined();
    const writer = await hold(threadId);
    expect(await states.hold(threadId, LEASE_MS)).toBe("held");
    await write(writer);
    expect(await countOf(threadId)).toBe(1);
    expect(await states.release(writer, SNAPSHOT)).toBe(false);
    expect(await states.release(writer, SNAPSHOT)).toBeUndefined();
    await states.release(await hold(threadId), undefined);
    const thread = await createThreadRepository(database).get(threadId, undefined);
    expect(thread).toMatchObject({ status: "idle", values: { text: "by hand" } });
  });

  it("makes a run wait that is created meanwhile, and is not taken from one that is active", async () => {
    const threadId = await newThread();
    const writer = await hold(threadId);
    expect(await createRun(threadId)).toMatchObject({
      kind: "created",
      run: { status: "pending" },
    });
    expect(await claimed()).not.toContain(threadId);
    await write(writer);
    expect(await states.release(writer, SNAPSHOT)).toBe(true);
    expect(await states.hold(threadId, LEASE_MS)).toBe("busy");
    expect(await claimed()).toContain(threadId);
    expect(await states.hold(threadId, LEASE_MS)).toBe("busy");
    const thread = await createThreadRepository(database).get(threadId, undefined);
    expect(thread).toMatchObject({ status: "busy", values: { text: "by hand" } });
  });

  it("is free again when its writer has gone silent, who then writes nothing more", async () => {
    const threadId = await newThread();
    const silent = await hold(threadId, 1);
    await new Promise((resolve) => setTimeout(resolve, 10));
    await expect(write(silent)).rejects.toMatchObject({ code: "conflict" });
    expect(await states.patchMetadata(silent, { a: 1 })).toBe(false);
    expect(await states.prune(silent)).toBe(false);
    expect(await states.release(silent, SNAPSHOT)).toBeUndefined();
    expect(await countOf(threadId)).toBe(0);
    // It may have written before: a run must not take the thread for an empty one.
    expect(await createRun(threadId)).toMatchObject({
      kind: "created",
      run: { status: "running" },
      emptyThread: false,
    });
    expect(await createRun(await newThread())).toMatchObject({ emptyThread: true });
  });

  it("leaves nothing behind when it is deleted under its writer's hands", async () => {
    const threadId = await newThread();
    const writer = await hold(threadId);
    await createThreadRepository(database).delete(threadId, undefined);
    await expect(write(writer)).rejects.toMatchObject({ code: "conflict" });
    expect(await states.release(writer, SNAPSHOT)).toBeUndefined();
    expect(await countOf(threadId)).toBe(0);
  });

  it("keeps a run without a thread as long as its idempotency key, and no longer", async () => {
    const runs = createRunRepository(database);
    const make = async (key?: string): Promise<string> => {
      const made = await createRun(randomUUID(), {
        temporary: true,
        ...(key !== undefined && { idempotency: { key, hash: "hash" } }),
      });
      if (made.kind !== "created") throw new Error(made.kind);
      return made.run.run_id;
    };
    const age = (runId: string, hours: number) =>
      database.query(
        `UPDATE runs SET status = 'success', created_at = now() - $2::float8 * interval '1 hour',
           ended_at = now() - $2::float8 * interval '1 hour', lease_expires_at = NULL WHERE run_id = $1`,
        [runId, hours],
      );
    const [plain, fresh, old] = [await make(), await make("fresh"), await make("old")];
    for (const runId of [plain, fresh]) await age(runId, 23);
    await age(old, 25);
    expect(await runs.findByKey(undefined, "fresh")).toMatchObject({ run_id: fresh });
    expect(await runs.findByKey("somebody", "fresh")).toBeUndefined();
    expect(
      await createRun(randomUUID(), { idempotency: { key: "fresh", hash: "x" }, temporary: true }),
    ).toEqual({ kind: "key_taken" });
    await runs.sweepTemporary(60_000, 1_000);
    const left = async (runId: string) => (await runs.get(runId, undefined))?.run_id;
    expect(await Promise.all([left(plain), left(fresh), left(old)])).toEqual([
      undefined,
      fresh,
      undefined,
    ]);
    await age(fresh, 25);
    expect(await runs.findByKey(undefined, "fresh")).toBeUndefined();
    expect(await make("fresh")).not.toBe(fresh);
  });
});
