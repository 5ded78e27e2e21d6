import { Annotation, StateGraph } from "@langchain/langgraph";
import { expect, test } from "vitest";
import { z } from "zod";

import { isKnownAtRunTime, toGraphSchemas } from "./schemas.ts";
import { toTypedSchemas } from "./type-extractor.ts";
import type { CompiledGraph } from "./compiled.ts";

const Named = Annotation.Root({ city: Annotation<string>, messages: Annotation<object[]> });
const named = new StateGraph(Named)
  .addNode("only", () => ({ city: "Bern" }))
  .addEdge("__start__", "only")
  .compile() as unknown as CompiledGraph;
const State = z.object({ city: z.string() });
const typed = new StateGraph(State)
  .addNode("only", () => ({ city: "Bern" }))
  .addEdge("__start__", "only")
  .compile() as unknown as CompiledGraph;
const mixed = new StateGraph(State)
  .addNode("one", () => ({ city: "Bern" }))
  .addNode("inner", named)
  .addEdge("__start__", "one")
  .addEdge("one", "inner")
  .compile() as unknown as CompiledGraph;

const text = { type: "object", properties: { city: { type: "string", title: "of types" } } };
const model = { type: "object", properties: { model: { type: "string" } } };

test("types tell what run time does not", () => {
  expect(toGraphSchemas(named).input_schema).toEqual({
    type: "object",
    properties: { city: {}, messages: { type: "array", items: { type: "object" } } },
  });
  expect(toGraphSchemas(named, { input: text, config: model })).toMatchObject({
    input_schema: text,
    output_schema: { properties: { city: {} } },
    config_schema: model,
    context_schema: model,
  });
});

test("what run time tells outranks them", () => {
  const schemas = toGraphSchemas(typed, { input: text, output: text, state: text, config: model });
  for (const schema of [schemas.input_schema, schemas.output_schema, schemas.state_schema]) {
    expect(schema).toMatchObject({ properties: { city: { type: "string" } } });
    expect(schema).not.toMatchObject(text);
  }
  expect(schemas.config_schema).toEqual(model);
});

test("a graph is known at run time if all graphs in it are", async () => {
  expect(await isKnownAtRunTime(typed)).toBe(true);
  expect(await isKnownAtRunTime(named)).toBe(false);
  expect(await isKnownAtRunTime(mixed)).toBe(false);
});

test("an extracted schema without content is none", () => {
  const empty = { $schema: "http://json-schema.org/draft-07/schema#" };
  const hollow = { ...empty, type: "object", properties: {} };
  expect(toTypedSchemas({ input: empty, output: hollow, state: text, config: undefined })).toEqual({
    state: text,
  });
  expect(toTypedSchemas({ input: "text", output: null, state: [] })).toEqual({});
});

test("a message is an object, and the definitions only it used are gone", () => {
  const message = "BaseMessage<MessageStructure<MessageToolSet>,MessageType>";
  const address = { type: "object", properties: { next: { $ref: "#/definitions/Address" } } };
  const properties = {
    messages: { type: "array", items: { $ref: `#/definitions/${message}` } },
    address: { $ref: "#/definitions/Address" },
  };
  const definitions = {
    [message]: { oneOf: [{ $ref: "#/definitions/RemoveMessage" }] },
    RemoveMessage: { type: "object" },
    Address: address,
  };
  expect(toTypedSchemas({ input: { type: "object", properties, definitions } })).toEqual({
    input: {
      type: "object",
      properties,
      definitions: { [message]: { type: "object" }, Address: address },
    },
  });
});
