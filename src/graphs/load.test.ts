import { BaseMessage } from "@langchain/core/messages";
import { Pregel } from "@langchain/langgraph/pregel";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { echoSource, openProject } from "../../test/fixtures/project.ts";
import type { Project } from "../../test/fixtures/project.ts";
import { forgetModules, loadExport } from "../modules/load.ts";
import { loadGraph, loadGraphs } from "./load.ts";
import { createGraphRegistry } from "./registry.ts";
import type { LoadedGraph } from "./registry.ts";

let project: Project;

beforeEach(async () => {
  project = await openProject();
});

afterEach(async () => {
  await project.close();
});

function load(file: string, exportName = "graph"): Promise<LoadedGraph> {
  return loadGraph({ id: "g", path: project.path(file), exportName }, { cwd: project.dir });
}

async function invoke(loaded: LoadedGraph, configurable: Record<string, unknown> = {}) {
  const registry = createGraphRegistry([loaded]);
  const graph = await registry.bind("g", {
    config: { configurable },
    access: "threads.create_run",
    context: { tenant: "t" },
    checkpointer: undefined,
    store: undefined,
  });
  return graph.invoke({});
}

async function failure(file: string, exportName = "graph") {
  const loaded = await load(file, exportName);
  if (loaded.kind !== "failed") throw new Error(`expected a failure, got a ${loaded.kind}`);
  return loaded.error;
}

describe("what may be exported", () => {
  test.each([
    ["a compiled graph", "export const graph = builder.compile();"],
    ["a builder", "export const graph = builder;"],
    ["a promise of a graph", "export const graph = Promise.resolve(builder.compile());"],
    ["a promise of a builder", "export const graph = Promise.resolve(builder);"],
    ["a factory of a graph", "export const graph = () => builder.compile();"],
    ["a factory of a builder", "export function graph() { return builder; }"],
    ["an asynchronous factory", "export async function graph() { return builder.compile(); }"],
    ["an agent wrapper", "export const graph = { builder: {}, graph: builder.compile() };"],
    ["a factory of an agent wrapper", "export const graph = () => ({ graph: builder.compile() });"],
    ["after a top-level await", "await Promise.resolve(); export const graph = builder;"],
  ])("%s", async (_, source) => {
    await project.write("agent.ts", `${echoSource("hello")}\n${source}`);
    expect(await invoke(await load("agent.ts"))).toEqual({ answer: "hello" });
  });

  test("a default export, where no export is named", async () => {
    await project.write("agent.ts", `${echoSource("hello")}\nexport default builder.compile();`);
    expect(await invoke(await load("agent.ts", "default"))).toEqual({ answer: "hello" });
  });

  test("an entrypoint of the functional API", async () => {
    await project.write(
      "agent.ts",
      `import { entrypoint, task } from "@langchain/langgraph";
       const add = task("add", async (n: number) => n + 1);
       export const graph = entrypoint("flow", async (_: unknown) => ({ sum: await add(1) }));`,
    );
    expect(await invoke(await load("agent.ts"))).toEqual({ sum: 2 });
  });

  test("a plain JavaScript module", async () => {
    await project.write(
      "agent.mjs",
      `${echoSource("hello").replaceAll("<string>", "()")}\nexport const graph = builder;`,
    );
    expect(await invoke(await load("agent.mjs"))).toEqual({ answer: "hello" });
  });

  test.each([
    ["named", "exports.graph = builder;"],
    ["computed", 'module.exports = Object.fromEntries([["graph", builder]]);'],
  ])("a CommonJS module whose exports are %s", async (_, exporting) => {
    const source = echoSource("hello")
      .replace(/^import (.*) from (".*");/u, "const $1 = require($2);")
      .replaceAll("<string>", "()")
      .replace("export const", "const");
    await project.write("agent.cjs", `${source}\n${exporting}`);
    expect(await invoke(await load("agent.cjs"))).toEqual({ answer: "hello" });
  });

  test("a factory gets the config and the runtime", async () => {
    await project.write(
      "agent.ts",
      `import { Annotation, StateGraph } from "@langchain/langgraph";
       const State = Annotation.Root({ seen: Annotation<unknown> });
       export const graph = (config: unknown, runtime: unknown) =>
         new StateGraph(State)
           .addNode("a", () => ({ seen: { config, runtime } }))
           .addEdge("__start__", "a");`,
    );
    expect(await invoke(await load("agent.ts"), { model: "m" })).toEqual({
      seen: {
        config: { configurable: { model: "m" } },
        runtime: {
          accessContext: "threads.create_run",
          executionRuntime: { context: { tenant: "t" } },
        },
      },
    });
  });
});

