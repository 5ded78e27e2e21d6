// A process to be killed: saves checkpoints without end and says which are committed.
// Arguments: the database's URL or "", and the folder of the embedded one.
import { randomUUID } from "node:crypto";
import { uuid6 } from "@langchain/langgraph-checkpoint";
import { openCheckpoints } from "../../dist/storage/checkpoints.js";
import { migrate } from "../../dist/storage/migrate.js";
import { openDatabase } from "../../dist/storage/open.js";

const [databaseUrl, dataDir] = process.argv.slice(2);
const database = await openDatabase({ databaseUrl: databaseUrl || undefined, dataDir });
await migrate(database);
const checkpoints = openCheckpoints(database);

async function run() {
  const threadId = randomUUID();
  const saver = checkpoints.forRun({ threadId, resolve: "queued" });
  let config = { configurable: { thread_id: threadId } };
  for (let step = 0; ; step += 1) {
    const checkpoint = {
      v: 4,
      id: uuid6(step),
      ts: new Date().toISOString(),
      channel_values: { step },
      channel_versions: { step: step + 1 },
      versions_seen: {},
    };
    config = await saver.put(
      config,
      checkpoint,
      { source: "loop", step, parents: {} },
      { step: step + 1 },
    );
    await saver.putWrites(config, [["step", step]], "task");
    await saver.settled();
    process.stdout.write(`${threadId} ${step}\n`);
  }
}

await Promise.all(Array.from({ length: 10 }, run));
