import { cp } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { Client } from "@langchain/langgraph-sdk";
import { afterEach, describe, expect, test } from "vitest";

import { runCli } from "../fixtures/cli.ts";
import type { CliProcess } from "../fixtures/cli.ts";
import { openProject } from "../fixtures/project.ts";
import { createTestDatabases } from "../support/databases.ts";

const databases = createTestDatabases("postgres");
const closers: (() => Promise<unknown>)[] = [];

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

/** Serves a copy, without the .env and the data somebody may have made in the example. */
async function start(example: string, env: Record<string, string> = {}): Promise<CliProcess> {
  const { databaseUrl, dataDir } = await databases.configure();
  const project = await openProject();
  closers.push(project.close);
  await cp(fileURLToPath(new URL(`../../examples/${example}`, import.meta.url)), project.dir, {
    recursive: true,
    filter: (path) => ![".env", ".aegra", "node_modules"].includes(basename(path)),
  });
  const cli = runCli(["dev", "--port", "0", "--no-reload"], {
    cwd: project.dir,
    env: { DATABASE_URL: databaseUrl ?? "", AEGRA_DATA_DIR: dataDir, ...env },
  });
  closers.push(cli.close);
  return cli;
}

interface Message {
  type: string;
  content: string;
  tool_calls?: { name: string; args: unknown }[];
  usage_metadata?: { input_tokens: number; output_tokens: number; total_tokens: number };
}

function human(content: string): { messages: { role: string; content: string }[] } {
  return { messages: [{ role: "user", content }] };
}

describe("examples/agent", () => {
  test("streams its answer word by word, and uses its tool", async () => {
    const client = new Client({ apiUrl: await (await start("agent")).ready() });
    const { thread_id } = await client.threads.create();
    const words: string[] = [];
    let messages: Message[] = [];
    for await (const event of client.runs.stream(thread_id, "agent", {
      input: human("Where is order 1001?"),
      streamMode: ["messages-tuple", "values"],
    })) {
      if (event.event === "messages") words.push(event.data[0].content as string);
      if (event.event === "values") ({ messages } = event.data as { messages: Message[] });
    }
    expect(words.length).toBeGreaterThan(15);
    expect(messages.map(({ type, content }) => [type, content])).toEqual([
      ["human", "Where is order 1001?"],
      ["ai", "Let me look that up. "],
      ["tool", "Order 1001: a blue kettle, 39 EUR, on its way, arriving tomorrow."],
      ["ai", expect.stringContaining("arriving tomorrow")],
    ]);
    expect(messages[1]?.tool_calls).toMatchObject([
      { name: "find_order", args: { order_id: "1001" } },
    ]);
    const usage = messages[3]?.usage_metadata;
    expect(usage?.input_tokens).toBeGreaterThan(10);
    expect(usage?.output_tokens).toBeGreaterThan(10);
  });

  test.each([
    [{ approved: true }, "Refunded 84 EUR for order 1002."],
    [{ approved: false, reason: "Too late." }, "The refund was declined. Too late."],
  ])("asks before it refunds: %j", async (resume, outcome) => {
    const client = new Client({ apiUrl: await (await start("agent")).ready() });
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "agent", { input: human("Refund order 1002, please") });
    const thread = await client.threads.get(thread_id);
    expect(thread.status).toBe("interrupted");
    expect(Object.values(thread.interrupts).flat()).toMatchObject([
      { value: { action: "refund_order", order_id: "1002" } },
    ]);
    const { messages } = (await client.runs.wait(thread_id, "agent", {
      command: { resume },
    })) as unknown as { messages: Message[] };
    expect(messages.find(({ type }) => type === "tool")?.content).toBe(outcome);
    expect((await client.threads.get(thread_id)).status).toBe("idle");
  });

  test("says what to install for a real model", async () => {
    const cli = await start("agent", { MODEL: "nobody:model-1" });
    await cli.ready();
    expect(cli.output()).toContain(
      "MODEL=nobody:model-1 needs two packages: npm install langchain @langchain/nobody",
    );
  });
});

test("examples/subgraph makes a graph for each run, from its config and context", async () => {
  const client = new Client({ apiUrl: await (await start("subgraph")).ready() });
  const nodes: string[] = [];
  for await (const { event, data } of client.runs.stream(null, "report", {
    input: { topic: "tea" },
    config: { configurable: { sources: 1 } },
    context: { audience: "cats" },
    streamMode: ["updates"],
    streamSubgraphs: true,
  })) {
    if (event.startsWith("updates")) nodes.push(...Object.keys(data as object));
  }
  expect(nodes).toEqual(["search", "summarise", "research", "write"]);
  expect(await client.runs.wait(null, "report", { input: { topic: "tea" } })).toMatchObject({
    report: [
      "Report on tea for everybody",
      "- source 1 about tea, in one line",
      "- source 2 about tea, in one line",
    ].join("\n"),
  });
});
