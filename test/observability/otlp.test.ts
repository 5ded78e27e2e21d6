import { Document } from "@langchain/core/documents";
import { HumanMessage } from "@langchain/core/messages";
import { BaseRetriever } from "@langchain/core/retrievers";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { loadOtlpObserver, type OtlpConfig } from "../../src/observability/otlp/observer.ts";
import { answerWith, single } from "../langfuse/graphs.ts";
import { createLogCapture, observedRun, runObserved } from "../langfuse/harness.ts";
import { FakeChatModel } from "../support/fake-chat-model.ts";
import type { ReceivedSpan } from "../support/langfuse-decode.ts";
import { openOtlpReceiver, type OtlpReceiver } from "../support/otlp-receiver.ts";
import { QUESTION, toolAgent } from "./graphs.ts";

let receiver: OtlpReceiver;
beforeEach(async () => {
  receiver = await openOtlpReceiver();
});
afterEach(() => receiver.close());

async function open(overrides: Partial<OtlpConfig> = {}) {
  const { log, lines } = createLogCapture();
  const config: OtlpConfig = {
    name: "otlp",
    url: `${receiver.url}/v1/traces`,
    protocol: "http/protobuf",
    headers: { "x-tenant": "acme" },
    resource: { "service.name": "shop" },
    timeoutMs: 60_000,
    flushIntervalMs: 20,
    version: "1.2.3",
    ...overrides,
  };
  return { observer: await loadOtlpObserver(config, { log }), lines };
}

async function trace(
  graph: Parameters<typeof runObserved>[1],
  options: Parameters<typeof runObserved>[2],
  overrides: Partial<OtlpConfig> = {},
): Promise<ReceivedSpan[]> {
  const { observer, lines } = await open(overrides);
  const { traceId } = await runObserved(observer, graph, options);
  expect(await observer.flush(60_000)).toBe(true);
  await observer.shutdown(1_000);
  expect(lines.filter(({ msg }) => msg.includes("error of its own"))).toEqual([]);
  return receiver.trace(traceId);
}

/** `name(children...)`, in order of start. */
function tree(spans: readonly ReceivedSpan[]): string {
  const below = (id: string | undefined): string =>
    spans
      .filter(({ parentSpanId }) => parentSpanId === id)
      .toSorted((left, right) => Number(left.startNs - right.startNs))
      .map(({ name, spanId }) => {
        const children = below(spanId);
        return children === "" ? name : `${name}(${children})`;
      })
      .join(", ");
  return below(undefined);
}

const named = (spans: readonly ReceivedSpan[], name: string): ReceivedSpan =>
  spans.find((span) => span.name === name) ??
  expect.fail(`no span ${name} among ${spans.map((span) => span.name).join(", ")}`);

const json = (value: unknown): unknown => JSON.parse(String(value));

