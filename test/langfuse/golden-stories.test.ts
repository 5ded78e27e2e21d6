import {
  Command,
  interrupt,
  MemorySaver,
  MessagesAnnotation,
  START,
  StateGraph,
} from "@langchain/langgraph";
import { createReactAgent } from "@langchain/langgraph/prebuilt";
import { HumanMessage } from "@langchain/core/messages";
import { tool } from "@langchain/core/tools";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { calls, FakeChatModel, says } from "../support/fake-chat-model.ts";
import { single, State } from "./graphs.ts";
import {
  newRunId,
  observedRun,
  openBench,
  runObserved,
  type Invocable,
  type TraceBench,
} from "./harness.ts";

let bench: TraceBench;
beforeAll(async () => {
  bench = await openBench();
});
afterAll(() => bench.close());

function asking() {
  return new StateGraph(State)
    .addNode("ask", () => ({ notes: [String(interrupt({ question: "Send the mail?" }))] }))
    .addNode("done", () => ({ count: 1 }))
    .addEdge(START, "ask")
    .addEdge("ask", "done")
    .compile({ checkpointer: new MemorySaver() });
}

test("an interrupt is no error, and its question is the output", async () => {
  const config = { configurable: { thread_id: "t1" } };
  const { text, expected } = await bench.trace("interrupt", asking(), {
    input: { count: 0 },
    config,
  });
  expect(text).toBe(expected);
});

test("a resumed run is a trace of its own that names the one it answers", async () => {
  const graph = asking();
  const config = { configurable: { thread_id: "t1" } };
  await graph.invoke({ count: 0 }, config);
  const resumed: Invocable = {
    invoke: (_input, options) => graph.invoke(new Command({ resume: "yes" }) as never, options),
  };
  const { text, expected } = await bench.trace("resume", resumed, {
    input: "yes",
    config,
    run: { resumed_from: "0199aaaa-0000-7000-8000-000000000001" },
  });
  expect(text).toBe(expected);
});

test("an approval inside a tool", async () => {
  const pay = tool(({ amount }) => `${String(interrupt({ approve: amount }))} paid`, {
    name: "pay",
    description: "Pays.",
    schema: z.object({ amount: z.number() }),
  });
  const graph = createReactAgent({
    llm: new FakeChatModel([calls("pay", { amount: 12 }), says("Done.")]),
    tools: [pay],
    checkpointer: new MemorySaver(),
  });
  const { text, expected } = await bench.trace("interrupt-in-tool", graph, {
    input: { messages: [new HumanMessage("Pay 12")] },
    config: { configurable: { thread_id: "t2" } },
  });
  expect(text).toBe(expected);
});

test("an error in a node", async () => {
  const graph = single(() => {
    throw new TypeError("no such city");
  });
  const { text, expected } = await bench.trace("error-in-node", graph, {
    input: { count: 0 },
    outcome: (error) => ({ status: "error", error, output: { count: 0, notes: [] } }),
  });
  expect(text).toBe(expected);
});

test("an error in a tool that the agent gets over", async () => {
  const flaky = tool(
    () => {
      throw new Error("the weather service is down");
    },
    { name: "weather", description: "Weather.", schema: z.object({ city: z.string() }) },
  );
  const graph = createReactAgent({
    llm: new FakeChatModel([calls("weather", { city: "Oslo" }), says("I cannot tell.")]),
    tools: [flaky],
  });
  const { text, expected } = await bench.trace("error-in-tool", graph, {
    input: { messages: [new HumanMessage("Weather?")] },
  });
  expect(text).toBe(expected);
});

test("a failed model call has no usage to be priced", async () => {
  const model = new FakeChatModel([new Error("429 too many requests")], { maxRetries: 0 });
  const graph = new StateGraph(MessagesAnnotation)
    .addNode("model", async (state, config) => ({
      messages: [await model.invoke(state.messages, config)],
    }))
    .addEdge(START, "model")
    .compile();
  const { text, expected } = await bench.trace("error-in-model", graph, {
    input: { messages: "hello" },
  });
  expect(text).toBe(expected);
});

/** A node that stops when it is told to, which it is `stop` that does, a moment after it has begun. */
function waiting(stop: () => void) {
  return single(
    (_state, config) =>
      new Promise((_resolve, reject) => {
        const { signal } = config as { signal: AbortSignal };
        signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
        setTimeout(stop, 20);
      }),
  );
}

test("a cancel is a warning", async () => {
  const stop = new AbortController();
  const graph = waiting(() => stop.abort(new Error("cancelled by the client")));
  const { text, expected } = await bench.trace("cancel", graph, {
    input: { count: 0 },
    run: { signal: stop.signal },
    config: { signal: stop.signal },
    outcome: { status: "cancelled", output: { count: 0, notes: [] } },
  });
  expect(text).toBe(expected);
});