describe("a project's modules", () => {
  test("share LangChain's classes with this process", async () => {
    await project.write(
      "agent.ts",
      `import { AIMessage } from "@langchain/core/messages";
       ${echoSource("x")}
       export const message = new AIMessage("hi");
       export const graph = builder.compile();`,
    );
    const message = await loadExport(
      { path: project.path("agent.ts"), exportName: "message" },
      { cwd: project.dir },
    );
    expect("value" in message && message.value).toBeInstanceOf(BaseMessage);
    const loaded = await load("agent.ts");
    expect(loaded.kind === "graph" && loaded.graph).toBeInstanceOf(Pregel);
  });

  test("are found through tsconfig paths, extended ones too", async () => {
    await project.write(
      "config/base.json",
      '{ /* a comment */ "compilerOptions": { "paths": { "@lib/*": ["../lib/*"] } } }',
    );
    await project.write("tsconfig.json", { extends: "./config/base.json" });
    await project.write("lib/answer.ts", 'export const answer: string = "from lib";');
    await project.write(
      "agent.ts",
      `import { answer } from "@lib/answer";
       ${echoSource("?").replace('"?"', "answer")}
       export const graph = builder.compile();`,
    );
    expect(await invoke(await load("agent.ts"))).toEqual({ answer: "from lib" });
  });

  test("are found through the tsconfig of the nearest package of a monorepo", async () => {
    await project.write("packages/a/tsconfig.json", {
      compilerOptions: { paths: { "#own": ["./own.ts"] } },
    });
    await project.write("packages/a/own.ts", 'export const answer = "a";');
    await project.write(
      "packages/a/agent.ts",
      `import { answer } from "#own";
       ${echoSource("?").replace('"?"', "answer")}
       export const graph = builder.compile();`,
    );
    expect(await invoke(await load("packages/a/agent.ts"))).toEqual({ answer: "a" });
  });

  test("are evaluated once, and again after they were forgotten", async () => {
    await project.write(
      "lib/answer.ts",
      'export const answer: string = "one"; export const mark = {};',
    );
    const source = `import { answer, mark } from "./lib/answer.ts";
      ${echoSource("?").replace('"?"', "answer")}
      export { mark };
      export const graph = builder.compile();`;
    await project.write("a.ts", source);
    await project.write("b.ts", source);
    const mark = async (file: string) => {
      const found = await loadExport(
        { path: project.path(file), exportName: "mark" },
        { cwd: project.dir },
      );
      return "value" in found ? found.value : undefined;
    };
    const before = await load("a.ts");
    expect(await mark("a.ts")).toBe(await mark("b.ts"));

    await project.write(
      "lib/answer.ts",
      'export const answer: string = "two"; export const mark = {};',
    );
    forgetModules();
    const after = await load("a.ts");
    expect(await invoke(after)).toEqual({ answer: "two" });
    expect(await invoke(before)).toEqual({ answer: "one" });
  });
});

