import { writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { openCheckpoints } from "../../src/storage/checkpoints.ts";
import type { Database, Queryable } from "../../src/storage/database.ts";
import { createRunQueue } from "../../src/storage/run-queue.ts";
import { createThreadRepository } from "../../src/storage/threads.ts";
import { ThreadSearch } from "../../src/protocol/threads.ts";

/** Writes down how PostgreSQL answers the statements that meet many rows, as they are sent. */
export async function writePlans(database: Database): Promise<void> {
  const [thread] = (
    await database.query<{ thread_id: string }>("SELECT thread_id FROM threads LIMIT 1")
  ).rows;
  const threadId = thread!.thread_id;
  const plans: string[] = [];
  const explaining = (name: string): Database => {
    const query: Queryable["query"] = async (text, params) => {
      const { rows } = await database.query<{ "QUERY PLAN": string }>(
        `EXPLAIN (ANALYZE, BUFFERS, TIMING OFF) ${text}`,
        params,
      );
      const plan = rows.map((row) => row["QUERY PLAN"]).join("\n");
      plans.push(`## ${name}\n\n\`\`\`\n${plan}\n\`\`\`\n`);
      return { rows: [], rowCount: 0 };
    };
    // All that is asked of it here.
    const explained: Pick<Database, "query"> = { query };
    return explained as Database;
  };
  const search = (name: string, asked: object): Promise<unknown> =>
    createThreadRepository(explaining(name))
      .search(ThreadSearch.parse({ limit: 10, ...asked }), undefined)
      // Its rows are plans.
      .catch(() => {});
  await createRunQueue(explaining("Claim ten runs")).claim({
    workerId: "00000000-0000-0000-0000-000000000001",
    leaseMs: 10_000,
    limit: 10,
  });
  await search("Search the newest threads, and count them", {});
  await search("Search by rare metadata", { metadata: { owner: "user7" } });
  await search("Search by metadata a fifth has", { metadata: { graph_id: "five" } });
  await search("Search by a rare status", { status: "error" });
  const saver = openCheckpoints(explaining("History of a thread")).forRun({ threadId });
  const config = { configurable: { thread_id: threadId, checkpoint_ns: "" } };
  for await (const _ of saver.list(config, { limit: 10 })) break;
  const path = fileURLToPath(new URL("../../docs/query-plans.md", import.meta.url));
  await writeFile(
    path,
    `# Query plans\n\nWritten by \`npm run bench -- scale --only rows --write\`: how PostgreSQL answers the statements that meet many rows, with the\nlargest database of [performance](performance.md#rows).\n\n${plans.join("\n")}`,
  );
}
