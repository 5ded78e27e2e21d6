import { afterEach, beforeEach, expect, test } from "vitest";
import type { LangfuseConfig } from "../../src/observability/langfuse/config.ts";
import type { ObservedRun } from "../../src/observability/observer.ts";
import { FakeChatModel, says } from "../support/fake-chat-model.ts";
import {
  openLangfuseReceiver,
  type LangfuseReceiver,
  type ReceivedSpan,
} from "../support/langfuse-receiver.ts";
import { single } from "./graphs.ts";
import { newRunId, openObserver, runObserved, type LogLine } from "./harness.ts";

let receiver: LangfuseReceiver;
beforeEach(async () => {
  receiver = await openLangfuseReceiver();
});
afterEach(() => receiver.close());

const secretive = () => {
  const model = new FakeChatModel([says("SECRET answer", { input: 1, output: 1 })], {
    parameters: { temperature: 0, stop: ["SECRET stop"] },
  });
  return single(async (_state, config) => {
    await model.invoke("SECRET question", config);
    throw new Error("SECRET failure");
  }, "node");
};

/** One failing run full of secrets, under the given configuration. */
async function runWith(
  overrides: Partial<LangfuseConfig>,
  run: Partial<ObservedRun> = {},
): Promise<{ spans: ReceivedSpan[]; lines: LogLine[]; traceId: string }> {
  const { observer, lines } = await openObserver(receiver, overrides);
  const { traceId } = await runObserved(observer, secretive(), {
    input: { notes: ["SECRET input"] },
    run: {
      metadata: { note: "SECRET note" },
      tags: ["SECRET tag"],
      user_id: "SECRET user",
      ...run,
    },
  });
  await observer.flush(60_000);
  await observer.shutdown(1_000);
  expect(receiver.violations()).toEqual([]);
  return { spans: [...receiver.spans], lines, traceId };
}

const textOf = (spans: readonly ReceivedSpan[]): string =>
  JSON.stringify(spans.map((span) => [span.name, span.attributes]));

test("without a mask it is all there, which is what the mask's tests rely on", async () => {
  const { spans } = await runWith({});
  const text = textOf(spans);
  for (const secret of ["answer", "stop", "question", "failure", "input", "note", "tag", "user"]) {
    expect(text).toContain(`SECRET ${secret}`);
  }
});

test("the mask reaches every input, output, parameter, metadata, tag, user and error text", async () => {
  const fields = new Set<string>();
  const { spans } = await runWith({
    mask: (text, field) => {
      fields.add(field);
      return text.replaceAll("SECRET", "***");
    },
  });
  expect(spans.length).toBeGreaterThan(2);
  expect(textOf(spans)).not.toContain("SECRET");
  expect([...fields]).toEqual(
    expect.arrayContaining([
      "input",
      "output",
      "status_message",
      "metadata.note",
      "trace.tags",
      "user.id",
      "name",
    ]),
  );
});

test("a field whose mask throws is withheld, the run goes on, and it is said once", async () => {
  const { spans, lines } = await runWith({
    mask: (text) => {
      if (text.includes("SECRET")) throw new Error("mask broke");
      return text;
    },
  });
  expect(textOf(spans)).not.toContain("SECRET");
  expect(textOf(spans)).toContain("withheld");
  expect(lines.filter((line) => line.msg.includes("mask broke"))).toHaveLength(1);
});

test("a mask that gives no string withholds the field", async () => {
  const { spans } = await runWith({ mask: (() => Promise.resolve("SECRET")) as never });
  expect(textOf(spans)).not.toContain("SECRET");
});

test("inputs and outputs can be left out", async () => {
  const { spans } = await runWith({ capture: { input: false, output: false } });
  const keys = spans.flatMap((span) => Object.keys(span.attributes));
  expect(keys).not.toContain("langfuse.observation.input");
  expect(keys).not.toContain("langfuse.observation.output");
  expect(spans.length).toBeGreaterThan(2);
});