describe("a graph that cannot be loaded is reported where it is wrong", () => {
  test("a syntax error, in the module or in one it imports", async () => {
    await project.write("agent.ts", "type A = string;\n\nexport const graph = {\n  a: ;\n};\n");
    const error = await failure("agent.ts");
    expect(error).toMatchObject({
      message: "SyntaxError: Unexpected token",
      file: project.path("agent.ts"),
      line: 4,
    });
    expect(error.excerpt).toContain("> 4 |   a: ;\n    |      ^");
    await project.write("outer.ts", 'import "./agent.ts";\nexport const graph = 1;\n');
    expect(await failure("outer.ts")).toMatchObject({ file: project.path("agent.ts"), line: 4 });
  });

  test("a throw while importing", async () => {
    await project.write(
      "lib/setup.ts",
      `interface Options {
  name: string;
}

export function setup(options: Options): never {
  throw new TypeError("no setup for " + options.name);
}
`,
    );
    await project.write(
      "agent.ts",
      'import { setup } from "./lib/setup.ts";\n\nexport const graph = setup({ name: "x" });\n',
    );
    expect(await failure("agent.ts")).toEqual({
      message: "TypeError: no setup for x",
      file: project.path("lib/setup.ts"),
      line: 6,
      column: undefined,
      excerpt: [
        "  5 | export function setup(options: Options): never {",
        '> 6 |   throw new TypeError("no setup for " + options.name);',
        "  7 | }",
      ].join("\n"),
    });
  });

  test("something thrown that is no Error", async () => {
    await project.write("agent.ts", 'throw "plain text";');
    expect(await failure("agent.ts")).toMatchObject({
      message: "plain text",
      file: project.path("agent.ts"),
    });
  });

  test("an import that is not installed", async () => {
    await project.write(
      "agent.ts",
      '\nimport { x } from "no-such-package";\nexport const graph = x;\n',
    );
    expect(await failure("agent.ts")).toMatchObject({
      message: "Cannot find module 'no-such-package'",
      file: project.path("agent.ts"),
      line: 2,
    });
  });

  test("a missing export", async () => {
    await project.write("agent.ts", "export const other = 1;\nexport const more = 2;\n");
    expect(await failure("agent.ts")).toMatchObject({
      message: 'has no export "graph"; it exports more, other',
      file: project.path("agent.ts"),
    });
    await project.write("empty.ts", "");
    expect((await failure("empty.ts")).message).toBe('has no export "graph"; it exports nothing');
  });

  test("a missing file", async () => {
    expect(await failure("nowhere.ts")).toMatchObject({
      message: "file does not exist",
      file: project.path("nowhere.ts"),
    });
  });

  test("a folder is a graph's place only with an index module", async () => {
    await project.write("lib/agent.ts", "export const graph = 1;\n");
    expect(await failure("lib")).toEqual({
      message: "is a folder without an index module; name a file in it",
      file: project.path("lib"),
      line: undefined,
      column: undefined,
      excerpt: undefined,
    });
    await project.write("lib/index.ts", `${echoSource("hello")}\nexport const graph = builder;`);
    expect(await invoke(await load("lib"))).toEqual({ answer: "hello" });
    await project.write("broken/index.ts", 'import "./absent.ts";\nexport const graph = 1;\n');
    expect((await failure("broken")).message).toContain("absent.ts");
  });

  test("a Python file", async () => {
    expect((await failure("agent.py")).message).toBe(
      "is a Python graph; this server runs LangGraph.js graphs",
    );
  });

  test.each([
    ["{ a: 1 }", "an object"],
    ["undefined", "undefined"],
    ["new Date()", "an instance of Date"],
    ['"text"', "a string"],
  ])("an export that is no graph: %s", async (value, described) => {
    await project.write("agent.ts", `const x = 1;\n\nexport const graph = ${value};\n`);
    const error = await failure("agent.ts");
    expect(error.message).toContain(`export "graph" is ${described}, not a graph`);
    expect(error).toMatchObject({ file: project.path("agent.ts"), line: 3 });
  });

  test("a builder that does not compile", async () => {
    await project.write(
      "agent.ts",
      `import { Annotation, StateGraph } from "@langchain/langgraph";

export const graph = new StateGraph(Annotation.Root({ a: Annotation<string> }))
  .addNode("lonely", () => ({}));
`,
    );
    const error = await failure("agent.ts");
    expect(error.message).toContain("lonely");
    expect(error).toMatchObject({ file: project.path("agent.ts"), line: 3 });
  });

  test("and does not stop the others", async () => {
    await project.write("bad.ts", 'throw new Error("bad");');
    await project.write("good.ts", `${echoSource("fine")}\nexport const graph = builder;`);
    const loaded = await loadGraphs(
      ["bad", "good"].map((id) => ({ id, path: project.path(`${id}.ts`), exportName: "graph" })),
      { cwd: project.dir },
    );
    expect(loaded.map((graph) => [graph.id, graph.kind])).toEqual([
      ["bad", "failed"],
      ["good", "graph"],
    ]);
    const registry = createGraphRegistry(loaded);
    expect(registry.failures().map(({ id, error }) => [id, error.message])).toEqual([
      ["bad", "bad"],
    ]);
  });

  test("and can be loaded once it is repaired", async () => {
    await project.write("agent.ts", 'throw new Error("bad");');
    expect((await failure("agent.ts")).message).toBe("bad");
    await project.write("agent.ts", `${echoSource("fine")}\nexport const graph = builder;`);
    forgetModules();
    expect(await invoke(await load("agent.ts"))).toEqual({ answer: "fine" });
  });
});
