import { afterEach, beforeEach, expect, test } from "vitest";
import type { Observer } from "../../src/observability/observer.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { observedRun, openObserver, type LogLine } from "./harness.ts";

let receiver: LangfuseReceiver;
const open: Observer[] = [];
beforeEach(async () => {
  receiver = await openLangfuseReceiver();
});
afterEach(async () => {
  await Promise.all(open.splice(0).map((observer) => observer.shutdown(200)));
  await receiver.close();
});

async function observe(overrides: Parameters<typeof openObserver>[1] = {}) {
  const opened = await openObserver(receiver, overrides);
  open.push(opened.observer);
  return opened;
}

/** One root span. */
function spend(observer: Observer, name = "run"): string {
  const observation = observer.startRun(observedRun({ assistant_name: name }));
  observation.end({ status: "success", output: "done" });
  return observation.traceId ?? "";
}

const warnings = (lines: readonly LogLine[]): string[] =>
  lines.filter((line) => line.level >= 40).map((line) => line.msg);

async function until(condition: () => boolean): Promise<void> {
  for (let tries = 0; tries < 3_000 && !condition(); tries += 1)
    await new Promise((resolve) => setTimeout(resolve, 20));
  expect(condition()).toBe(true);
}

test("status tells the project, and links go to its traces", async () => {
  const { observer, lines } = await observe();
  await observer.ready();
  const traceId = spend(observer);
  await observer.flush(60_000);
  const [status] = observer.status();
  expect(status).toMatchObject({
    name: "langfuse",
    state: "on",
    host: receiver.url,
    spans: { made: 1, sent: 1, pending: 0, dropped: 0 },
  });
  expect(status?.message).toContain("Test project");
  expect(observer.traceUrl(traceId)).toBe(`${receiver.url}/project/project-1/traces/${traceId}`);
  expect(warnings(lines)).toEqual([]);
});

test("requests are gzipped protobuf with the right headers, and extra ones", async () => {
  const { observer } = await observe({ headers: { "x-proxy": "yes" } });
  spend(observer);
  await observer.flush(60_000);
  const sent = receiver.requests.find((request) => request.path.endsWith("/traces"));
  expect(sent?.headers).toMatchObject({
    "content-encoding": "gzip",
    "content-type": "application/x-protobuf",
    "x-langfuse-ingestion-version": "4",
    "x-proxy": "yes",
  });
  expect(
    receiver.requests.find((request) => request.path.endsWith("/projects"))?.headers["x-proxy"],
  ).toBe("yes");
});

test("a trailing slash and a path in the host do no harm", async () => {
  const behind = await openLangfuseReceiver({ basePath: "/langfuse" });
  const { observer } = await observe({ host: `${behind.url}//` });
  const traceId = spend(observer);
  expect(await observer.flush(60_000)).toBe(true);
  expect(behind.traceIds()).toEqual([traceId]);
  expect(behind.violations()).toEqual([]);
  await behind.close();
});

test("headers of another vendor in the environment stay there", async () => {
  process.env["OTEL_EXPORTER_OTLP_HEADERS"] = "x-vendor-key=secret";
  process.env["OTEL_TRACES_SAMPLER"] = "always_off";
  try {
    const { observer } = await observe();
    spend(observer);
    await observer.flush(60_000);
    expect(receiver.spans).toHaveLength(1);
    expect(JSON.stringify(receiver.requests.map((request) => request.headers))).not.toContain(
      "secret",
    );
  } finally {
    delete process.env["OTEL_EXPORTER_OTLP_HEADERS"];
    delete process.env["OTEL_TRACES_SAMPLER"];
  }
});

test("missing keys: one warning, a status that says which, and runs go on", async () => {
  const { observer, lines } = await observe({ publicKey: "", secretKey: undefined });
  expect(warnings(lines)).toHaveLength(1);
  expect(warnings(lines)[0]).toContain("LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY are not set");
  expect(observer.status()[0]).toMatchObject({ state: "misconfigured" });
  expect(observer.startRun(observedRun()).traceId).toBeUndefined();
  expect(receiver.requests).toEqual([]);
});

test("refused keys: said once, kept, and delivered when they are mended", async () => {
  const { observer, lines } = await observe({ secretKey: "wrong" });
  await observer.ready();
  expect(observer.status()[0]).toMatchObject({ state: "misconfigured" });
  const traceId = spend(observer);
  expect(await observer.flush(300)).toBe(false);
  expect(warnings(lines)).toHaveLength(1);
  expect(warnings(lines)[0]).toContain("refused the keys");
  receiver.setKeys(receiver.publicKey, "wrong");
  await until(() => receiver.traceIds().includes(traceId));
  await until(() => observer.status()[0]?.state === "on");
  expect(observer.status()[0]?.spans).toEqual({ made: 1, sent: 1, pending: 0, dropped: 0 });
  expect(warnings(lines)).toHaveLength(1);
});

