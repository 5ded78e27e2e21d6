import { readFile, symlink } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Client } from "@langchain/langgraph-sdk";
import { afterEach, beforeEach, expect, test } from "vitest";

import { loadGraphs } from "../../src/graphs/load.ts";
import { createGraphRegistry, type GraphRegistry } from "../../src/graphs/registry.ts";
import { createTypeSchemaCache } from "../../src/graphs/type-schema-cache.ts";
import { TypeSchemas, type TypeSchemasOptions } from "../../src/graphs/type-schemas.ts";
import { forgetModules } from "../../src/modules/load.ts";
import { eventually, runCli } from "../fixtures/cli.ts";
import { openProject, type Project } from "../fixtures/project.ts";

const MODULES = fileURLToPath(new URL("../../node_modules", import.meta.url));

const AGENT = `import { Annotation, StateGraph } from "@langchain/langgraph";
import type { City } from "./types.ts";
const State = Annotation.Root({ city: Annotation<City> });
const child = new StateGraph(State)
  .addNode("one", () => ({}))
  .addNode("two", () => ({}))
  .addEdge("__start__", "one")
  .addEdge("one", "two")
  .compile();
export const graph = new StateGraph(State)
  .addNode("first", () => ({ city: "Bern" }))
  .addNode("child", child)
  .addEdge("__start__", "first")
  .addEdge("first", "child")
  .compile();
`;

/** In place of the official extractor: the same export, arguments and answer, and as many reads of files. */
const EXTRACTOR = `import { appendFileSync, existsSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
export async function getStaticGraphSchema({ sourceFile, exportSymbol }) {
  const folder = dirname(sourceFile);
  appendFileSync(join(folder, "calls.log"), exportSymbol + "\\n");
  const does = readFileSync(join(folder, "does.txt"), "utf8");
  if (does === "crash") process.abort();
  if (does === "throw") throw new Error("Failed to find export");
  while (does === "hang");
  while (!existsSync(join(folder, "go"))) await new Promise((resolve) => setTimeout(resolve, 20));
  const title = readFileSync(join(folder, "types.ts"), "utf8").trim();
  const schema = (more) => ({ type: "object", properties: { city: { type: "string", title: title + more } } });
  const all = (more) => ({ state: schema(more), input: schema(more), output: schema(more), config: undefined });
  return { [exportSymbol]: all(""), [exportSymbol + "|child"]: all(" of the child") };
}
`;

let project: Project;
const closers: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  project = await openProject({});
  closers.push(project.close);
  // Packages of its own, among them one that this repository does not have.
  await project.delete("node_modules");
  const files = {
    "aegra.json": { graphs: { agent: "./agent.ts:graph" } },
    "agent.ts": AGENT,
    "types.ts": "export type City = string;\n",
    "does.txt": "answer",
    "node_modules/typescript/package.json": { name: "typescript", version: "5.9.3" },
    "node_modules/@langchain/langgraph-api/package.json": {
      name: "@langchain/langgraph-api",
      version: "1.5.1",
      type: "module",
      exports: { "./schema": "./schema.mjs", "./package.json": "./package.json" },
    },
    "node_modules/@langchain/langgraph-api/schema.mjs": EXTRACTOR,
  };
  for (const [name, content] of Object.entries(files)) await project.write(name, content);
  for (const name of ["@langchain/langgraph", "@langchain/core"]) {
    await symlink(join(MODULES, name), project.path(`node_modules/${name}`), "dir");
  }
});

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

async function calls(): Promise<number> {
  const text = await readFile(project.path("calls.log"), "utf8").catch(() => "");
  return text.split("\n").length - 1;
}

test("run time answers at once, types answer later, and the cache after a restart", async () => {
  const dev = runCli(["dev", "--port", "0"], { cwd: project.dir });
  closers.push(dev.close);
  const client = new Client({ apiUrl: await dev.ready() });
  const typed = { type: "string", title: "export type City = string;" };
  const ofChild = { ...typed, title: `${typed.title} of the child` };

  const early = await client.assistants.getSchemas("agent");
  expect(early.input_schema).toEqual({ type: "object", properties: { city: {} } });
  await project.write("go", "");
  const late = await eventually("schemas from types", async () => {
    const schemas = await client.assistants.getSchemas("agent");
    return JSON.stringify(schemas.input_schema).includes("City") ? schemas : undefined;
  });
  for (const schema of [late.input_schema, late.output_schema, late.state_schema])
    expect(schema?.properties).toEqual({ city: typed });
  expect(late.config_schema).toBeNull();
  const { child } = await client.assistants.getSubgraphs("agent");
  expect(child).toMatchObject({ input_schema: { properties: { city: ofChild } } });
  expect(await calls()).toBe(1);
  await dev.close();

  // In production the extractor need not be there.
  await project.delete("node_modules/@langchain/langgraph-api");
  const started = runCli(["start", "--host", "127.0.0.1", "--port", "0"], { cwd: project.dir });
  closers.push(started.close);
  const again = new Client({ apiUrl: await started.ready() });
  await eventually("schemas from the cache", async () => {
    const { input_schema } = await again.assistants.getSchemas("agent");
    return (
      JSON.stringify(input_schema?.properties) === JSON.stringify({ city: typed }) || undefined
    );
  });
});

