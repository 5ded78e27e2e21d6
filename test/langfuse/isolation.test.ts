import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import { HumanMessage } from "@langchain/core/messages";
import { createReactAgent } from "@langchain/langgraph/prebuilt";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { add, addingModel } from "./graphs.ts";
import { newRunId, observedRun, openBench, openObserver, type TraceBench } from "./harness.ts";

let bench: TraceBench;
beforeAll(async () => {
  bench = await openBench();
});
afterAll(() => bench.close());

/** A handler that lets other work in between, on LangChain's process-wide queue. */
class SlowHandler extends BaseCallbackHandler {
  name = "SlowHandler";
  override async handleChainStart(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  override async handleChainEnd(): Promise<void> {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

test("twenty concurrent runs of several users never mix", async () => {
  bench.receiver.clear();
  const slow = new SlowHandler();
  const graph = createReactAgent({ llm: addingModel(), tools: [add] });
  const runs = Array.from({ length: 20 }, (_, index) =>
    observedRun({
      run_id: newRunId(),
      user_id: `user-${index % 5}`,
      session_id: `thread-${index}`,
      thread_id: `thread-${index}`,
    }),
  );
  await Promise.all(
    runs.map(async (run) => {
      const input = { messages: [new HumanMessage(`question of ${run.run_id}`)] };
      const observation = bench.observer.startRun({ ...run, input });
      const output = await observation.within(() =>
        graph.invoke(input, { callbacks: [...observation.callbacks, slow], runId: run.run_id }),
      );
      observation.end({ status: "success", output });
    }),
  );
  await bench.observer.flush(60_000);
  expect(bench.receiver.violations()).toEqual([]);
  expect(bench.receiver.traceIds()).toHaveLength(20);
  for (const run of runs) {
    const spans = bench.receiver.trace(run.run_id.replaceAll("-", ""));
    expect(
      spans.map((span) => span.name).filter((name) => name === run.assistant_name),
    ).toHaveLength(1);
    expect(new Set(spans.map((span) => span.attributes["user.id"]))).toEqual(
      new Set([run.user_id]),
    );
    expect(new Set(spans.map((span) => span.attributes["session.id"]))).toEqual(
      new Set([run.session_id]),
    );
    const inputs = spans.map((span) => String(span.attributes["langfuse.observation.input"] ?? ""));
    const strangers = runs.filter(
      (other) => other !== run && inputs.some((input) => input.includes(other.run_id)),
    );
    expect(strangers).toEqual([]);
  }
});

test("two observers in one process keep to their own projects", async () => {
  const other: LangfuseReceiver = await openLangfuseReceiver({
    publicKey: "pk-other",
    secretKey: "sk-other",
  });
  const { observer } = await openObserver(other);
  bench.receiver.clear();
  const mine = observedRun();
  const theirs = observedRun();
  bench.observer.startRun(mine).end({ status: "success" });
  observer.startRun(theirs).end({ status: "success" });
  await Promise.all([bench.observer.flush(60_000), observer.flush(60_000)]);
  expect(bench.receiver.traceIds()).toEqual([mine.run_id.replaceAll("-", "")]);
  expect(other.traceIds()).toEqual([theirs.run_id.replaceAll("-", "")]);
  await observer.shutdown(1_000);
  await other.close();
});