test("an unreachable host: said once, and everything arrives when it is back", async () => {
  const { port, url } = receiver;
  await receiver.close();
  const { observer, lines } = await observe({ host: url });
  await observer.ready();
  expect(observer.status()[0]).toMatchObject({ state: "unreachable" });
  const traceIds = [spend(observer), spend(observer), spend(observer)];
  expect(await observer.flush(300)).toBe(false);
  expect(warnings(lines)).toHaveLength(1);
  receiver = await openLangfuseReceiver({ port });
  await until(() => traceIds.every((traceId) => receiver.traceIds().includes(traceId)));
  await until(() => observer.status()[0]?.state === "on");
  expect(observer.status()[0]?.spans).toEqual({ made: 3, sent: 3, pending: 0, dropped: 0 });
  await until(() => lines.some((line) => line.msg.includes("back")));
  expect(lines.filter((line) => line.msg.includes("back"))).toHaveLength(1);
});

test("an outage is three lines: down, going on, and all that waited is there", async () => {
  const { observer, lines } = await observe({ flushAt: 2 });
  await observer.ready();
  spend(observer);
  expect(await observer.flush(60_000)).toBe(true);
  receiver.behave({ kind: "status", status: 503 });
  for (let index = 0; index < 20; index += 1) spend(observer);
  expect(await observer.flush(300)).toBe(false);
  receiver.behave({ kind: "slow", ms: 20 });
  let arrived = 0;
  await until(() => {
    if (!lines.some(({ msg }) => msg.includes("has all traces"))) arrived = receiver.spans.length;
    return lines.some(({ msg }) => msg.includes("has all traces"));
  });
  expect(receiver.spans).toHaveLength(21);
  // Not before the most of it was there.
  expect(arrived).toBeGreaterThan(10);
  expect(observer.status()[0]?.message).not.toContain("again");
  const said = lines.map(({ msg }) => msg).filter((msg) => /traces/.test(msg));
  expect(said).toEqual([
    expect.stringContaining("does not accept traces (HTTP 503"),
    expect.stringContaining("accepts traces again; what waited is being sent"),
    "Langfuse has all traces that waited.",
  ]);
});

test.each([
  ["500", { kind: "status", status: 500 }],
  ["503 with Retry-After", { kind: "status", status: 503, retryAfter: "0" }],
  ["429 with Retry-After", { kind: "status", status: 429, retryAfter: "1" }],
  ["408", { kind: "status", status: 408 }],
  ["403", { kind: "status", status: 403 }],
  ["a dropped connection", { kind: "drop" }],
  ["an answer lost after storing", { kind: "drop", after: "storing" }],
  ["no answer at all", { kind: "hang" }],
] as const)("%s: nothing is lost, resent bytes are the same", async (_name, behaviour) => {
  // Only who does not answer at all is given up early.
  const hurried = behaviour.kind === "hang" ? { timeoutMs: 2_000 } : {};
  const { observer, lines } = await observe(hurried);
  await observer.ready();
  receiver.behave(behaviour);
  const traceIds = Array.from({ length: 5 }, () => spend(observer));
  await until(() => receiver.requests.some((request) => request.path.endsWith("/traces")));
  await until(() => observer.status()[0]?.last_error !== undefined);
  receiver.behave({ kind: "accept" });
  await until(() => traceIds.every((traceId) => receiver.traceIds().includes(traceId)));
  await until(() => observer.status()[0]?.spans.sent === 5);
  expect(receiver.violations()).toEqual([]);
  expect(warnings(lines)).toHaveLength(1);
});

test("413: the batch is split until it fits", async () => {
  const { observer } = await observe({ flushIntervalMs: 100 });
  receiver.behave({ kind: "limit", bytes: 6_000 });
  const traceIds = Array.from({ length: 30 }, () => spend(observer));
  expect(await observer.flush(60_000)).toBe(true);
  expect(new Set(receiver.traceIds())).toEqual(new Set(traceIds));
  expect(receiver.requests.some((request) => request.status === 413)).toBe(true);
  expect(observer.status()[0]?.spans).toMatchObject({ sent: 30, dropped: 0 });
});

