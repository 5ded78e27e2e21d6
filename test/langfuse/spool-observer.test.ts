import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { listDeadLetters, readDeadLetter } from "../../src/observability/delivery/dead-letters.ts";
import type { LangfuseConfig } from "../../src/observability/langfuse/config.ts";
import { loadLangfuseObserver } from "../../src/observability/langfuse/observer.ts";
import type { Observer } from "../../src/observability/observer.ts";
import { eventually } from "../support/eventually.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { single } from "./graphs.ts";
import { configFor, createLogCapture, observedRun, runObserved } from "./harness.ts";

let receiver: LangfuseReceiver;
let folder: string;
const open: Observer[] = [];
beforeEach(async () => {
  receiver = await openLangfuseReceiver();
  folder = await mkdtemp(join(tmpdir(), "aegra-spool-"));
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((observer) => observer.shutdown(0)));
  await receiver.close();
  await rm(folder, { recursive: true, force: true });
});

async function observe(
  overrides: Partial<LangfuseConfig> = {},
  { log } = createLogCapture(),
): Promise<Observer> {
  const config = configFor(receiver, overrides);
  const observer = await loadLangfuseObserver(config, { log, spool: { folder } });
  open.push(observer);
  return observer;
}

/** Everything that is on disk, as text. */
async function spooled(): Promise<string> {
  // A folder that is just being renamed is not there for a moment.
  return eventually(readAll);
}

async function readAll(): Promise<string> {
  const names = await readdir(folder, { recursive: true, withFileTypes: true });
  const files = names.filter((entry) => entry.isFile());
  const texts = files.map((entry) => readFile(join(entry.parentPath, entry.name), "latin1"));
  return (await Promise.all(texts)).join("\n");
}

const score = {
  id: "s1",
  name: "helpful",
  data_type: "BOOLEAN",
  comment: undefined,
} as const;

test("a run that is recorded is on disk: another process can send it", async () => {
  receiver.behave({ kind: "hang" });
  const first = await observe();
  const run = observedRun({ assistant_name: "Recorded" });
  const observation = first.startRun(run);
  observation.end({ status: "success", output: "done" });
  await observation.recorded?.();
  expect(await spooled()).toContain("Recorded");
  await first.shutdown(0);
  receiver.behave({ kind: "accept" });
  const second = await observe();
  await receiver.waitForTrace(run.run_id.replaceAll("-", ""));
  expect(await second.flush(60_000)).toBe(true);
  expect(second.status()[0]).toMatchObject({
    spans: { made: 1, sent: 1, pending: 0, dropped: 0 },
    delivery: { spool: "disk", adopted: 1, torn: 0 },
  });
});

test("what is on disk is masked, and holds no keys", async () => {
  receiver.behave({ kind: "hang" });
  receiver.behave({ kind: "hang" }, "/api/public/scores");
  const observer = await observe({
    secretKey: receiver.secretKey,
    headers: { "x-proxy-key": "proxy-secret" },
    mask: (text) => text.replaceAll("4111-1111", "<card>"),
  });
  await runObserved(
    observer,
    single(() => ({ notes: ["card 4111-1111"] })),
    {
      input: { count: 1, notes: ["my card is 4111-1111"] },
    },
  );
  const run = observedRun({ input: "4111-1111" });
  const observation = observer.startRun(run);
  observation.end({ status: "error", error: new Error("4111-1111 was refused") });
  await observation.recorded?.();
  await observer.score({ ...score, run_id: run.run_id, value: 1 });
  const text = await spooled();
  expect(text).toContain("<card>");
  expect(text).not.toContain("4111-1111");
  for (const secret of [receiver.secretKey, "proxy-secret", "Basic "])
    expect(text).not.toContain(secret);
});

test("scores outlive the process, and the later of two with one id wins", async () => {
  receiver.behave({ kind: "status", status: 503 }, "/api/public/scores");
  const first = await observe();
  const run = observedRun();
  await first.score({ ...score, run_id: run.run_id, value: 0 });
  await first.score({ ...score, run_id: run.run_id, value: 1 });
  expect(first.status()[0]?.delivery?.scores).toMatchObject({ made: 2, pending: 2 });
  await first.shutdown(0);
  receiver.behave({ kind: "accept" }, "/api/public/scores");
  const second = await observe();
  await receiver.until(({ scores }) => scores[0]?.value === 1);
  expect(receiver.scores).toHaveLength(1);
  expect(await second.flush(60_000)).toBe(true);
});

