import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { loadGraphs } from "../../src/graphs/load.ts";
import { createGraphRegistry } from "../../src/graphs/registry.ts";
import { createTestDatabases } from "../support/databases.ts";
import { createClient, startServer } from "../support/server.ts";
import { openGraphs } from "./both.ts";
import { ORACLE_MODULES, installOracle, startOracle } from "./oracle.ts";

const OUR_MODULES = fileURLToPath(new URL("../../node_modules", import.meta.url));
const UUID = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gu;

/** Allows all, and writes down what it was asked. */
const AUTH = `
import { appendFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Auth } from "@langchain/langgraph-sdk/auth";
const file = fileURLToPath(new URL("./asked.jsonl", import.meta.url));
export const auth = new Auth()
  .authenticate(async () => ({ identity: "ada", permissions: ["p"] }))
  .on("*", ({ event, resource, action, value, user, permissions }) => {
    if (resource + ":" + action !== event || user.identity !== "ada" || permissions[0] !== "p") throw new Error(event);
    appendFileSync(file, JSON.stringify({ event, value }) + "\\n");
  });
`;

/** One event with its value, every id replaced. */
interface Asked {
  event: string;
  value: Record<string, unknown>;
}

/** A server and what its handlers were asked so far. */
interface Side {
  client: Client;
  file: string;
}

/** What is done, in this order; each finds what those before it have made. */
const STEPS: Record<string, (client: Client, made: Made) => Promise<unknown>> = {
  "create an assistant": async (client, made) => {
    const assistant = await client.assistants.create({
      graphId: "steps",
      metadata: { a: 1 },
      config: { tags: ["t"] },
      context: { c: 1 },
      name: "n",
      ifExists: "do_nothing",
    });
    made.assistantId = assistant.assistant_id;
  },
  "get an assistant": (client, made) => client.assistants.get(made.assistantId),
  "search assistants": (client) =>
    client.assistants.search({ graphId: "steps", metadata: { a: 1 }, limit: 2, offset: 1 }),
  "patch an assistant": (client, made) =>
    client.assistants.update(made.assistantId, { metadata: { b: 2 }, name: "m" }),
  "set an assistant's version": (client, made) => client.assistants.setLatest(made.assistantId, 1),
  "create a thread": async (client, made) => {
    const thread = await client.threads.create({ metadata: { a: 1 }, ifExists: "do_nothing" });
    made.threadId = thread.thread_id;
  },
  "get a thread": (client, made) => client.threads.get(made.threadId),
  "search threads": (client) =>
    client.threads.search({ metadata: { a: 1 }, status: "idle", limit: 2, offset: 1 }),
  "count threads": (client) => client.threads.count({ metadata: { a: 1 } }),
  "count assistants": (client) => client.assistants.count({ graphId: "steps" }),
  "patch a thread": (client, made) => client.threads.update(made.threadId, { metadata: { b: 2 } }),
  "start a run": async (client, made) => {
    const run = await client.runs.create(made.threadId, "steps", {
      input: { input: "x" },
      metadata: { r: 1 },
      multitaskStrategy: "enqueue",
      afterSeconds: 3600,
    });
    made.runId = run.run_id;
  },
  "get a run": (client, made) => client.runs.get(made.threadId, made.runId),
  "list runs": (client, made) => client.runs.list(made.threadId, { status: "pending" }),
  "cancel a run": (client, made) => client.runs.cancel(made.threadId, made.runId),
  "delete a run": (client, made) => client.runs.delete(made.threadId, made.runId),
  "start a run without a thread": (client) =>
    client.runs.create(null, "steps", { input: { input: "x" }, afterSeconds: 3600 }),
  "copy a thread": (client, made) => client.threads.copy(made.threadId),
  "put an item": (client) => client.store.putItem(["n", "m"], "k", { v: 1 }),
  "get an item": (client) => client.store.getItem(["n", "m"], "k"),
  "search items": (client) =>
    client.store.searchItems(["n"], { limit: 2, offset: 1, filter: { v: 1 } }),
  "list namespaces": (client) =>
    client.store.listNamespaces({ prefix: ["n"], maxDepth: 2, limit: 3, offset: 0 }),
  "delete an item": (client) => client.store.deleteItem(["n", "m"], "k"),
  "delete a thread": (client, made) => client.threads.delete(made.threadId),
  "delete an assistant": (client, made) => client.assistants.delete(made.assistantId),
};