test("sampling is decided by run id, the same for every attempt, and near its rate", async () => {
  const { observer } = await openObserver(receiver, { sampleRate: 0.25 });
  const ids = Array.from({ length: 2_000 }, newRunId);
  const decide = (runId: string): boolean => {
    const observation = observer.startRun({ ...baseRun, run_id: runId });
    return observation.traceId !== undefined;
  };
  const kept = ids.filter(decide);
  expect(kept.length / ids.length).toBeGreaterThan(0.2);
  expect(kept.length / ids.length).toBeLessThan(0.3);
  expect(ids.filter(decide)).toEqual(kept);
  expect(observer.traceUrl(ids.find((id) => !kept.includes(id)) ?? "")).toBeUndefined();
  await observer.shutdown(100);
});

const baseRun: ObservedRun = {
  run_id: "0199aaaa-0000-7000-8000-000000000000",
  thread_id: "t",
  session_id: "t",
  user_id: undefined,
  graph_id: "g",
  assistant_id: "a",
  assistant_name: "A",
  assistant_version: 1,
  attempt: 1,
  trigger: "api",
  tags: [],
  metadata: {},
  input: null,
  checkpoint_id: undefined,
  resumed_from: undefined,
  created_at: new Date(),
  started_at: new Date(),
  traceparent: undefined,
};

test("what is over the server's limits is cut, marked and said once", async () => {
  const { observer, lines } = await openObserver(receiver);
  for (let index = 0; index < 2; index += 1) {
    observer
      .startRun({
        ...baseRun,
        run_id: newRunId(),
        assistant_name: "N".repeat(3_000),
        session_id: "s".repeat(500),
        user_id: `u\uD800${"u".repeat(500)}`,
        tags: ["t".repeat(500), ...Array.from({ length: 200 }, (_, tag) => `tag-${tag}`)],
        metadata: Object.fromEntries(
          Array.from({ length: 500 }, (_, key) => [`key-${key}`, "v".repeat(100_000)]),
        ),
        input: "x".repeat(5_000_000),
      })
      .end({ status: "error", error: new Error("e".repeat(1_000_000)) });
  }
  await observer.flush(60_000);
  expect(receiver.violations()).toEqual([]);
  const [root] = receiver.spans;
  expect(String(root?.attributes["session.id"])).toMatch(/^s+…#[0-9a-f]{12}$/);
  expect(String(root?.attributes["langfuse.observation.input"])).toContain(
    "5000000 characters in all",
  );
  expect(
    String(root?.attributes["langfuse.observation.status_message"]).length,
  ).toBeLessThanOrEqual(20_000);
  expect(lines.filter((line) => line.msg.includes("too long"))).toHaveLength(1);
  await observer.shutdown(100);
});

test("an environment Langfuse would not take is corrected and said", async () => {
  const { spans, lines } = await runWith({ environment: "Production EU!" });
  expect(spans[0]?.attributes["langfuse.environment"]).toBe("production-eu-");
  expect(lines.filter((line) => line.msg.includes("Production EU!"))).toHaveLength(1);
});

test("a hostile state breaks neither the run nor its trace", async () => {
  const { observer, lines } = await openObserver(receiver);
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  const cycle: Record<string, unknown> = { big: 2n ** 70n, bytes: Buffer.alloc(10), proxy };
  cycle["self"] = cycle;
  const input = {
    get messages(): never {
      throw new Error("no");
    },
    cycle,
  };
  const observation = observer.startRun({
    ...baseRun,
    run_id: newRunId(),
    input,
    metadata: { cycle, proxy },
  });
  observation.end({ status: "error", error: proxy, output: cycle });
  observation.end({ status: "success" });
  await observer.flush(60_000);
  expect(receiver.spans).toHaveLength(1);
  expect(receiver.violations()).toEqual([]);
  expect(lines.filter((line) => line.msg.includes("error of its own"))).toEqual([]);
  await observer.shutdown(100);
});
