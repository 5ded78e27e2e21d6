import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { createDiskStore } from "../../src/observability/delivery/disk-store.ts";
import { createSpanEncoder } from "../../src/observability/otlp-protobuf.ts";
import { openDatabase } from "../../src/storage/open.ts";
import { openLangfuseReceiver } from "../support/langfuse-receiver.ts";
import { createTracedProject } from "../support/traced-project.ts";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).toReversed()) await cleanup();
});

const encode = createSpanEncoder();

/** A root that waited for the result of its run when its process ended. */
function rootOf(traceId: string, attempt: number) {
  const at = [Math.floor(Date.now() / 1_000), 0] as const;
  const bytes = encode({
    traceId,
    spanId: randomBytes(8).toString("hex"),
    parentSpanId: undefined,
    name: `root of attempt ${attempt}`,
    kind: 1,
    start: at,
    end: at,
    attributes: {},
    statusCode: 0,
  });
  return { traceId, root: true, attempt, bytes };
}

test("aegra traces flush sends a root only if the run ended with its attempt", async () => {
  const receiver = await openLangfuseReceiver();
  cleanups.push(() => receiver.close());
  const project = await createTracedProject(receiver);
  cleanups.push(() => project.remove());
  const dataDir = join(project.folder, ".aegra");
  const server = await project.start({ LANGFUSE_LOGGING: "false" });
  cleanups.push(() => server.kill());
  const run = async (): Promise<string> => {
    const { thread_id: threadId } = await server.client.threads.create();
    const { run_id: runId } = await server.client.runs.create(threadId, "quick", {
      input: { input: "x" },
    });
    await server.client.runs.join(threadId, runId);
    return runId.replaceAll("-", "");
  };
  const [counts, superseded] = [await run(), await run()];
  await server.kill("SIGTERM");

  const spans = join(dataDir, "traces", "langfuse", "spans");
  const left = createDiskStore({
    folder: spans,
    deadLetterFolder: `${spans}-dead-letters`,
    fsync: false,
    onEvent: () => {},
    onAdopted: () => {},
  });
  left.add(rootOf(counts, 1));
  left.add(rootOf(superseded, 1));
  await left.recorded();
  await left.close();

  // While somebody else has the database, nothing is decided.
  const database = await openDatabase({ dataDir });
  await database.query("UPDATE runs SET attempt = 2 WHERE run_id = $1", [superseded]);
  const undecided = await project.traces("flush", "--timeout", "5");
  await database.close();
  expect(undecided.output).toContain("The runs cannot be asked which of their attempts counts");
  expect(undecided.code).toBe(1);
  expect(receiver.spans).toEqual([]);

  // Nothing is taken over in this moment.
  const hurried = await project.traces("flush", "--timeout", "0.001");
  expect(hurried.output).toContain("0 sent, 2 left");
  expect(hurried.output).toContain("--timeout takes more seconds");
  expect(hurried.code).toBe(1);

  const decided = await project.traces("flush");
  expect(decided.output).toContain("1 sent, 0 left");
  expect(decided.code).toBe(0);
  expect(receiver.spans.map(({ traceId, name }) => [traceId, name])).toEqual([
    [counts, "root of attempt 1"],
  ]);
});

test("aegra traces flush tells why a score was not sent", async () => {
  const receiver = await openLangfuseReceiver();
  cleanups.push(() => receiver.close());
  receiver.behave({ kind: "status", status: 503 }, "/api/public/scores");
  const project = await createTracedProject(receiver);
  cleanups.push(() => project.remove());
  const folder = join(project.folder, ".aegra", "traces", "langfuse", "scores");
  const left = createDiskStore({
    folder,
    deadLetterFolder: `${folder}-dead-letters`,
    fsync: false,
    onEvent: () => {},
    onAdopted: () => {},
  });
  const score = { id: "s1", traceId: "1".repeat(32), name: "helpful", value: 1 };
  left.add({ traceId: score.traceId, root: false, bytes: Buffer.from(JSON.stringify(score)) });
  await left.recorded();
  await left.close();

  const { code, output } = await project.traces("flush", "--timeout", "5");
  expect(output).toContain("0 sent, 1 left");
  expect(output).toContain("langfuse, scores: HTTP 503");
  expect(code).toBe(1);
});