interface Made {
  assistantId: string;
  threadId: string;
  runId: string;
}

/**
 * What the official server is asked besides: it looks at the thread again while it waits for an answer; it tells
 * of the config it will run with, and under which names it keeps it; and a copy's metadata has the copy's id.
 */
function withoutExtras(asked: Asked[]): unknown[] {
  const [first, ...more] = asked;
  return [first, ...more.filter(({ event }) => event !== "threads:read")].map((one) => {
    const { kwargs, metadata, ...value } = one!.value as {
      kwargs?: { input: unknown };
      metadata?: Record<string, unknown>;
    };
    const { thread_id: _copy, ...rest } = metadata ?? {};
    return {
      event: one!.event,
      value: {
        ...value,
        ...(metadata && { metadata: rest }),
        ...(kwargs && { input: kwargs.input }),
      },
    };
  });
}

/** What was opened, to be closed last first. A hook that is registered while another runs would never run. */
const opened: { close(): Promise<void> }[] = [];
afterAll(async () => {
  for (const one of opened.splice(0).toReversed()) await one.close();
});

describe("what the on handlers of the official dev server and of this one are asked", () => {
  const databases = createTestDatabases("postgres");
  let official: Record<string, Asked[]>;
  let ours: Record<string, Asked[]>;

  beforeAll(async () => {
    await installOracle();
    [official, ours] = await Promise.all([
      startOfficial().then(recordSteps),
      startOurs().then(recordSteps),
    ]);
  }, 600_000);

  it.each(Object.keys(STEPS))("%s", (step) => {
    expect(official[step]).not.toEqual([]);
    expect(withoutExtras(ours[step]!)).toEqual(withoutExtras(official[step]!));
  });

  async function open(modules: string): Promise<{ dir: string; file: string }> {
    const project = await openGraphs(modules);
    opened.push(project);
    await writeFile(join(project.dir, "auth.ts"), AUTH);
    return { dir: project.dir, file: join(project.dir, "asked.jsonl") };
  }

  async function startOfficial(): Promise<Side> {
    const { dir, file } = await open(ORACLE_MODULES);
    const oracle = await startOracle({
      cwd: dir,
      graphs: { steps: "./graphs.ts:steps" },
      workers: 1,
      auth: "./auth.ts:auth",
    });
    opened.push(oracle);
    return { client: createClient(oracle.url), file };
  }

  async function startOurs(): Promise<Side> {
    const { dir, file } = await open(OUR_MODULES);
    const spec = { id: "steps", path: join(dir, "graphs.ts"), exportName: "steps" };
    const graphs = createGraphRegistry(await loadGraphs([spec], { cwd: dir }));
    const module = { path: join(dir, "auth.ts"), exportName: "auth" };
    const { url } = await startServer(databases, graphs, {
      config: { auth: { module, disable_studio_auth: true } },
    });
    return { client: createClient(url), file };
  }
});

async function recordSteps({ client, file }: Side): Promise<Record<string, Asked[]>> {
  const made: Made = { assistantId: "", threadId: "", runId: "" };
  const asked: Record<string, Asked[]> = {};
  for (const [name, step] of Object.entries(STEPS)) {
    await writeFile(file, "");
    await step(client, made);
    const lines = (await readFile(file, "utf8")).trim().split("\n").filter(Boolean);
    asked[name] = lines.map((line) => JSON.parse(line.replaceAll(UUID, "<id>")) as Asked);
  }
  return asked;
}
