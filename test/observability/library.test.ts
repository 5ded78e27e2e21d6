import { execFile } from "node:child_process";
import { rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { Command, interrupt, MemorySaver, START, StateGraph } from "@langchain/langgraph";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { openTracing, type Tracing } from "../../src/observability/index.ts";
import { single, State } from "../langfuse/graphs.ts";
import { createLogCapture, newRunId } from "../langfuse/harness.ts";
import {
  openLangfuseReceiver,
  type LangfuseReceiver,
  type ReceivedSpan,
} from "../support/langfuse-receiver.ts";
import { QUESTION, toolAgent } from "./graphs.ts";

let receiver: LangfuseReceiver;
let tracing: Tracing;

const variables = () => ({
  LANGFUSE_LOGGING: "true",
  LANGFUSE_PUBLIC_KEY: receiver.publicKey,
  LANGFUSE_SECRET_KEY: receiver.secretKey,
  LANGFUSE_HOST: receiver.url,
  LANGFUSE_FLUSH_INTERVAL: "0.02",
});

beforeEach(async () => {
  receiver = await openLangfuseReceiver();
  tracing = await openTracing({ env: variables() });
});
afterEach(async () => {
  await tracing.close();
  expect(receiver.violations()).toEqual([]);
  await receiver.close();
});

const bare = (runId: string): string => runId.replaceAll("-", "");

async function rootOf(runId: string): Promise<ReceivedSpan> {
  const spans = await receiver.waitForTrace(bare(runId));
  return spans.find(({ parentSpanId }) => parentSpanId === undefined)!;
}

const asking = () =>
  new StateGraph(State)
    .addNode("ask", () => ({ notes: [String(interrupt("Go on?"))] }))
    .addEdge(START, "ask")
    .compile({ checkpointer: new MemorySaver() });

describe("a traced graph", () => {
  test("gives what the graph gives, and is one trace with session, user, tags and metadata", async () => {
    const agent = tracing.trace(toolAgent(), { name: "Sums", tags: ["ours"] });
    const runId = newRunId();
    const output = await agent.invoke(QUESTION, {
      runId,
      configurable: { thread_id: "t1", user_id: "ada" },
      tags: ["theirs"],
      metadata: { plan: "gold" },
    });
    expect(output.messages.at(-1)?.content).toBe("It is 3.");
    const { attributes, name } = await rootOf(runId);
    expect(name).toBe("Sums");
    expect(attributes).toMatchObject({
      "langfuse.trace.name": "Sums",
      "session.id": "t1",
      "user.id": "ada",
      "langfuse.observation.input": "What is 1 + 2?",
      "langfuse.observation.output": "It is 3.",
      "langfuse.trace.metadata.plan": "gold",
    });
    expect(attributes["langfuse.trace.tags"]).toEqual(
      expect.arrayContaining([
        "aegra_run",
        `run:${runId}`,
        "thread:t1",
        "user:ada",
        "ours",
        "theirs",
      ]),
    );
    const types = receiver
      .trace(bare(runId))
      .map((span) => span.attributes["langfuse.observation.type"]);
    const expected = ["agent", "chain", "chain", "chain", "generation", "generation", "tool"];
    expect(types.map(String).toSorted((left, right) => left.localeCompare(right))).toEqual(
      expected,
    );
  });

  test("streams as before, and its trace is the same", async () => {
    const agent = tracing.trace(toolAgent());
    const [streamed, invoked] = [newRunId(), newRunId()];
    const chunks = [];
    for await (const chunk of await agent.stream(QUESTION, { runId: streamed })) chunks.push(chunk);
    expect(chunks.map((chunk) => Object.keys(chunk)[0])).toEqual(["agent", "tools", "agent"]);
    await agent.invoke(QUESTION, { runId: invoked });
    await Promise.all([rootOf(streamed), rootOf(invoked)]);
    const shape = (runId: string): string =>
      receiver.formatTrace(bare(runId)).replaceAll(runId, "<run>");
    expect(shape(streamed)).toBe(shape(invoked));
  });

  test("events and batches are traced, one trace per run", async () => {
    const agent = tracing.trace(toolAgent());
    const runId = newRunId();
    const events = agent.streamEvents(QUESTION, { version: "v2", runId });
    let tools = 0;
    for await (const { event } of events) if (event === "on_tool_end") tools += 1;
    expect(tools).toBe(1);
    await rootOf(runId);
    expect(receiver.traceIds()).toHaveLength(1);
    await agent.batch([QUESTION, QUESTION]);
    expect(await tracing.flush()).toBe(true);
    expect(receiver.traceIds()).toHaveLength(3);
  });

  test("a stream that is left early is a cancelled run", async () => {
    const agent = tracing.trace(toolAgent());
    const runId = newRunId();
    for await (const _chunk of await agent.stream(QUESTION, { runId })) break;
    const { attributes } = await rootOf(runId);
    expect(attributes["langfuse.observation.level"]).toBe("WARNING");
  });

  test("errors pass through as they are, and read as what they are", async () => {
    const failure = new RangeError("too far");
    const failing = tracing.trace(
      single(() => {
        throw failure;
      }),
    );
    const [failed, timedOut, aborted] = [newRunId(), newRunId(), newRunId()];
    await expect(failing.invoke({ count: 1 }, { runId: failed })).rejects.toBe(failure);
    const waiting = tracing.trace(
      single((_state, { signal }: { signal?: AbortSignal }) => {
        return new Promise((_resolve, reject) => {
          signal?.addEventListener("abort", () => reject(signal.reason as Error));
        });
      }),
    );
    await waiting
      .invoke({ count: 1 }, { runId: timedOut, signal: AbortSignal.timeout(20) })
      .catch(() => {});
    const stop = new AbortController();
    const stopped = waiting.invoke({ count: 1 }, { runId: aborted, signal: stop.signal });
    stop.abort();
    await stopped.catch(() => {});
    const told = async (runId: string): Promise<unknown[]> => {
      const { attributes } = await rootOf(runId);
      return [
        attributes["langfuse.observation.level"],
        attributes["langfuse.trace.metadata.status"],
      ];
    };
    expect(await told(failed)).toEqual(["ERROR", "error"]);
    expect(await told(timedOut)).toEqual(["ERROR", "timeout"]);
    expect(await told(aborted)).toEqual(["WARNING", "cancelled"]);
  });

  test.each(["invoke", "stream"] as const)(
    "a question by %s is no error, and the answer names the run it answers",
    async (method) => {
      const graph = tracing.trace(asking());
      const configurable = { thread_id: "t2" };
      const [asked, answered] = [newRunId(), newRunId()];
      const run = async (input: unknown, runId: string): Promise<void> => {
        const config = { runId, configurable };
        if (method === "invoke") await graph.invoke(input as never, config);
        else for await (const _ of await graph.stream(input as never, config));
      };
      await run({ count: 1 }, asked);
      const question = (await rootOf(asked)).attributes;
      expect(question["langfuse.observation.output"]).toBe("Go on?");
      expect(question["langfuse.trace.metadata.status"]).toBe("interrupted");
      expect(question["langfuse.observation.level"] ?? "DEFAULT").toBe("DEFAULT");
      await run(new Command({ resume: "yes" }), answered);
      const answer = (await rootOf(answered)).attributes;
      expect(answer).toMatchObject({
        "langfuse.observation.input": "yes",
        "langfuse.trace.metadata.resumed_from": asked,
        "langfuse.trace.metadata.status": "success",
        "session.id": "t2",
      });
    },
  );

  test("keeps its other methods, and the graph itself stays untraced", async () => {
    const graph = asking();
    const traced = tracing.trace(graph);
    const config = { configurable: { thread_id: "t3" } };
    await graph.invoke({ count: 1 }, config);
    expect((await traced.getState(config)).next).toEqual(["ask"]);
    expect(traced.getName()).toBe(graph.getName());
    expect(traced).toBeInstanceOf(graph.constructor);
    const runId = newRunId();
    const named = traced.withConfig({ runName: "Named", runId } as never);
    await named.invoke({ count: 1 }, { configurable: { thread_id: "t4" } });
    await tracing.flush();
    expect(receiver.traceIds()).toHaveLength(1);
  });

  test("inside another traced run it is a part of that run's trace", async () => {
    const inner = tracing.trace(
      single(() => ({ count: 2 }), "deep"),
      { name: "Inner" },
    );
    const outer = tracing.trace(
      single(async (state) => inner.invoke(state as never), "outside"),
      { name: "Outer" },
    );
    const runId = newRunId();
    await outer.invoke({ count: 1 }, { runId });
    await rootOf(runId);
    await tracing.flush();
    expect(receiver.traceIds()).toEqual([bare(runId)]);
    expect(receiver.spans.map(({ name }) => name)).toContain("deep");
  });

  test("a run that opts out is not traced", async () => {
    const graph = tracing.trace(single(() => ({ count: 1 })));
    await graph.invoke({ count: 1 }, { metadata: { aegra_trace: false } });
    await tracing.flush();
    expect(receiver.spans).toEqual([]);
  });
});

test("a graph's own config counts like that of its calls, which outrank it", async () => {
  const carried = {
    runName: "Bound",
    tags: ["carried"],
    metadata: { plan: "gold", region: "eu" },
    configurable: { thread_id: "t9", user_id: "ada" },
  };
  const agents = [
    tracing.trace(toolAgent()).withConfig(carried),
    tracing.trace(toolAgent().withConfig(carried) as ReturnType<typeof toolAgent>),
  ];
  for (const agent of agents) {
    const runId = newRunId();
    await agent.invoke(QUESTION, { runId, tags: ["called"], metadata: { plan: "silver" } });
    const { attributes } = await rootOf(runId);
    expect(attributes).toMatchObject({
      "langfuse.trace.name": "Bound",
      "session.id": "t9",
      "user.id": "ada",
      "langfuse.trace.metadata.plan": "silver",
      "langfuse.trace.metadata.region": "eu",
    });
    expect(attributes["langfuse.trace.tags"]).toEqual(
      expect.arrayContaining(["carried", "called"]),
    );
  }
});

test("an agent that has its name among its options is called by it", async () => {
  const graph = toolAgent();
  // As LangChain's `createAgent` gives it.
  const agent = {
    options: { name: "support_agent" },
    graph,
    invoke: (input: never, config: object) => graph.invoke(input, config),
  };
  const runId = newRunId();
  await tracing.trace(agent).invoke(QUESTION as never, { runId });
  expect((await rootOf(runId)).name).toBe("support_agent");
});

describe("opening", () => {
  test("without variables graphs run untraced", async () => {
    const off = await openTracing({ env: {} });
    const output = await off.trace(single(() => ({ count: 1 }))).invoke({ count: 1 });
    expect(output).toMatchObject({ count: 2 });
    expect(off.status()).toEqual([]);
    await off.close();
  });

  test("a wrong variable is an error that names it", async () => {
    await expect(openTracing({ env: { OTEL_TARGETS: "jaeger" } })).rejects.toThrow("jaeger");
  });

  test("missing keys are said once, and nothing else happens", async () => {
    const { log, lines } = createLogCapture();
    const idle = await openTracing({ env: { LANGFUSE_LOGGING: "true" }, log });
    await idle.trace(single(() => ({ count: 1 }))).invoke({ count: 1 });
    expect(lines.map(({ msg }) => msg)).toEqual([expect.stringContaining("LANGFUSE_PUBLIC_KEY")]);
    await idle.close();
  });
});

const run = promisify(execFile);
const JITI = fileURLToPath(new URL("../../node_modules/jiti/lib/jiti-cli.mjs", import.meta.url));
const EXAMPLE = fileURLToPath(new URL("../../examples/observability", import.meta.url));
const SOURCE = fileURLToPath(new URL("../../src/observability/index.ts", import.meta.url));

/** A process of its own, which gets nothing of this one's environment but what it needs. */
function script(args: string[], env: Record<string, string>) {
  const { PATH, HOME } = process.env;
  return run(process.execPath, [JITI, ...args], {
    cwd: EXAMPLE,
    env: { PATH, HOME, JITI_ALIAS: JSON.stringify({ "aegra/observability": SOURCE }), ...env },
  });
}

test("the example traces both of its runs, in one session", async () => {
  const { stdout } = await script(["main.ts"], variables());
  expect(stdout).toContain('"value":"Refund 1 EUR for order 1001?"');
  expect(stdout).toContain('chunk: {"approve":{"decision":"yes"}}');
  expect(stdout).toMatch(/langfuse: Traces go to/);
  const roots = receiver.spans
    .filter(({ parentSpanId }) => parentSpanId === undefined)
    .toSorted((left, right) => Number(left.startNs - right.startNs));
  expect(roots.map(({ attributes }) => attributes)).toMatchObject([
    {
      "langfuse.trace.name": "Approvals",
      "session.id": "order-1001",
      "user.id": "ada",
      "langfuse.observation.output": "Refund 1 EUR for order 1001?",
    },
    { "session.id": "order-1001", "langfuse.observation.input": "yes" },
  ]);
  const answer = roots[1]?.attributes["langfuse.trace.metadata.resumed_from"];
  expect(bare(String(answer))).toBe(roots[0]?.traceId);
});

test("the example runs the same without variables", async () => {
  const { stdout, stderr } = await script(["main.ts"], {});
  expect(stdout).toContain('chunk: {"approve":{"decision":"yes"}}');
  expect(stderr).toBe("");
});

test("what waits is sent when a script ends without closing", async () => {
  const code = `import { openTracing } from "aegra/observability";
    import { graph } from "${EXAMPLE}/graph.ts";
    const tracing = await openTracing();
    const traced = tracing.trace(graph(undefined));
    await traced.invoke({ order: "1001" }).catch(() => {});`;
  const file = `${EXAMPLE}/.unclosed.test.mts`;
  await writeFile(file, code);
  try {
    await script([file], { ...variables(), LANGFUSE_FLUSH_INTERVAL: "2" });
  } finally {
    await rm(file);
  }
  expect(receiver.spans.length).toBeGreaterThan(1);
});