test("a signal whose reason is no error is a cancel all the same", async () => {
  const stop = new AbortController();
  const graph = waiting(() => stop.abort({ kind: "cancel" }));
  const { text, expected } = await bench.trace("cancel-by-reason", graph, {
    input: { count: 0 },
    run: { signal: stop.signal },
    config: { signal: stop.signal },
    outcome: { status: "cancelled" },
  });
  expect(text).toBe(expected);
});

test("a rollback is a warning", async () => {
  const stop = new AbortController();
  const graph = waiting(() => stop.abort(new DOMException("stopped", "AbortError")));
  const { text, expected } = await bench.trace("rollback", graph, {
    input: { count: 0 },
    config: { signal: stop.signal },
    outcome: { status: "rolled_back" },
  });
  expect(text).toBe(expected);
});

test("a timeout is an error", async () => {
  const stop = new AbortController();
  const { signal } = stop;
  // As that of `AbortSignal.timeout`.
  const reason = new DOMException("The operation was aborted due to timeout", "TimeoutError");
  const graph = waiting(() => stop.abort(reason));
  const { text, expected } = await bench.trace("timeout", graph, {
    input: { count: 0 },
    run: { signal },
    config: { signal },
    outcome: (error) => ({ status: "timeout", error, output: { count: 0, notes: [] } }),
  });
  expect(text).toBe(expected);
});

test("what is still open when the run ends is ended with it", async () => {
  const never: Invocable = {
    invoke: async (_input, options) => {
      const stop = new AbortController();
      await new Promise<void>((begun) => {
        const hanging = single(() => {
          begun();
          return new Promise(() => {});
        });
        void hanging.invoke({ count: 0 }, { ...options, signal: stop.signal });
      });
      return {};
    },
  };
  const { text, expected } = await bench.trace("left-open", never, {
    input: { count: 0 },
    outcome: { status: "cancelled" },
  });
  expect(text).toBe(expected);
});

test("a lost worker, then a second attempt: one trace, one root", async () => {
  bench.receiver.clear();
  const run = observedRun({ input: { count: 0 } });
  const graph = single(() => ({ count: 1 }));
  const first = bench.observer.startRun(run);
  await graph.invoke({ count: 0 }, { callbacks: first.callbacks, runId: run.run_id });
  first.end({ status: "lost" });
  await bench.observer.flush(60_000);
  expect(
    bench.receiver.trace(first.traceId ?? "").filter((span) => span.parentSpanId === undefined),
  ).toEqual([]);

  const second = bench.observer.startRun({ ...run, attempt: 2, started_at: new Date() });
  const output = await graph.invoke(
    { count: 0 },
    {
      callbacks: second.callbacks,
      runId: run.run_id,
    },
  );
  second.end({ status: "success", output });
  expect(second.traceId).toBe(first.traceId);
  const { text, expected } = await bench.compare("lost-then-retried", first.traceId ?? "");
  expect(text).toBe(expected);
});

test("a second attempt after a crash that could say nothing", async () => {
  const created = new Date(Date.now() - 60_000);
  const { text, expected } = await bench.trace(
    "retry-after-crash",
    single(() => ({ count: 1 })),
    {
      input: { count: 0 },
      run: { attempt: 2, created_at: created },
    },
  );
  expect(text).toBe(expected);
});

test("a stateless run has no session of its own", async () => {
  const { text, expected } = await bench.trace(
    "stateless",
    single(() => ({ count: 1 })),
    {
      input: { count: 0 },
      run: { session_id: undefined },
    },
  );
  expect(text).toBe(expected);
});

test("an anonymous run has no user", async () => {
  const { text, expected } = await bench.trace(
    "anonymous",
    single(() => ({ count: 1 })),
    {
      input: { count: 0 },
      run: { user_id: undefined, trigger: "cron" },
    },
  );
  expect(text).toBe(expected);
});

test("a client can add to the trace, never overwrite it", async () => {
  const { text, expected } = await bench.trace(
    "forged-identity",
    single(() => ({ count: 1 })),
    {
      input: { count: 0 },
      run: {
        tags: ["user:mallory", "aegra_run", "run:0000", " Thread:stolen", "vip"],
        metadata: {
          run_id: "forged",
          user_id: "mallory",
          session_id: "stolen",
          langgraph_node: "forged",
          langfuseUserId: "mallory",
          api_key: "sk-123",
          note: "kept",
        },
        traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
      },
      config: {
        metadata: { langfuseSessionId: "stolen", langfuseUserId: "mallory", run_id: "forged" },
        tags: ["user:mallory"],
      },
    },
  );
  expect(text).toBe(expected);
});

test("a run id that is no UUID gives a trace id all the same", async () => {
  const { traceId } = await runObserved(
    bench.observer,
    single(() => ({ count: 1 })),
    {
      input: { count: 0 },
      run: { run_id: `job-${newRunId().slice(-6)}` },
    },
  );
  expect(traceId).toMatch(/^[0-9a-f]{32}$/);
});
