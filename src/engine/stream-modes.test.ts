import { AIMessage, AIMessageChunk, HumanMessage } from "@langchain/core/messages";
import { describe, expect, it } from "vitest";
import {
  MessageAccumulator,
  fromGraphChunk,
  needsEvents,
  toGraphModes,
  type GraphEvent,
} from "./stream-modes.ts";

const chunk = (mode: string, payload: unknown, namespace: string[] = []) => ({
  mode,
  payload,
  namespace,
});

describe("the modes asked of LangGraph", () => {
  it("have values among them, and none that is LangChain's", () => {
    expect(toGraphModes(["updates"])).toEqual(["values", "updates"]);
    expect(toGraphModes(["values", "messages-tuple", "custom"])).toEqual([
      "values",
      "messages",
      "custom",
    ]);
    expect(toGraphModes(["messages", "events"])).toEqual(["values"]);
  });

  it("need LangChain's events for messages and events alone", () => {
    expect(needsEvents(["values", "messages-tuple", "debug", "custom"])).toBe(false);
    expect(needsEvents(["values", "messages"])).toBe(true);
    expect(needsEvents(["events"])).toBe(true);
  });
});

describe("a chunk of LangGraph's stream", () => {
  it("goes out if its mode was asked for, under its mode and place", () => {
    expect(fromGraphChunk(chunk("values", { a: 1 }), ["updates"])).toEqual([]);
    expect(fromGraphChunk(chunk("updates", { a: 1 }), ["updates"])).toEqual([
      { event: "updates", data: { a: 1 } },
    ]);
    expect(fromGraphChunk(chunk("values", 1, ["a:1", "b:2"]), ["values"])).toEqual([
      { event: "values|a:1|b:2", data: 1 },
    ]);
    // LangGraph's messages are the API's message tuples, not its messages.
    expect(fromGraphChunk(chunk("messages", []), ["messages"])).toEqual([]);
    expect(fromGraphChunk(chunk("messages", [1, 2]), ["messages-tuple"])).toEqual([
      { event: "messages", data: [1, 2] },
    ]);
  });

  it("has LangGraph's internals and the user taken out", () => {
    const config = {
      configurable: {
        thread_id: "t",
        checkpoint_id: "c",
        __pregel_read: () => {},
        langgraph_auth_user: { identity: "ada" },
      },
      callbacks: [{}],
      tags: ["kept"],
    };
    const debug = {
      type: "checkpoint",
      step: 1,
      payload: {
        config,
        parentConfig: undefined,
        values: { a: 1 },
        tasks: [{ id: "1", state: config }],
      },
    };
    const [part] = fromGraphChunk(chunk("debug", debug), ["debug"]);
    expect(part!.data).toEqual({
      type: "checkpoint",
      step: 1,
      payload: {
        values: { a: 1 },
        config: { tags: ["kept"], configurable: { thread_id: "t", checkpoint_id: "c" } },
        parent_config: undefined,
        checkpoint: { thread_id: "t", checkpoint_id: "c", checkpoint_ns: "", checkpoint_map: null },
        parent_checkpoint: null,
        tasks: [
          {
            id: "1",
            checkpoint: {
              thread_id: "t",
              checkpoint_id: "c",
              checkpoint_ns: "",
              checkpoint_map: null,
            },
          },
        ],
      },
    });
    // What was handed over is the graph's own and stays as it is.
    expect(debug.payload.config).toBe(config);
    expect(Object.keys(config.configurable)).toHaveLength(4);
  });
});

describe("the messages mode", () => {
  const token = (id: string | undefined, content: string, tags: string[] = []): GraphEvent => ({
    event: "on_chat_model_stream",
    run_id: "r",
    tags,
    metadata: { langgraph_node: "model" },
    data: { chunk: new AIMessageChunk({ content, ...(id !== undefined && { id }) }) },
  });
  const contents = (parts: { data: unknown }[]) =>
    parts.flatMap(({ data }) => (data as { content: string }[]).map(({ content }) => content));

  it("tells of a message once, and then all of it so far with each token", () => {
    const messages = new MessageAccumulator();
    const first = messages.fromToken(token("m", "Hel"));
    expect(first.map(({ event }) => event)).toEqual(["messages/metadata", "messages/partial"]);
    expect(first[0]!.data).toEqual({ m: { metadata: { langgraph_node: "model" } } });
    const second = messages.fromToken(token("m", "lo"));
    expect(second.map(({ event }) => event)).toEqual(["messages/partial"]);
    expect(contents(second)).toEqual(["Hello"]);
    // Another message at the same time is another message.
    expect(contents(messages.fromToken(token("n", "Ho")).slice(1))).toEqual(["Ho"]);
    expect(contents(messages.fromToken(token("m", "!")))).toEqual(["Hello!"]);
  });

  it("says nothing of tokens without an id, or that are not to be streamed", () => {
    const messages = new MessageAccumulator();
    expect(messages.fromToken(token(undefined, "x"))).toEqual([]);
    expect(messages.fromToken(token("m", "x", ["nostream"]))).toEqual([]);
    expect(messages.fromToken({ ...token("m", "x"), data: {} })).toEqual([]);
  });

  it("tells of each whole message once", () => {
    const messages = new MessageAccumulator();
    const question = new HumanMessage({ id: "q", content: "Hi" });
    const answer = new AIMessage({ id: "a", content: "Hello" });
    expect(messages.fromChunk({ messages: [question] })).toEqual([
      { event: "messages/complete", data: [question] },
    ]);
    expect(contents(messages.fromChunk({ messages: [question, answer] }))).toEqual(["Hello"]);
    expect(messages.fromChunk({ messages: [question, answer] })).toEqual([]);
    expect(
      messages.fromChunk({ messages: new AIMessage({ id: "b", content: "One" }) }),
    ).toHaveLength(1);
    for (const other of [
      undefined,
      null,
      5,
      "x",
      [],
      {},
      { messages: "x" },
      answer,
      { messages: [{}] },
    ])
      expect(messages.fromChunk(other)).toEqual([]);
  });
});
