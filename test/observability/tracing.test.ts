import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, relative, sep } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { ObservedRun, RunOutcome } from "../../src/observability/observer.ts";
import type { Route } from "../../src/observability/langfuse/projects.ts";
import { loadTracing, type TracingOptions } from "../../src/observability/tracing.ts";
import { single } from "../langfuse/graphs.ts";
import { configFor, createLogCapture, observedRun } from "../langfuse/harness.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { openOtlpReceiver, type OtlpReceiver } from "../support/otlp-receiver.ts";

let langfuse: LangfuseReceiver;
let acme: LangfuseReceiver;
let otlp: OtlpReceiver;
beforeEach(async () => {
  langfuse = await openLangfuseReceiver();
  acme = await openLangfuseReceiver({
    publicKey: "pk-acme",
    secretKey: "sk-acme",
    projectName: "Acme",
  });
  otlp = await openOtlpReceiver();
});
afterEach(() => Promise.all([langfuse.close(), acme.close(), otlp.close()]));

async function open(overrides: Partial<TracingOptions> = {}, folder?: string) {
  const { log, lines } = createLogCapture();
  const observer = await loadTracing(
    {
      langfuse: configFor(langfuse),
      otlp: [
        {
          name: "otlp",
          url: `${otlp.url}/v1/traces`,
          protocol: "http/protobuf",
          headers: { "x-otlp-key": "otlp-secret" },
          resource: { "service.name": "shop" },
          timeoutMs: 60_000,
          flushIntervalMs: 20,
        },
      ],
      ...overrides,
    },
    { log, spool: folder === undefined ? undefined : { folder } },
  );
  await observer.ready();
  const run = async (about: Partial<ObservedRun> = {}, outcome?: RunOutcome) => {
    const observation = observer.startRun(observedRun(about));
    await observation.within(() =>
      single(() => ({ count: 1 })).invoke(
        { count: 1 },
        {
          callbacks: observation.callbacks,
        },
      ),
    );
    observation.end(outcome ?? { status: "success", output: { count: 2 } });
    return observation.traceId;
  };
  return { observer, lines, run };
}

const projectKeys = () => ({
  acme: { publicKey: acme.publicKey, secretKey: acme.secretKey, host: acme.url },
});

