import { expect, it } from "vitest";
import { fill, fillQueue } from "../../bench/scale/fill.ts";
import { createRunQueue } from "../../src/storage/run-queue.ts";
import type { Database } from "../../src/storage/database.ts";
import { createTestDatabases } from "../support/databases.ts";

const databases = createTestDatabases("postgres");

it("a claim reads a few rows of a long queue, also if its head waits behind a running run", async () => {
  const database = await databases.open();
  await fill(database, { threads: 3_000, checkpoints: 1 });
  await fillQueue(database, { waiting: 2_900, crowd: 100 });
  const plans: string[] = [];
  const explaining: Pick<Database, "query" | "transaction"> = {
    transaction: () => Promise.reject(new Error("without limits there is none")),
    async query(text, params) {
      const { rows } = await database.query<{ "QUERY PLAN": string }>(
        `EXPLAIN (ANALYZE, TIMING OFF) ${text}`,
        params,
      );
      plans.push(rows.map((row) => row["QUERY PLAN"]).join("\n"));
      return { rows: [], rowCount: 0 };
    },
  };
  const claim = { workerId: "00000000-0000-0000-0000-000000000001", leaseMs: 10_000, limit: 10 };
  await createRunQueue(explaining).claim(claim);
  expect(plans).toHaveLength(1);
  expect(plans[0]).not.toMatch(/Seq Scan on (?:runs|threads)/u);
  const read = [...plans[0]!.matchAll(/actual rows=([\d.]+) loops=(\d+)/gu)].map(
    ([, rows, loops]) => Number(rows) * Number(loops),
  );
  expect(read.length).toBeGreaterThan(5);
  expect(Math.max(...read)).toBeLessThan(100);
});