describe.each(["http/protobuf", "http/json"] as const)(
  "the GenAI conventions by %s",
  (protocol) => {
    test("an agent with a tool: names, kinds, messages, usage", async () => {
      const spans = await trace(
        toolAgent(),
        { input: QUESTION, run: { metadata: { plan: "gold" }, tags: ["nightly"] } },
        { protocol },
      );
      expect(tree(spans)).toBe(
        "invoke_agent Weather agent(agent(chat fake-large), tools(execute_tool add), agent(chat fake-large))",
      );
      const root = named(spans, "invoke_agent Weather agent");
      expect(root).toMatchObject({
        scope: { name: "aegra", version: "1.2.3" },
        resource: { "service.name": "shop" },
        statusCode: 0,
      });
      expect(root.attributes).toMatchObject({
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "Weather agent",
        "gen_ai.conversation.id": "thread-1",
        "user.id": "alice",
        "aegra.metadata.plan": "gold",
        "aegra.metadata.status": "success",
      });
      expect(root.attributes["aegra.tags"]).toContain("nightly");
      expect(json(root.attributes["gen_ai.input.messages"])).toEqual([
        { role: "user", parts: [{ type: "text", content: "What is 1 + 2?" }] },
      ]);
      expect(json(root.attributes["gen_ai.output.messages"])).toEqual([
        { role: "assistant", parts: [{ type: "text", content: "It is 3." }] },
      ]);
      for (const span of spans) {
        expect(span.attributes["gen_ai.conversation.id"]).toBe("thread-1");
      }
      const [first, second] = spans
        .filter(({ name }) => name === "chat fake-large")
        .toSorted((left, right) => Number(left.startNs - right.startNs));
      // OTLP counts kinds from 1; 3 is a client.
      expect(first?.kind).toBe(3);
      expect(first?.attributes).toMatchObject({
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "FakeChatModel",
        "gen_ai.request.model": "fake-large",
        "gen_ai.request.temperature": 0.2,
        "gen_ai.request.max_tokens": 100,
        "gen_ai.request.seed": 7,
        "gen_ai.request.stop_sequences": ["END"],
        "langgraph.node": "agent",
      });
      expect(json(first?.attributes["gen_ai.output.messages"])).toEqual([
        {
          role: "assistant",
          parts: [{ type: "tool_call", id: "call-1", name: "add", arguments: { a: 1, b: 2 } }],
        },
      ]);
      expect(json(first?.attributes["gen_ai.tool.definitions"])).toMatchObject([
        { type: "function", name: "add" },
      ]);
      expect(json(second?.attributes["gen_ai.input.messages"])).toMatchObject([
        { role: "user" },
        { role: "assistant" },
        { role: "tool", parts: [{ type: "tool_call_response", id: "call-1", response: "3" }] },
      ]);
      expect(second?.attributes).toMatchObject({
        "gen_ai.response.model": "fake-large",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 40,
        "gen_ai.usage.output_tokens": 4,
      });
      const tool = named(spans, "execute_tool add");
      expect(tool.attributes).toMatchObject({
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "gen_ai.tool.call.id": "call-1",
        "gen_ai.tool.call.result": "3",
      });
      expect(json(tool.attributes["gen_ai.tool.call.arguments"])).toEqual({ a: 1, b: 2 });
      expect(JSON.stringify(spans.map(({ attributes }) => attributes))).not.toContain("langfuse");
    });

    test("an error is a status and an exception event, on every span it passed", async () => {
      const failing = single(() => {
        throw new RangeError("too far");
      });
      const spans = await trace(failing, { input: { count: 1 } }, { protocol });
      for (const span of spans) {
        expect(span).toMatchObject({ statusCode: 2, statusMessage: "RangeError: too far" });
        expect(span.attributes["error.type"]).toBe("RangeError");
        expect(span.events).toMatchObject([
          {
            name: "exception",
            attributes: {
              "exception.type": "RangeError",
              "exception.message": "RangeError: too far",
            },
          },
        ]);
        expect(span.events?.[0]?.timeNs).toBe(span.endNs);
      }
      // The stack is told once, where it happened.
      const stacks = spans.filter(({ events }) => "exception.stacktrace" in events![0]!.attributes);
      expect(stacks.map(({ name }) => name)).toEqual(["work"]);
    });
  },
);

test("requests carry this target's headers and the content type of their encoding", async () => {
  await trace(
    single(() => ({ count: 1 })),
    { input: { count: 1 } },
  );
  await trace(
    single(() => ({ count: 1 })),
    { input: { count: 1 } },
    { protocol: "http/json" },
  );
  expect(receiver.requests.map(({ path, headers }) => [path, headers["content-type"]])).toEqual([
    ["/v1/traces", "application/x-protobuf"],
    ["/v1/traces", "application/json"],
  ]);
  for (const { headers } of receiver.requests) {
    expect(headers["x-tenant"]).toBe("acme");
    expect(Object.keys(headers).filter((key) => key.includes("langfuse"))).toEqual([]);
  }
});

test("an interrupt is no error; a cancel is a warning without an error status", async () => {
  const asking = single(() => ({ count: 1 }));
  const asked = await trace(asking, {
    input: { count: 1 },
    outcome: { status: "interrupted", interrupts: [{ value: "Go on?" }] },
  });
  const root = asked.find(({ parentSpanId }) => parentSpanId === undefined);
  expect(root).toMatchObject({ statusCode: 0 });
  expect(json(root?.attributes["gen_ai.output.messages"])).toMatchObject([
    { parts: [{ content: "Go on?" }] },
  ]);
  const cancelled = await trace(asking, { input: { count: 1 }, outcome: { status: "cancelled" } });
  const stopped = cancelled.find(({ parentSpanId }) => parentSpanId === undefined);
  expect(stopped).toMatchObject({ statusCode: 0 });
  expect(stopped?.attributes).toMatchObject({
    "aegra.level": "WARNING",
    "aegra.status_message": "cancelled",
  });
});

