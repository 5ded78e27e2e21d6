import { randomUUID } from "node:crypto";
import { expect, it } from "vitest";
import { TRANSITIONS, isTerminal } from "../../src/engine/run-status.ts";
import { RunStatus } from "../../src/protocol/runs.ts";
import type { Database } from "../../src/storage/database.ts";
import { createRunQueue, type Lease } from "../../src/storage/run-queue.ts";
import { encodeResult, type EncodedResult, type RunResult } from "../../src/storage/run-result.ts";
import { createRunRepository } from "../../src/storage/runs.ts";
import { describeDatabases } from "../support/databases.ts";

const ENDS = ["success", "error", "timeout", "interrupted"] as const;

/** A run in a status, on a thread of its own that agrees with it. */
async function putRun(
  database: Database,
  status: RunStatus,
): Promise<Lease & { thread_id: string }> {
  const lease = {
    run_id: randomUUID(),
    thread_id: randomUUID(),
    worker_id: randomUUID(),
    attempt: 1,
  };
  const active = isTerminal(status) ? 0 : 1;
  await database.query(`INSERT INTO threads (thread_id, status, active_runs) VALUES ($1, $2, $3)`, [
    lease.thread_id,
    active ? "busy" : "idle",
    active,
  ]);
  await database.query(
    `INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, kwargs, multitask_strategy, attempt,
       worker_id, lease_expires_at, ended_at)
     VALUES ($1, $2, $3, 'g', $4, '{}', 'enqueue', $5, $6, now() - interval '1 second',
       CASE WHEN $7 THEN now() END)`,
    [
      lease.run_id,
      lease.thread_id,
      randomUUID(),
      status,
      status === "pending" ? 0 : 1,
      status === "pending" ? null : lease.worker_id,
      isTerminal(status),
    ],
  );
  return lease;
}

describeDatabases("the statements that change a run's status", (databases) => {
  it("make the transitions of the table, all of them and no others", async () => {
    const database = await databases.open();
    const runs = createRunRepository(database);
    const queue = createRunQueue(database);
    const result = (status: RunResult["status"]): EncodedResult =>
      encodeResult({
        status,
        interrupted: false,
        output: {},
        error: status === "error" ? { error: "Error", message: "x" } : undefined,
        values: {},
        interrupts: {},
      });
    const statements: Record<string, (lease: Lease) => Promise<unknown>> = {
      claim: () => queue.claim({ workerId: randomUUID(), leaseMs: 1_000, limit: 10 }),
      recover: () => queue.recover({ held: [], everything: false }),
      "recover everything": () => queue.recover({ held: [], everything: true }),
      release: (lease) => queue.release(lease),
      interrupt: ({ run_id }) => queue.cancel(run_id, "interrupt", undefined),
      rollback: ({ run_id }) => queue.cancel(run_id, "rollback", "user"),
      renew: ({ run_id, worker_id }) => queue.renew(worker_id, [run_id], 1_000),
      ...Object.fromEntries(
        ENDS.map((status) => [
          `finish as ${status}`,
          (lease: Lease) => queue.finish(lease, result(status), { logged: true }),
        ]),
      ),
    };
    const seen = new Map<RunStatus, Set<RunStatus>>();
    for (const from of RunStatus.options) {
      seen.set(from, new Set());
      for (const [name, change] of Object.entries(statements)) {
        const lease = await putRun(database, from);
        await change(lease);
        const left = await runs.get(lease.run_id, undefined);
        // What is rolled back before it starts ends like the others, and leaves no row.
        const isGone = name === "rollback" && from === "pending";
        expect({ name, from, isGone: left === undefined }).toEqual({ name, from, isGone });
        const to = left?.status ?? "interrupted";
        if (to !== from) {
          expect({ name, from, to }).toEqual({
            name,
            from,
            to: expect.toBeOneOf([...TRANSITIONS[from]]) as RunStatus,
          });
          seen.get(from)!.add(to);
        }
        const { rows } = await database.query<{ status: string; active_runs: number }>(
          "SELECT status, active_runs FROM threads WHERE thread_id = $1",
          [lease.thread_id],
        );
        expect({ name, from, to, ...rows[0] }).toMatchObject(
          isTerminal(to)
            ? { active_runs: 0, status: expect.not.stringMatching("busy") as string }
            : { active_runs: 1, status: "busy" },
        );
        await database.query("DELETE FROM runs");
      }
    }
    const made = Object.fromEntries([...seen].map(([from, to]) => [from, [...to].toSorted()]));
    const allowed = Object.fromEntries(
      Object.entries(TRANSITIONS).map(([from, to]) => [from, [...to].toSorted()]),
    );
    expect(made).toEqual(allowed);
  });

  it("leave a run alone whose lease is another's", async () => {
    const database = await databases.open();
    const runs = createRunRepository(database);
    const queue = createRunQueue(database);
    const lease = await putRun(database, "running");
    const success = encodeResult({
      status: "success",
      interrupted: false,
      output: {},
      error: undefined,
      values: {},
      interrupts: {},
    });
    for (const wrong of [
      { ...lease, worker_id: randomUUID() },
      { ...lease, attempt: 2 },
      { ...lease, run_id: randomUUID() },
    ]) {
      expect(await queue.finish(wrong, success, { logged: true })).toBe("lost");
      expect(await queue.release(wrong)).toBe(false);
    }
    expect(await queue.renew(randomUUID(), [lease.run_id], 1_000)).toEqual([]);
    expect(await runs.delete(lease.run_id)).toBe(false);
    expect((await runs.get(lease.run_id, undefined))?.status).toBe("running");
    expect(await queue.finish(lease, success, { logged: true })).toBe("finished");
    expect(await queue.finish(lease, success, { logged: true })).toBe("lost");
    expect(await runs.delete(lease.run_id)).toBe(true);
  });

  it("end and go in one step when they are rolled back", async () => {
    const database = await databases.open();
    const runs = createRunRepository(database);
    const queue = createRunQueue(database);
    const lease = await putRun(database, "running");
    const stopped = encodeResult({
      status: "interrupted",
      interrupted: false,
      output: undefined,
      error: undefined,
      values: undefined,
      interrupts: undefined,
      resting: "unchanged",
    });
    const wrong = { ...lease, attempt: 2 };
    const remove = { logged: true, remove: true };
    expect(await queue.finish(wrong, stopped, remove)).toBe("lost");
    expect((await runs.get(lease.run_id, undefined))?.status).toBe("running");
    expect(await queue.finish(lease, stopped, remove)).toBe("finished");
    expect(await runs.get(lease.run_id, undefined)).toBeUndefined();

    const running = await putRun(database, "running");
    expect(await queue.cancel(running.run_id, "rollback", undefined)).toBe("asked");
    expect(await runs.get(running.run_id, undefined)).toBeDefined();
    const pending = await putRun(database, "pending");
    expect(await queue.cancel(pending.run_id, "rollback", undefined)).toBe("ended");
    expect(await runs.get(pending.run_id, undefined)).toBeUndefined();
  });

  it("let a thread have one running run", async () => {
    const database = await databases.open();
    const lease = await putRun(database, "running");
    await expect(
      database.query(
        `INSERT INTO runs (run_id, thread_id, assistant_id, graph_id, status, kwargs, multitask_strategy)
         VALUES ($1, $2, $3, 'g', 'running', '{}', 'enqueue')`,
        [randomUUID(), lease.thread_id, randomUUID()],
      ),
    ).rejects.toMatchObject({ code: "23505" });
  });
});
