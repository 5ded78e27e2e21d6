import { expect, test } from "vitest";
import { toGraphSpecs } from "./graphs.ts";
import type { Problem } from "./problems.ts";

const file = {
  path: "/project/aegra.json",
  values: { graphs: { agent: { path: "./agent.ts:graph" }, other: { path: "./other.ts" } } },
  warnings: [],
} as unknown as Parameters<typeof toGraphSpecs>[0];

const read = (given: string | undefined) => {
  const problems: Problem[] = [];
  return { specs: toGraphSpecs(file, given, problems), problems };
};

test("a graph's own assistant is configured by LANGGRAPH_CONFIG", () => {
  const given = { agent: { configurable: { model: "small" }, context: { tone: "kind" } } };
  const { specs, problems } = read(JSON.stringify(given));
  expect(problems).toEqual([]);
  expect(specs).toEqual({
    agent: {
      id: "agent",
      path: "/project/agent.ts",
      exportName: "graph",
      defaults: { config: { configurable: { model: "small" } }, context: { tone: "kind" } },
    },
    other: { id: "other", path: "/project/other.ts", exportName: "default" },
  });
  expect(read(undefined).specs["agent"]).not.toHaveProperty("defaults");
});

test.each([
  ["{secret", "LANGGRAPH_CONFIG", /^must be JSON such as/],
  ['{"agent":{"recursion_limit":0}}', "LANGGRAPH_CONFIG.agent.recursion_limit", />=1/],
  ['{"agent":{"model":"small"}}', "LANGGRAPH_CONFIG.agent", /model/],
  ['{"agnet":{}}', "LANGGRAPH_CONFIG", /^names the graph "agnet", which is none of agent, other$/],
])("%s is refused, and not repeated", (given, key, message) => {
  expect(read(given).problems).toEqual([
    { source: "environment", key, message: expect.stringMatching(message) as string },
  ]);
  expect(JSON.stringify(read(given).problems)).not.toContain("secret");
});