test("usage counts what is in the cache once, inside the input", async () => {
  const model = new FakeChatModel([
    answerWith({
      usage_metadata: {
        input_tokens: 100,
        output_tokens: 50,
        total_tokens: 150,
        input_token_details: { cache_read: 60, cache_creation: 10 },
        output_token_details: { reasoning: 20 },
      },
    }),
  ]);
  const graph = single(async (_state, config) => {
    await model.invoke("hi", config);
    return {};
  });
  const { attributes } = named(await trace(graph, { input: {} }), "chat fake-large");
  expect(attributes).toMatchObject({
    "gen_ai.usage.input_tokens": 100,
    "gen_ai.usage.output_tokens": 50,
    "gen_ai.usage.cache_read.input_tokens": 60,
    "gen_ai.usage.cache_creation.input_tokens": 10,
    "gen_ai.usage.reasoning.output_tokens": 20,
  });
  const phoenix = await trace(graph, { input: {} }, { name: "phoenix" });
  expect(named(phoenix, "FakeChatModel").attributes).toMatchObject({
    "llm.token_count.prompt": 100,
    "llm.token_count.completion": 50,
    "llm.token_count.total": 150,
    "llm.token_count.prompt_details.cache_read": 60,
    "llm.token_count.completion_details.reasoning": 20,
  });
});

class Atlas extends BaseRetriever {
  lc_namespace = ["test"];
  override async _getRelevantDocuments(): Promise<Document[]> {
    return [new Document({ pageContent: "Oslo", id: "d1", metadata: { source: "atlas" } })];
  }
}

const searching = () =>
  single(async (_state, config) => {
    await new Atlas().invoke("capital of Norway", config);
    return {};
  });

test("a retriever is a retrieval with its documents", async () => {
  const { attributes, kind } = named(await trace(searching(), { input: {} }), "retrieval Atlas");
  expect(kind).toBe(3);
  expect(attributes).toMatchObject({
    "gen_ai.operation.name": "retrieval",
    "gen_ai.retrieval.query.text": "capital of Norway",
  });
  expect(json(attributes["gen_ai.retrieval.documents"])).toEqual([
    { id: "d1", content: "Oslo", metadata: { source: "atlas" } },
  ]);
});

test("Phoenix is told OpenInference", async () => {
  const spans = await trace(toolAgent(), { input: QUESTION }, { name: "phoenix" });
  expect(tree(spans)).toBe("Weather agent(agent(FakeChatModel), tools(add), agent(FakeChatModel))");
  const root = named(spans, "Weather agent").attributes;
  expect(root).toMatchObject({
    "openinference.span.kind": "AGENT",
    "session.id": "thread-1",
    "user.id": "alice",
    "input.value": "What is 1 + 2?",
    "input.mime_type": "text/plain",
    "output.value": "It is 3.",
  });
  expect(json(root["metadata"])).toMatchObject({ graph_id: "agent", status: "success" });
  const kinds = Object.fromEntries(
    spans.map(({ name, attributes }) => [name, attributes["openinference.span.kind"]]),
  );
  expect(kinds).toMatchObject({
    agent: "CHAIN",
    tools: "CHAIN",
    add: "TOOL",
    FakeChatModel: "LLM",
  });
  const models = spans
    .filter(({ name }) => name === "FakeChatModel")
    .toSorted((left, right) => Number(left.startNs - right.startNs));
  expect(models[0]?.attributes).toMatchObject({
    "llm.model_name": "fake-large",
    "llm.input_messages.0.message.role": "user",
    "llm.input_messages.0.message.content": "What is 1 + 2?",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "add",
    "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": '{"a":1,"b":2}',
  });
  expect(models[1]?.attributes).toMatchObject({
    "llm.input_messages.2.message.role": "tool",
    "llm.input_messages.2.message.tool_call_id": "call-1",
    "llm.output_messages.0.message.content": "It is 3.",
    "llm.token_count.total": 44,
  });
  expect(json(models[1]?.attributes["metadata"])).toMatchObject({
    langgraph_node: "agent",
    finish_reason: "stop",
  });
  const found = await trace(searching(), { input: {} }, { name: "phoenix" });
  expect(named(found, "Atlas").attributes).toMatchObject({
    "retrieval.documents.0.document.id": "d1",
    "retrieval.documents.0.document.content": "Oslo",
  });
});

test.each(["otlp", "phoenix"] as const)("%s: mask and capture hold here too", async (name) => {
  const run = { input: QUESTION, run: { user_id: "1 + 2", tags: ["1 + 2"] } };
  const open = await trace(toolAgent(), run, { name });
  expect(JSON.stringify(open.map(({ attributes }) => attributes))).toContain("1 + 2");
  const masked = await trace(toolAgent(), run, {
    name,
    mask: (text) => text.replaceAll("1 + 2", "***"),
  });
  expect(masked).toHaveLength(open.length);
  expect(JSON.stringify(masked.map(({ attributes }) => attributes))).not.toContain("1 + 2");
  const quiet = await trace(
    toolAgent(),
    { input: QUESTION },
    { name, capture: { input: false, output: false } },
  );
  const text = JSON.stringify(quiet.map(({ attributes }) => attributes));
  expect(text).not.toContain("1 + 2");
  expect(text).not.toContain("It is 3");
});

