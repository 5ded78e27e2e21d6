import { describe, expect, it } from "vitest";
import { runLab } from "../../bench/cluster/lab.ts";
import { checkOrder, checkStored, type RunView } from "../../bench/cluster/views.ts";
import { createTestDatabases } from "../support/databases.ts";

describe("a cluster under faults", () => {
  const databases = createTestDatabases("postgres");

  it("keeps what every client saw in line with the database", async () => {
    const { databaseUrl } = await databases.configure();
    const result = await runLab({
      durationMs: 7_000,
      minimumRuns: 12,
      minimumFaults: 3,
      conversations: 3,
      pauseMs: 200,
      roles: ["all", "all"],
      faults: ["kill -9", "dropped connections", "paused process"],
      maxFaults: 3,
      gapMs: 1_000,
      seed: 7,
      leaseMs: 3_000,
      databaseUrl,
      traced: true,
    });
    expect(result.violations).toEqual([]);
    expect(result.untraced).toEqual([]);
    expect(result.faults.map((fault) => fault.what).join()).not.toContain("failed");
    expect(result.faults).toHaveLength(3);
    expect(result.runs.length).toBeGreaterThanOrEqual(12);
    expect(result.exits).toEqual([0, 0]);
  }, 240_000);
});

describe("the lab's checks", () => {
  const seen = (ids: number[]): RunView => ({
    turn: "1",
    kind: "talk",
    thread_id: "t",
    run_id: "r",
    follows: true,
    events: ids.map((id) => ({ id, event: "values", data: "{}" })),
    reconnects: 0,
    answer: undefined,
    elapsedMs: 0,
  });

  it("see an event that is missing, comes twice, or comes too late", () => {
    expect(checkOrder(seen([0, 1, 2, 10_000_000, 10_000_001]))).toEqual([]);
    expect(checkOrder(seen([0, 1, 3]))).toEqual(["r (1): event 3 came after 1: some are missing"]);
    expect(checkOrder(seen([0, 1, 1]))).toEqual(["r (1): event 1 came after 1"]);
    expect(checkOrder(seen([0, 10_000_000, 1]))).toHaveLength(1);
    expect(checkOrder(seen([1, 2]))).toEqual(["r (1): event 1 came after -1: some are missing"]);
  });

  it("see an event that was stored and not seen, and one that is not the same", () => {
    const stored = [0, 1].map((id) => ({ run_id: "r", id, event: "values", data: '{ "a": 1 }' }));
    const own = seen([0]);
    own.events[0]!.data = '{"a":1}';
    expect(checkStored(own, stored)).toEqual([
      "r (1): event 1 (values) is stored and was not seen",
    ]);
    own.events[0]!.data = '{"a":2}';
    expect(checkStored(own, stored)).toHaveLength(2);
  });
});