describe("fan-out", () => {
  test("one run reaches every target, each with its own headers only", async () => {
    const { observer, run } = await open();
    const traceId = await run();
    expect(await observer.flush(60_000)).toBe(true);
    expect(langfuse.trace(traceId ?? "")).toHaveLength(2);
    expect(otlp.trace(traceId ?? "")).toHaveLength(2);
    expect(langfuse.violations()).toEqual([]);
    expect(JSON.stringify(langfuse.requests.map(({ headers }) => headers))).not.toContain("otlp");
    const told = JSON.stringify(otlp.requests.map(({ headers }) => headers));
    expect(told).toContain("otlp-secret");
    expect(told).not.toMatch(/langfuse|Basic/i);
    expect(observer.status().map(({ name, state }) => [name, state])).toEqual([
      ["langfuse", "on"],
      ["otlp", "on"],
    ]);
    await observer.shutdown(1_000);
  });

  test("a target that is down delays and loses nothing of another's", async () => {
    otlp.status = 503;
    const { observer, run } = await open();
    const traceIds = await Promise.all(Array.from({ length: 10 }, () => run()));
    for (const traceId of traceIds) await langfuse.waitForTrace(traceId ?? "");
    await otlp.until(() => otlp.requests.length > 0);
    expect(observer.status().find(({ name }) => name === "otlp")?.spans.sent).toBe(0);
    langfuse.behave({ kind: "status", status: 500 });
    otlp.status = 200;
    const late = await run();
    await otlp.until(() => otlp.trace(late ?? "").length === 2);
    expect(langfuse.trace(late ?? "")).toEqual([]);
    langfuse.behave({ kind: "accept" });
    expect(await observer.flush(60_000)).toBe(true);
    expect(langfuse.trace(late ?? "")).toHaveLength(2);
    expect(otlp.spans).toHaveLength(22);
    await observer.shutdown(1_000);
  });

  test("each target waits in a folder of its own, which holds no credentials, for the next start", async () => {
    const folder = await mkdtemp(join(tmpdir(), "aegra-targets-"));
    try {
      otlp.status = 503;
      acme.behave({ kind: "status", status: 503 });
      const options = { projects: projectKeys(), route: () => "acme" };
      const first = await open(options, folder);
      const traceId = (await first.run()) ?? "";
      await otlp.until(() => otlp.requests.length > 0);
      await first.observer.shutdown(100);
      const files = await readdir(folder, { recursive: true, withFileTypes: true });
      const waiting = files.filter((file) => file.isFile() && file.parentPath.includes("spans"));
      const folders = waiting.map(({ parentPath }) => relative(folder, parentPath).split(sep)[0]);
      expect([...new Set(folders)]).toEqual(expect.arrayContaining(["langfuse-acme", "otlp"]));
      for (const { parentPath, name } of waiting) {
        const text = (await readFile(join(parentPath, name))).toString("latin1");
        expect(text).not.toMatch(/otlp-secret|sk-acme|pk-acme/);
      }
      otlp.status = 200;
      acme.behave({ kind: "accept" });
      const second = await open(options, folder);
      await otlp.until(() => otlp.trace(traceId).length === 2);
      await acme.waitForTrace(traceId);
      await second.observer.shutdown(1_000);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test("scores go to Langfuse; without it there is nowhere", async () => {
    const { observer } = await open();
    expect(observer.status().filter(({ scores }) => scores !== false)).toMatchObject([
      { name: "langfuse" },
    ]);
    await observer.shutdown(1_000);
  });

  test("without a target nothing happens", async () => {
    const { observer, run } = await open({
      langfuse: { ...configFor(langfuse), enabled: false },
      otlp: [],
    });
    expect(await run()).toBeUndefined();
    expect(observer.status()).toEqual([]);
    expect(observer.place?.(observedRun())).toBeUndefined();
  });
});

describe("opting out", () => {
  test.each([
    ["the run's metadata", { metadata: { aegra_trace: false } }],
    ["the word for it", { metadata: { aegra_trace: "off" } }],
    ["the request's header", { headers: { "x-aegra-trace": "OFF" } }],
    [
      "the header over the metadata",
      {
        headers: { "x-aegra-trace": "off" },
        metadata: { aegra_trace: true },
      },
    ],
    [
      "a run that was placed all the same",
      {
        metadata: { aegra_trace: false },
        place: { trace_id: "4bf92f3577b34da6a3ce929d0e0e4736" },
      },
    ],
  ])("by %s: no span anywhere", async (_name, about) => {
    const { observer, run } = await open();
    expect(observer.place?.(observedRun(about))).toBeUndefined();
    expect(await run(about)).toBeUndefined();
    const other = await run({ metadata: { aegra_trace: true } });
    expect(await observer.flush(60_000)).toBe(true);
    expect(langfuse.traceIds()).toEqual([other]);
    expect([...new Set(otlp.spans.map(({ traceId }) => traceId))]).toEqual([other]);
    await observer.shutdown(1_000);
  });
});

describe("traceparent", () => {
  const caller = { trace_id: "4bf92f3577b34da6a3ce929d0e0e4736", span_id: "00f067aa0ba902b7" };
  const traceparent = `00-${caller.trace_id}-${caller.span_id}-01`;

  test("is noted by default", async () => {
    const { observer, run } = await open();
    const traceId = await run({ traceparent });
    await observer.flush(60_000);
    expect(traceId).not.toBe(caller.trace_id);
    const [root] = langfuse.trace(traceId ?? "").filter(({ parentSpanId }) => !parentSpanId);
    expect(root?.attributes["langfuse.trace.metadata.caller_trace_id"]).toBe(caller.trace_id);
    expect(otlp.spans.find(({ links }) => links !== undefined)?.links).toEqual([
      { traceId: caller.trace_id, spanId: caller.span_id },
    ]);
    await observer.shutdown(1_000);
  });

  test("as a parent joins the caller's trace, in every target, links and scores included", async () => {
    const { observer, run } = await open({ traceparent: "parent" });
    const about = observedRun({ traceparent });
    const place = observer.place?.(about);
    expect(place).toEqual({ trace_id: caller.trace_id, parent_span_id: caller.span_id });
    expect(await run({ ...about, place })).toBe(caller.trace_id);
    await observer.flush(60_000);
    for (const spans of [langfuse.trace(caller.trace_id), otlp.trace(caller.trace_id)]) {
      expect(spans).toHaveLength(2);
      const top = spans.find(({ parentSpanId }) => parentSpanId === caller.span_id);
      const node = spans.find((span) => span !== top);
      expect(node?.parentSpanId).toBe(top?.spanId);
    }
    const top = langfuse.spans.find(({ parentSpanId }) => parentSpanId === caller.span_id);
    expect(top?.attributes["langfuse.internal.as_root"]).toBe(true);
    expect(langfuse.violations()).toEqual([]);
    expect(observer.traceUrl(about.run_id, place)).toContain(`/traces/${caller.trace_id}`);
    await observer.score({
      id: "s1",
      run_id: about.run_id,
      place,
      name: "thumbs",
      value: 1,
      data_type: "BOOLEAN",
      comment: undefined,
    });
    await observer.flush(60_000);
    expect(langfuse.scores).toMatchObject([{ id: "s1", traceId: caller.trace_id }]);
    await observer.shutdown(1_000);
  });

  test.each([
    "",
    "garbage",
    `00-${"0".repeat(32)}-${caller.span_id}-01`,
    `00-${caller.trace_id}-${"0".repeat(16)}-01`,
    `ff-${caller.trace_id}-${caller.span_id}-01`,
    `00-${caller.trace_id.toUpperCase()}-${caller.span_id}-01`,
    `00-${caller.trace_id}-${caller.span_id}-01-more`,
  ])('a malformed one is ignored: "%s"', async (malformed) => {
    const { observer } = await open({ traceparent: "parent" });
    const about = observedRun({ traceparent: malformed });
    expect(observer.place?.(about)).toEqual({ trace_id: about.run_id.replaceAll("-", "") });
    await observer.shutdown(1_000);
  });
});

describe("several Langfuse projects", () => {
  const route: Route = ({ metadata }) => metadata["tenant"] as string | undefined;

  test("a run goes where the route says; its link and its scores follow", async () => {
    const { observer, run } = await open({ projects: projectKeys(), route, otlp: [] });
    const theirs = observedRun({ metadata: { tenant: "acme" } });
    const ours = observedRun();
    const place = observer.place?.(theirs);
    expect(place).toMatchObject({ project: "acme" });
    await run({ ...theirs, place });
    await run(ours);
    const score = { name: "n", value: 1, data_type: "NUMERIC", comment: undefined } as const;
    await observer.score({ ...score, id: "theirs", run_id: theirs.run_id, place });
    await observer.score({ ...score, id: "ours", run_id: ours.run_id });
    expect(await observer.flush(60_000)).toBe(true);
    expect(acme.traceIds()).toEqual([theirs.run_id.replaceAll("-", "")]);
    expect(langfuse.traceIds()).toEqual([ours.run_id.replaceAll("-", "")]);
    expect(acme.scores.map(({ id }) => id)).toEqual(["theirs"]);
    expect(langfuse.scores.map(({ id }) => id)).toEqual(["ours"]);
    expect(observer.traceUrl(theirs.run_id, place)).toContain(acme.url);
    expect(observer.traceUrl(ours.run_id)).toContain(langfuse.url);
    expect(observer.status().map(({ name }) => name)).toEqual(["langfuse", "langfuse:acme"]);
    const headers = JSON.stringify(langfuse.requests.map((request) => request.headers));
    expect(headers).not.toContain("acme");
    await observer.shutdown(1_000);
  });

  test("a project that is gone: runs go to the default one, old runs have no link and no score", async () => {
    const { observer, run, lines } = await open({ projects: projectKeys(), route, otlp: [] });
    const about = observedRun();
    const place = { trace_id: about.run_id.replaceAll("-", ""), project: "gone" };
    await run({ ...about, place });
    const score = {
      id: "s",
      name: "n",
      value: 1,
      data_type: "NUMERIC",
      comment: undefined,
    } as const;
    await observer.score({ ...score, run_id: about.run_id, place });
    expect(await observer.flush(60_000)).toBe(true);
    expect(langfuse.traceIds()).toEqual([place.trace_id]);
    expect(observer.traceUrl(about.run_id, place)).toBeUndefined();
    expect([...langfuse.scores, ...acme.scores]).toEqual([]);
    expect(lines.filter(({ msg }) => msg.includes('"gone"'))).toHaveLength(2);
    await observer.shutdown(1_000);
  });

  test("the route sees what the server knows, and nothing else", async () => {
    const seen: unknown[] = [];
    const { observer } = await open({
      projects: projectKeys(),
      route: (run) => void seen.push(run),
    });
    observer.place?.(observedRun({ user_id: "bob", metadata: { plan: "gold" } }));
    expect(seen).toEqual([
      {
        user_id: "bob",
        graph_id: "agent",
        assistant_id: "assistant-1",
        thread_id: "thread-1",
        metadata: { plan: "gold" },
      },
    ]);
    await observer.shutdown(1_000);
  });

  test.each<[string, Route, string]>([
    [
      "throws",
      () => {
        throw new Error("no such tenant");
      },
      "no such tenant",
    ],
    ["names no project", () => "globex", "globex"],
    ["is asynchronous", (async () => "acme") as unknown as Route, "a promise"],
  ])("a route that %s: the default project, and one warning", async (_name, bad, words) => {
    const { observer, run, lines } = await open({ projects: projectKeys(), route: bad, otlp: [] });
    await run();
    await run();
    await observer.flush(60_000);
    expect(langfuse.traceIds()).toHaveLength(2);
    expect(acme.traceIds()).toEqual([]);
    expect(
      lines.filter(({ msg }) => msg.includes("langfuse.route") && msg.includes(words)),
    ).toHaveLength(1);
    await observer.shutdown(1_000);
  });

  test("sampling is the same wherever the run goes", async () => {
    const { observer } = await open({
      langfuse: { ...configFor(langfuse), sampleRate: 0 },
      projects: projectKeys(),
      route,
    });
    const about = observedRun({ metadata: { tenant: "acme" } });
    // The OTLP backend samples nothing, so the run has a trace, but not in Langfuse.
    expect(observer.place?.(about)).toEqual({ trace_id: about.run_id.replaceAll("-", "") });
    expect(observer.traceUrl(about.run_id)).toBeUndefined();
    await observer.shutdown(1_000);
  });
});