test("a caller's span is a link; as a parent it holds the run", async () => {
  const caller = { traceId: "4bf92f3577b34da6a3ce929d0e0e4736", spanId: "00f067aa0ba902b7" };
  const traceparent = `00-${caller.traceId}-${caller.spanId}-01`;
  const linked = await trace(
    single(() => ({})),
    { input: {}, run: { traceparent } },
  );
  const root = linked.find(({ parentSpanId }) => parentSpanId === undefined);
  expect(root?.links).toEqual([caller]);
  expect(root?.traceId).not.toBe(caller.traceId);
  const joined = await trace(
    single(() => ({})),
    {
      input: {},
      run: { traceparent, place: { trace_id: caller.traceId, parent_span_id: caller.spanId } },
    },
  );
  const top = joined.find(({ parentSpanId }) => parentSpanId === caller.spanId);
  expect(top).toMatchObject({ name: "invoke_agent Weather agent", traceId: caller.traceId });
  expect(top?.links).toBeUndefined();
});

test.each(["otlp", "phoenix"] as const)(
  "%s: a hostile value costs nothing but itself",
  async (name) => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    const cycle: Record<string, unknown> = { big: 2n ** 70n, bytes: Buffer.alloc(10), proxy };
    cycle["self"] = cycle;
    const trap = {
      get content(): never {
        throw new Error("no");
      },
      _getType: () => "human",
    };
    const message = new HumanMessage("\uD800 lone");
    Object.defineProperty(message, "content", {
      get() {
        throw new Error("no");
      },
    });
    const hostile = [cycle, proxy, trap, message, [proxy], "\uD800", 10n, Symbol("s"), null];
    const { observer, lines } = await open({ name });
    for (const value of hostile) {
      const observation = observer.startRun(
        observedRun({ input: value, metadata: { value }, tags: [String(typeof value)] }),
      );
      const [handler] = observation.callbacks as unknown as Record<
        string,
        (...args: unknown[]) => void
      >[];
      const start = [undefined, undefined, [], {}];
      handler?.["handleChatModelStart"]?.({}, [[value]], "m", ...start);
      handler?.["handleLLMEnd"]?.({ generations: [[{ message: value, text: value }]] }, "m");
      handler?.["handleRetrieverStart"]?.({}, "query", "r", undefined, [], {});
      handler?.["handleRetrieverEnd"]?.([value, { pageContent: "x", metadata: value }], "r");
      handler?.["handleToolStart"]?.({}, value, "t", undefined, [], {});
      handler?.["handleToolError"]?.(value, "t");
      observation.end({ status: "error", error: value, output: value });
    }
    expect(await observer.flush(60_000)).toBe(true);
    await observer.shutdown(1_000);
    expect(receiver.spans).toHaveLength(hostile.length * 4);
    expect(receiver.spans.filter(({ parentSpanId }) => parentSpanId === undefined)).toHaveLength(
      hostile.length,
    );
    expect(lines.filter(({ msg }) => msg.includes("error of its own"))).toEqual([]);
  },
);

test("a backend that is away: said once, nothing lost", async () => {
  receiver.status = 503;
  const { observer, lines } = await open();
  expect(observer.status()[0]?.message).toBe(
    `Traces will go to the OTLP backend at ${receiver.url}; none has been accepted yet.`,
  );
  await runObserved(
    observer,
    single(() => ({ count: 1 })),
    { input: {} },
  );
  await receiver.until(() => receiver.requests.length > 0);
  await expect.poll(() => observer.status()[0]?.state).toBe("unreachable");
  receiver.status = 200;
  expect(await observer.flush(60_000)).toBe(true);
  expect(receiver.spans).toHaveLength(2);
  expect(observer.status()[0]).toMatchObject({
    name: "otlp",
    state: "on",
    scores: false,
    spans: { made: 2, sent: 2, pending: 0, dropped: 0 },
  });
  expect(lines.filter(({ msg }) => msg.includes("does not accept traces"))).toHaveLength(1);
  expect(lines.filter(({ msg }) => msg.includes("accepts traces again"))).toHaveLength(1);
  await observer.shutdown(1_000);
});