test("400: only the guilty span is given up, with a number and a line", async () => {
  const { observer, lines } = await observe({ flushIntervalMs: 100 });
  receiver.behave({ kind: "refuse-span", name: "poison" });
  const good = Array.from({ length: 6 }, () => spend(observer));
  spend(observer, "poison");
  good.push(spend(observer));
  expect(await observer.flush(60_000)).toBe(true);
  expect(new Set(receiver.traceIds())).toEqual(new Set(good));
  expect(observer.status()[0]?.spans).toEqual({ made: 8, sent: 7, pending: 0, dropped: 1 });
  expect(warnings(lines).filter((line) => line.includes("for good"))).toHaveLength(1);
});

test("a partial success is counted", async () => {
  const { observer } = await observe({ flushIntervalMs: 100 });
  receiver.behave({ kind: "partial", rejected: 2 });
  for (let index = 0; index < 5; index += 1) spend(observer);
  await observer.flush(60_000);
  expect(observer.status()[0]?.spans).toEqual({ made: 5, sent: 3, pending: 0, dropped: 2 });
});

test("shutdown keeps its deadline and counts what it could not send", async () => {
  const { observer, lines } = await observe({ timeoutMs: 600_000 });
  await observer.ready();
  receiver.behave({ kind: "hang" });
  spend(observer);
  const began = Date.now();
  await observer.shutdown(200);
  expect(Date.now() - began).toBeLessThan(60_000);
  expect(warnings(lines).some((line) => line.includes("not delivered"))).toBe(true);
  expect(observer.startRun(observedRun()).traceId).toBeUndefined();
});

test("scores are idempotent, and wait for Langfuse", async () => {
  const { observer } = await observe();
  receiver.behave({ kind: "status", status: 503 }, "/api/public/scores");
  const run = observedRun();
  const score = {
    id: "s1",
    run_id: run.run_id,
    name: "helpful",
    data_type: "BOOLEAN",
    comment: undefined,
  } as const;
  await observer.score({ ...score, value: 0 });
  await observer.score({ ...score, value: 1 });
  await until(() => receiver.requests.some((request) => request.path.endsWith("/scores")));
  expect(receiver.scores).toEqual([]);
  receiver.behave({ kind: "accept" }, "/api/public/scores");
  await until(() => receiver.scores[0]?.value === 1);
  expect(receiver.scores).toMatchObject([
    { id: "s1", traceId: run.run_id.replaceAll("-", ""), dataType: "BOOLEAN" },
  ]);
});

test("the key check reads no answer to its end that has none, and tells no key it repeats", async () => {
  const keys = `${receiver.publicKey}:${receiver.secretKey}`;
  receiver.behave({ kind: "endless" }, "/api/public/projects");
  const { observer } = await observe({ timeoutMs: 30_000 });
  await observer.ready();
  expect(observer.status()[0]).toMatchObject({ state: "unreachable" });
  expect(observer.status()[0]?.message).toContain("not Langfuse's");
  receiver.behave(
    { kind: "status", status: 200, body: `{"data":[{"id":"p","name":"of ${keys}"}]}` },
    "/api/public/projects",
  );
  const second = await observe();
  await second.observer.ready();
  expect(second.observer.status()[0]?.state).toBe("on");
  expect(second.observer.status()[0]?.message).not.toContain(receiver.secretKey);
});

test.each([
  ["a header that is none", { headers: { "x-proxy": "HDRSECRET\nnext" } }, '"x-proxy"'],
  ["a header of the server's own", { headers: { "Content-Length": "1" } }, '"Content-Length"'],
  ["a key that is none", { publicKey: "pk-lf\nHDRSECRET" }, "LANGFUSE_PUBLIC_KEY"],
])("%s is told by its name, and not as a fault of the network", async (_what, wrong, words) => {
  const { observer, lines } = await observe(wrong);
  await observer.ready();
  const [status] = observer.status();
  expect(status).toMatchObject({ state: "misconfigured" });
  expect(status?.message).toContain(words);
  const told = JSON.stringify([status, lines]);
  expect(told).not.toContain("HDRSECRET");
  expect(told).not.toContain("network");
  expect(receiver.requests).toEqual([]);
});

test("no trace is said to go anywhere before one has", async () => {
  receiver.behave({ kind: "hang" });
  const { observer } = await observe({ timeoutMs: 60_000 });
  await observer.ready();
  const message = (): string => observer.status()[0]?.message ?? "";
  const before = `Traces will go to the project "Test project" at ${receiver.url}; none has been accepted yet.`;
  expect(message()).toBe(before);
  spend(observer);
  await receiver.until((self) => self.attempts() > 0);
  expect(observer.status()[0]).toMatchObject({ state: "on" });
  expect(message()).toBe(before);
  receiver.behave({ kind: "accept" });
  const { observer: second } = await observe();
  await second.ready();
  spend(second);
  expect(await second.flush(10_000)).toBe(true);
  expect(second.status()[0]?.message).toMatch(/^Traces go to the project "Test project"/);
});
