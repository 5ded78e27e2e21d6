import { expect, test } from "vitest";
import { usageOf } from "./usage.ts";

const message = (fields: object) => ({ generations: [[{ text: "", message: fields }]] });
const standard = (usage: object) => usageOf(message({ usage_metadata: usage }));

test.each([
  ["nothing", undefined, undefined],
  ["no generations", { generations: [[]] }, undefined],
  ["null", null, undefined],
])("%s gives no usage", (_name, result, expected) => {
  expect(usageOf(result)).toBe(expected);
});

test("inclusive input and output are made exclusive", () => {
  const usage = standard({
    input_tokens: 100,
    output_tokens: 50,
    total_tokens: 150,
    input_token_details: { cache_read: 80, audio: 5 },
    output_token_details: { reasoning: 40 },
  });
  expect(usage).toEqual({
    input: 15,
    input_cache_read: 80,
    input_audio: 5,
    output: 10,
    output_reasoning: 40,
    total: 150,
  });
});

test("the lifetimes of Anthropic's cache are parts of its creation, not more of it", () => {
  const usage = standard({
    input_tokens: 1_000,
    output_tokens: 1,
    input_token_details: {
      cache_read: 100,
      cache_creation: 300,
      ephemeral_5m_input_tokens: 200,
      ephemeral_1h_input_tokens: 50,
    },
  });
  expect(usage).toEqual({
    input: 600,
    output: 1,
    input_cache_read: 100,
    input_cache_creation: 50,
    input_cache_creation_5m: 200,
    input_cache_creation_1h: 50,
    total: 1_001,
  });
});

test("a provider that counts its cache apart is not subtracted from", () => {
  expect(
    standard({ input_tokens: 10, output_tokens: 2, input_token_details: { cache_read: 500 } }),
  ).toEqual({
    input: 10,
    output: 2,
    input_cache_read: 500,
    total: 512,
  });
  const anthropic = { usage: { input_tokens: 3, output_tokens: 4, cache_read_input_tokens: 9 } };
  expect(usageOf(message({ response_metadata: anthropic }))).toEqual({
    input: 3,
    output: 4,
    input_cache_read: 9,
    total: 16,
  });
});

test("the ordinary modality gets no bucket of its own", () => {
  expect(
    standard({ input_tokens: 10, output_tokens: 2, input_token_details: { text: 7, image: 3 } }),
  ).toEqual({
    input: 7,
    output: 2,
    input_image: 3,
    total: 12,
  });
});

test("Bedrock, tokenUsage, llmOutput.usage and OpenAI's own names", () => {
  const bedrock = {
    usage: { inputTokens: 3, outputTokens: 4, totalTokens: 7, cacheWriteInputTokens: 2 },
  };
  expect(usageOf(message({ response_metadata: bedrock }))).toEqual({
    input: 3,
    output: 4,
    input_cache_creation: 2,
    total: 9,
  });
  expect(
    usageOf({ generations: [[{ text: "" }]], llmOutput: { tokenUsage: { promptTokens: 3 } } }),
  ).toEqual({
    input: 3,
    output: 0,
    total: 3,
  });
  const openai = {
    prompt_tokens: 10,
    completion_tokens: 5,
    prompt_tokens_details: { cached_tokens: 4 },
    completion_tokens_details: { reasoning_tokens: 3 },
  };
  expect(usageOf({ generations: [], llmOutput: { usage: openai } })).toEqual({
    input: 6,
    output: 2,
    input_cache_read: 4,
    output_reasoning: 3,
    total: 15,
  });
});

test("several prompts are summed, several answers to one prompt are not", () => {
  const one = { text: "", message: { usage_metadata: { input_tokens: 1, output_tokens: 2 } } };
  expect(usageOf({ generations: [[one, one], [one]] })).toEqual({ input: 2, output: 4, total: 6 });
});

test("broken figures are left out, and every bucket is an integer", () => {
  expect(standard({ input_tokens: "many", output_tokens: Number.NaN })).toBeUndefined();
  expect(standard({ input_tokens: 1.4, output_tokens: -3 })).toEqual({
    input: 1,
    output: 0,
    total: 1,
  });
});

test("Gemini's thoughts, which are in the total alone, are the reasoning", () => {
  const usage = standard({
    input_tokens: 100,
    output_tokens: 10,
    total_tokens: 135,
    input_token_details: { cache_read: 40 },
  });
  expect(usage).toEqual({
    input: 60,
    input_cache_read: 40,
    output: 10,
    output_reasoning: 25,
    total: 135,
  });
});

test("a total that has the cache on top tells that the input has it not", () => {
  const usage = standard({
    input_tokens: 100,
    output_tokens: 10,
    total_tokens: 150,
    input_token_details: { cache_read: 40 },
  });
  expect(usage).toEqual({ input: 100, input_cache_read: 40, output: 10, total: 150 });
});

test("the lifetimes of Anthropic's cache are found where LangChain leaves them", () => {
  const of = (creation: number) =>
    usageOf(
      message({
        usage_metadata: {
          input_tokens: 400,
          output_tokens: 1,
          total_tokens: 401,
          input_token_details: { cache_creation: creation },
        },
        response_metadata: {
          usage: {
            cache_creation: { ephemeral_5m_input_tokens: 200, ephemeral_1h_input_tokens: 100 },
          },
        },
      }),
    );
  expect(of(300)).toEqual({
    input: 100,
    input_cache_creation_5m: 200,
    input_cache_creation_1h: 100,
    output: 1,
    total: 401,
  });
  // Figures that do not agree are of something else.
  expect(of(250)).toMatchObject({ input_cache_creation: 250 });
});