async function load(ids = ["agent"]): Promise<GraphRegistry> {
  forgetModules();
  const graphs = ids.map((id) => ({ id, path: project.path("agent.ts"), exportName: "graph" }));
  return createGraphRegistry(await loadGraphs(graphs, { cwd: project.dir }));
}

async function open(options: Partial<TypeSchemasOptions> = {}) {
  const lines: string[] = [];
  const types = new TypeSchemas({
    cwd: project.dir,
    reading: "extract",
    cache: createTypeSchemaCache(project.path(".aegra/schemas"), project.dir),
    log: (level, message, { reason }: { reason?: unknown }) =>
      lines.push([level, message.replace(/\d+ ms/u, "n ms"), reason].filter(Boolean).join(": ")),
    quietMs: 0,
    ...options,
  });
  closers.push(() => types.close());
  types.replace(await load());
  const line = (wanted: string) =>
    eventually(wanted, () => lines.find((each) => each.includes(wanted)));
  return { types, lines, line };
}

const READ = 'debug: types of graph "agent" read in n ms';
const title = (types: TypeSchemas): unknown =>
  (types.of("agent")?.input as { properties: { city: { title: string } } } | undefined)?.properties
    .city.title;

test("what was read holds until a file it comes from changes, even one of types alone", async () => {
  await project.write("go", "");
  const first = await open();
  await first.line(READ);
  const second = await open();
  await eventually("the cache", () => second.types.of("agent"));
  expect(await calls()).toBe(1);

  await project.write("types.ts", "export type City = number;\n");
  second.types.replace(await load());
  await second.line(READ);
  expect(title(second.types)).toBe("export type City = number;");
  expect(await calls()).toBe(2);
});

test("of processes that share a folder one reads the types, for all", async () => {
  const both = [await open(), await open()];
  await eventually("a call", async () => ((await calls()) === 1 ? true : undefined));
  await project.write("go", "");
  for (const { types } of both) await eventually("types", () => types.of("agent"));
  expect(both.flatMap(({ lines }) => lines)).toEqual([READ]);
  expect(await calls()).toBe(1);
});

test.each([
  ["crash", 'info: types of graph "agent" are not read: it was ended by SIGABRT'],
  ["throw", 'info: types of graph "agent" are not read: Failed to find export'],
  ["hang", 'info: types of graph "agent" are not read: it took longer than 1.5 s'],
])("an extractor that does %s changes nothing but a line in the log", async (does, line) => {
  await project.write("does.txt", does);
  // On a busy machine a process takes its time to start: only who waits for the end of it is hurried.
  const { types, lines } = await open(does === "hang" ? { timeoutMs: 1_500 } : {});
  await eventually(line, () => (lines.includes(line) ? true : undefined));
  expect(types.of("agent")).toBeUndefined();
  // Not again for the same source; the second graph shows that the first had its turn.
  types.replace(await load(["agent", "other"]));
  const other = line.replace("agent", "other");
  await eventually(other, () => (lines.includes(other) ? true : undefined));
  expect(lines).toEqual([line, other]);
});

test("closing, and other graphs, end an extraction that is going on", async () => {
  await project.write("does.txt", "hang");
  const { types, lines } = await open();
  await eventually("a call", async () => ((await calls()) === 1 ? true : undefined));
  types.replace(await load());
  await eventually("another call", async () => ((await calls()) === 2 ? true : undefined));
  await types.close();
  expect(lines).toEqual([]);
});

test("nothing is extracted where it is switched off, not installed, or of another version", async () => {
  await project.write("go", "");
  const silent = [await open({ reading: "off" }), await open({ reading: "cached" })];
  const write = (name: string, version: string) =>
    project.write(`node_modules/${name}/package.json`, {
      name,
      version,
      exports: { "./schema": "./schema.mjs", "./package.json": "./package.json" },
    });
  await project.delete("node_modules/@langchain/langgraph-api/package.json");
  silent.push(await open());
  await write("@langchain/langgraph-api", "1.4.9");
  await (await open()).line("is 1.4.9; 1.5 or a newer 1.x is needed");
  await write("@langchain/langgraph-api", "1.5.1");
  await write("typescript", "7.0.2");
  await (await open()).line("needs typescript 5 or 6 and finds 7.0.2");
  await write("typescript", "6.0.0");
  // Had another one extracted, this one would find it in the cache, or the calls would be two.
  await (await open()).line(READ);
  expect(await calls()).toBe(1);
  expect(silent.flatMap(({ lines }) => lines)).toEqual([]);
});