test("a state of 5 MB is cut in every field, as configured, with a mark", async () => {
  const observer = await observe({ capture: { maxChars: 10_000 } });
  const state = { count: 1, notes: Array.from({ length: 50 }, () => "word ".repeat(20_000)) };
  const { traceId, output } = await runObserved(
    observer,
    single(() => ({ count: 2 })),
    { input: state },
  );
  expect((output as typeof state).notes).toHaveLength(50);
  expect(await observer.flush(60_000)).toBe(true);
  const spans = await receiver.waitForTrace(traceId);
  for (const span of spans) {
    const input = String(span.attributes["langfuse.observation.input"]);
    expect(input.length).toBeLessThan(12_000);
    expect(input).toContain("cut");
  }
  expect(receiver.requests.every(({ bytes }) => bytes < 200_000)).toBe(true);
});

test("spans of which an accepted request takes none are dead letters", async () => {
  receiver.behave({ kind: "partial", rejected: 1_000 });
  const capture = createLogCapture();
  const observer = await observe({ flushIntervalMs: 100 }, capture);
  const runs = Array.from({ length: 3 }, () => observedRun());
  for (const run of runs) observer.startRun(run).end({ status: "success", output: "done" });
  expect(await observer.flush(60_000)).toBe(true);
  expect(observer.status()[0]).toMatchObject({
    spans: { made: 3, sent: 0, pending: 0, dropped: 3 },
    delivery: { dead_lettered: 3 },
    last_error: "left out of an accepted request: some",
  });
  const letters = await listDeadLetters(join(folder, "langfuse", "spans-dead-letters"));
  const read = await Promise.all(letters.map(readDeadLetter));
  expect(new Set(read.map(({ record }) => record.traceId))).toEqual(
    new Set(runs.map(({ run_id: id }) => id.replaceAll("-", ""))),
  );
  expect(read.map(({ answer }) => answer)).toContain("left out of an accepted request: some");
  const said = capture.lines.map(({ msg }) => msg).filter((msg) => msg.includes("left out"));
  const each = /^Langfuse left out \d spans of an accepted request: some \(kept as dead letters: /u;
  for (const line of said) expect(line).toMatch(each);
  expect(said.length).toBeGreaterThan(0);
});

test("a dead letter does not hold the credentials that its answer repeats", async () => {
  const observer = await observe({ headers: { "x-proxy-key": "proxy-secret" } });
  const basic = Buffer.from(`${receiver.publicKey}:${receiver.secretKey}`).toString("base64");
  receiver.behave({
    kind: "status",
    status: 400,
    body: `{"authorization":"Basic ${basic}","x-proxy-key":"proxy-secret"}`,
  });
  observer.startRun(observedRun()).end({ status: "success", output: "done" });
  expect(await observer.flush(10_000)).toBe(true);
  const [path = ""] = await listDeadLetters(join(folder, "langfuse", "spans-dead-letters"));
  const { answer } = await readDeadLetter(path);
  expect(answer).toBe('HTTP 400: {"authorization":"<redacted>","x-proxy-key":"<redacted>"}');
  const told = `${await spooled()}${JSON.stringify(observer.status())}`;
  for (const secret of [basic, "proxy-secret"]) expect(told).not.toContain(secret);
});

test("scores have figures of their own: what waits, what failed, what was refused", async () => {
  receiver.behave({ kind: "status", status: 503 }, "/api/public/scores");
  const observer = await observe();
  await observer.ready();
  const run = observedRun();
  await observer.score({ ...score, run_id: run.run_id, value: 1 });
  const scores = () => observer.status()[0]?.delivery?.scores;
  await eventually(() => expect(scores()?.retried).toBeGreaterThan(0));
  expect(scores()).toMatchObject({ made: 1, pending: 1, last_success_at: undefined });
  expect(scores()?.last_error).toContain("HTTP 503");
  expect(scores()?.last_error_at).toMatch(/^20\d\d-/);
  expect(scores()?.pending_bytes).toBeGreaterThan(0);
  expect(scores()?.oldest_ms).toBeGreaterThan(0);
  receiver.behave({ kind: "status", status: 400 }, "/api/public/scores");
  await eventually(() => expect(scores()).toMatchObject({ dead_lettered: 1, dropped: 1 }));
  receiver.behave({ kind: "accept" }, "/api/public/scores");
  await observer.score({ ...score, id: "s2", run_id: run.run_id, value: 1 });
  await eventually(() => expect(scores()).toMatchObject({ sent: 1, pending: 0 }));
  expect(scores()?.last_success_at).toMatch(/^20\d\d-/);
  // Spans have had nothing to do with it.
  expect(observer.status()[0]?.delivery).toMatchObject({ retried: 0, dead_lettered: 0 });
});
