import {
  AIMessage,
  AIMessageChunk,
  ChatMessage,
  FunctionMessage,
  HumanMessage,
  RemoveMessage,
  SystemMessage,
  ToolMessage,
  ToolMessageChunk,
  type BaseMessage,
} from "@langchain/core/messages";
import fc from "fast-check";
import { expect, test } from "vitest";
import { flattenMessage } from "./message-json.ts";

const asLangChain = (message: BaseMessage): unknown => {
  const { type, data } = message.toDict();
  return JSON.parse(JSON.stringify({ ...data, type }));
};
const asHere = (message: BaseMessage): unknown => {
  const flat = flattenMessage(message);
  return flat === undefined ? undefined : JSON.parse(JSON.stringify(flat));
};

const usage = { input_tokens: 3, output_tokens: 4, total_tokens: 7 };
const MESSAGES: BaseMessage[] = [
  new HumanMessage("a text alone"),
  new HumanMessage({ content: [{ type: "text", text: "a part" }], id: "1", name: "ann" }),
  new SystemMessage({ content: "be kind", additional_kwargs: { __openai_role__: "developer" } }),
  new AIMessage({
    content: "",
    id: "2",
    tool_calls: [
      { name: "search", args: { q: { deep: [1, null, "x"] } }, id: "c", type: "tool_call" },
    ],
    invalid_tool_calls: [{ name: "s", args: "{", error: "no JSON", type: "invalid_tool_call" }],
    usage_metadata: { ...usage, input_token_details: { cache_read: 1 } },
    response_metadata: { model_name: "m", finish_reason: "stop" },
  }),
  new AIMessageChunk({
    content: "tok",
    id: "3",
    tool_call_chunks: [{ name: "s", args: '{"a', index: 0, id: "c", type: "tool_call_chunk" }],
    usage_metadata: usage,
  }),
  new AIMessageChunk("a").concat(new AIMessageChunk({ content: "b", id: "4" })),
  new ToolMessage({ content: "found", tool_call_id: "c", status: "error", artifact: { a: [1] } }),
  new ToolMessageChunk({ content: "part", tool_call_id: "c" }),
  new FunctionMessage({ content: "f", name: "fn" }),
  new ChatMessage({ content: "c", role: "critic" }),
  new RemoveMessage({ id: "5" }),
];

test.each(MESSAGES.map((message) => [message.getType(), message] as const))(
  "writes a message of type %s as LangChain does",
  (_type, message) => {
    expect(asHere(message)).toEqual(asLangChain(message));
    expect(Object.keys(asHere(message) as object)).toEqual(
      Object.keys(asLangChain(message) as object),
    );
  },
);

test("what a message has become since it was made is written", () => {
  const message = new AIMessage({ content: "old", id: "1" });
  message.content = "new";
  message.tool_calls = [{ name: "n", args: {}, id: "c" }];
  message._updateId("2");
  expect(asHere(message)).toEqual(asLangChain(message));
  expect(asHere(message)).toMatchObject({ content: "new", id: "2", tool_calls: [{ name: "n" }] });
});

test("whatever is in a message is written as LangChain does, or left to it", () => {
  const value = fc.anything({
    maxDepth: 4,
    withBigInt: false,
    withDate: true,
    withMap: true,
    withNullPrototype: true,
    key: fc.oneof(
      fc.string(),
      fc.constantFrom("lc", "__lc_escaped__", "toJSON", "camelCase", "a-b"),
    ),
  });
  fc.assert(
    fc.property(value, value, fc.string(), (content, extra, key) => {
      const message = new HumanMessage({
        content: content as string,
        additional_kwargs: { extra, [key]: extra },
        [key]: extra,
      });
      const here = asHere(message);
      if (here !== undefined) expect(here).toEqual(asLangChain(message));
    }),
    { numRuns: 2_000 },
  );
});

test("is left to LangChain: what it escapes, and classes that write themselves", () => {
  class Own extends HumanMessage {
    override get lc_attributes(): Record<string, unknown> {
      return { more: 1 };
    }
  }
  class Renamed extends HumanMessage {
    override get lc_aliases(): Record<string, string> {
      return { ...super.lc_aliases, name: "called" };
    }
  }
  const cyclic: Record<string, unknown> = {};
  cyclic["self"] = cyclic;
  for (const message of [
    new Own("x"),
    new Renamed({ content: "x", name: "n" }),
    new HumanMessage({ content: "x", additional_kwargs: { a: { lc: 1 } } }),
    new HumanMessage({ content: "x", additional_kwargs: { at: new Date(0) } }),
    new HumanMessage({ content: "x", additional_kwargs: cyclic }),
    new HumanMessage({ content: "x", additional_kwargs: { other: new HumanMessage("y") } }),
    new HumanMessage({ content: "x", camelCase: 1 } as never),
    new AIMessage({ contentBlocks: [{ type: "text", text: "blocks" }] }),
  ])
    expect(flattenMessage(message)).toBeUndefined();
  for (const other of [{}, [], new Date(0), new Map(), { lc_serializable: true, lc_kwargs: {} }])
    expect(flattenMessage(other)).toBeUndefined();
});
