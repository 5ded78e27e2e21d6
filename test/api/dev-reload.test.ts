import { Client } from "@langchain/langgraph-sdk";
import { afterEach, beforeEach, expect, test } from "vitest";

import { eventually, runCli } from "../fixtures/cli.ts";
import type { CliProcess } from "../fixtures/cli.ts";
import { echoSource, openProject } from "../fixtures/project.ts";
import type { Project } from "../fixtures/project.ts";
import { createTestDatabases } from "../support/databases.ts";

const databases = createTestDatabases("postgres");

const CONFIG = { graphs: { agent: "./src/agent.ts:graph", other: "./src/other.ts:graph" } };

/** A graph that answers with a constant of another module. */
const AGENT = `import { answer } from "./lib/answer.ts";
${echoSource("?").replace('"?"', "answer")}
export const graph = builder;
`;

let project: Project;
let dev: CliProcess;
let url: string;
let client: Client;
const closers: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  project = await openProject({
    "aegra.json": CONFIG,
    "src/agent.ts": AGENT,
    "src/lib/answer.ts": answerSource("one"),
    "src/other.ts": `${echoSource("other")}\nexport const graph = builder;\n`,
  });
  closers.push(project.close);
});

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

function answerSource(answer: string): string {
  return `export const answer: string = ${JSON.stringify(answer)};\n`;
}

function authSource(token: string): string {
  return `import { Auth, HTTPException } from "@langchain/langgraph-sdk/auth";
    import { PREFIX } from "./prefix.ts";
    export const auth = new Auth().authenticate((request: Request) => {
      if (request.headers.get("authorization") !== PREFIX + "${token}") throw new HTTPException(401);
      return "ada";
    });`;
}

function appSource(answer: string): string {
  return `import { Hono } from "hono";
    export const app = new Hono().get("/mine", (c) => c.text("${answer}"));`;
}

function plainSource(answer: string): string {
  return `export const answer = ${JSON.stringify(answer)};\n`;
}

function exportFrom(path: string): string {
  return `export { answer } from ${JSON.stringify(path)};\n`;
}

async function start(env: Record<string, string> = {}): Promise<void> {
  const { databaseUrl } = await databases.configure();
  dev = runCli(["dev", "--port", "0"], {
    cwd: project.dir,
    env: { DATABASE_URL: databaseUrl ?? "", ...env },
  });
  closers.push(dev.close);
  url = await dev.ready();
  client = new Client({ apiUrl: url });
}

function ask(graph = "agent"): Promise<unknown> {
  return client.runs.wait(null, graph, { input: {} });
}

test("a changed dependency takes effect; threads, streams and runs in flight go on", async () => {
  await project.write(
    "src/other.ts",
    `import { existsSync } from "node:fs";
     import { answer } from "./lib/answer.ts";
     import { Annotation, StateGraph } from "@langchain/langgraph";
     const State = Annotation.Root({ answer: Annotation<string> });
     export const graph = new StateGraph(State)
       .addNode("begin", () => ({ answer: "begun with " + answer }))
       .addNode("wait", async () => {
         while (!existsSync(${JSON.stringify(project.path("go"))})) await new Promise((r) => setTimeout(r, 20));
         return { answer: "ended with " + answer };
       })
       .addEdge("__start__", "begin")
       .addEdge("begin", "wait");`,
  );
  await start();
  const { thread_id } = await client.threads.create();
  expect(await client.runs.wait(thread_id, "agent", { input: {} })).toEqual({ answer: "one" });

  const streaming = await client.threads.create();
  const answers: unknown[] = [];
  const stream = client.runs.stream(streaming.thread_id, "other", {
    input: {},
    streamMode: "updates",
  });
  for await (const event of stream) {
    if (event.event !== "updates") continue;
    answers.push(...Object.values(event.data as Record<string, unknown>));
    if (answers.length > 1) continue;
    // In the middle of the stream the source changes, and the change is in force before the run ends.
    await project.write("src/lib/answer.ts", answerSource("two"));
    await dev.waitFor(/Reloaded agent, other in \d+ ms\./u);
    expect(await client.runs.wait(thread_id, "agent", { input: {} })).toEqual({ answer: "two" });
    await project.write("go", "");
  }
  expect(answers).toEqual([{ answer: "begun with one" }, { answer: "ended with one" }]);
  expect(await ask("other")).toEqual({ answer: "ended with two" });
  expect((await client.threads.getState(thread_id)).values).toEqual({ answer: "two" });
});

test("a graph that no longer loads is reported, the others go on, and it comes back", async () => {
  await start();
  await project.write("src/lib/answer.ts", "export const answer: string = ;\n");
  await dev.waitFor(
    /Reloaded other in \d+ ms\.\nagent: src\/lib\/answer\.ts:1:31: SyntaxError: Unexpected token\n +> 1 \| export const answer/u,
  );
  expect(await ask("other")).toEqual({ answer: "other" });
  await expect(ask()).rejects.toThrow("failed to load: SyntaxError");

  // Another mistake, in a module that was never loaded before.
  await project.write("src/lib/answer.ts", 'export { answer } from "./deeper.ts";\n');
  await dev.waitFor(/agent: src\/lib\/answer\.ts:1: Cannot find module '\.\/deeper\.ts'/u);
  await project.write("src/lib/deeper.ts", answerSource("deep"));
  await dev.waitFor(/Reloaded agent, other/u);
  expect(await ask()).toEqual({ answer: "deep" });
});

test("files that no graph uses change nothing", async () => {
  await start();
  const before = dev.output();
  await project.write("src/notes.txt", "x");
  await project.write("src/unused.ts", "export const x = 1;");
  await project.write("node_modules.ts", "export const x = 1;");
  await project.write("dist/agent.ts", "export const x = 1;");
  await project.write(".cache/agent.ts", "export const x = 1;");
  // What is written later is seen later, so after this reload the others would have been seen.
  await project.write("src/lib/answer.ts", answerSource("two"));
  await dev.waitFor(/Reloaded/u);
  expect(await ask()).toEqual({ answer: "two" });
  const reloads = dev
    .output()
    .slice(before.length)
    .match(/Reloaded|restarting/gu);
  expect(reloads).toEqual(["Reloaded"]);
});

test("a folder that is new is watched too", async () => {
  await start();
  await project.write("fresh/deep/answer.ts", answerSource("fresh"));
  await project.write(
    "src/lib/answer.ts",
    'export { answer } from "../../fresh/deep/answer.ts";\n',
  );
  await dev.waitFor(/Reloaded/u);
  expect(await ask()).toEqual({ answer: "fresh" });
  await project.write("fresh/deep/answer.ts", answerSource("fresher"));
  // The one reload may have been two, if the new folder's file was seen after the change that names it.
  await eventually("the new folder's change", async () => {
    const { answer } = (await ask()) as { answer: string };
    return answer === "fresher" || undefined;
  });
});

test("a module outside the project's folder is watched", async () => {
  const outside = await openProject({ "lib/answer.ts": answerSource("outside") });
  closers.push(outside.close);
  await project.write("src/lib/answer.ts", exportFrom(outside.path("lib/answer.ts")));
  await start();
  expect(await ask()).toEqual({ answer: "outside" });
  await outside.write("lib/answer.ts", answerSource("changed"));
  await dev.waitFor(/Reloaded/u);
  expect(await ask()).toEqual({ answer: "changed" });
});

test("a change of .env restarts the server on the same port, and says so", async () => {
  await project.write(
    "src/other.ts",
    `${echoSource("?").replace('"?"', "`greeting ${process.env.GREETING}`")}\nexport const graph = builder;\n`,
  );
  await start();
  const { thread_id } = await client.threads.create();
  await client.runs.wait(thread_id, "agent", { input: {} });
  expect(await ask("other")).toEqual({ answer: "greeting undefined" });

  await project.write(".env", "GREETING=hello\n");
  await dev.waitFor(/\.env changed: restarting the server\./u);
  expect(await dev.ready()).toBe(url);
  expect(await ask("other")).toEqual({ answer: "greeting hello" });
  expect((await client.threads.getState(thread_id)).values).toEqual({ answer: "one" });

  await project.delete(".env");
  await dev.waitFor(/\.env changed: restarting the server\./u);
  expect(await dev.ready()).toBe(url);
  expect(await ask("other")).toEqual({ answer: "greeting undefined" });
});

test("a configuration that is broken on the way is waited for", async () => {
  await start();
  await project.write("aegra.json", "{ not json");
  await dev.waitFor(/aegra\.json changed: restarting/u);
  await dev.waitFor(/aegra\.json:1:3: is not valid JSON[^]*Waiting for a change\./u);
  await project.write("aegra.json", { graphs: { only: "./src/other.ts:graph" } });
  expect(await dev.ready()).toBe(url);
  expect(await ask("only")).toEqual({ answer: "other" });
  await expect(ask("agent")).rejects.toThrow("404");
  dev.process.kill("SIGTERM");
  expect(await dev.exited).toBe(0);
});

test("a change of the authentication handler, or of the routes, restarts the server", async () => {
  await project.write("src/prefix.ts", 'export const PREFIX: string = "Bearer ";');
  await project.write("src/auth.ts", authSource("first"));
  await project.write("src/app.ts", appSource("one"));
  await project.write("aegra.json", {
    ...CONFIG,
    auth: { path: "./src/auth.ts:auth" },
    http: { app: "./src/app.ts:app", enable_custom_route_auth: false },
  });
  await start();
  const status = async (authorization: string): Promise<number> =>
    (await fetch(`${url}/threads`, { method: "POST", body: "{}", headers: { authorization } }))
      .status;
  expect(await status("Bearer first")).toBe(200);
  await project.write("src/auth.ts", authSource("second"));
  await dev.waitFor(/src\/auth\.ts changed, which is not only used by graphs: restarting/u);
  expect(await dev.ready()).toBe(url);
  expect([await status("Bearer first"), await status("Bearer second")]).toEqual([401, 200]);
  await project.write("src/prefix.ts", 'export const PREFIX: string = "Token ";');
  await dev.waitFor(/src\/prefix\.ts changed, which is not only used by graphs: restarting/u);
  expect(await dev.ready()).toBe(url);
  expect([await status("Bearer second"), await status("Token second")]).toEqual([401, 200]);
  expect(await (await fetch(`${url}/mine`)).text()).toBe("one");
  await project.write("src/app.ts", appSource("two"));
  await dev.waitFor(/src\/app\.ts changed, which is not only used by graphs: restarting/u);
  expect(await dev.ready()).toBe(url);
  expect(await (await fetch(`${url}/mine`)).text()).toBe("two");
});

test("plain JavaScript, which cannot be loaded twice, restarts the server", async () => {
  await project.write("src/lib/plain.mjs", plainSource("plain"));
  await project.write("src/lib/answer.ts", 'export { answer } from "./plain.mjs";\n');
  await start();
  expect(await ask()).toEqual({ answer: "plain" });
  await project.write("src/lib/plain.mjs", plainSource("changed"));
  await dev.waitFor(
    /src\/lib\/plain\.mjs changed, and plain JavaScript is loaded once per process/u,
  );
  expect(await dev.ready()).toBe(url);
  expect(await ask()).toEqual({ answer: "changed" });
});

test("--no-reload leaves everything as it is", async () => {
  const { databaseUrl } = await databases.configure();
  dev = runCli(["dev", "--port", "0", "--no-reload"], {
    cwd: project.dir,
    env: { DATABASE_URL: databaseUrl ?? "" },
  });
  closers.push(dev.close);
  client = new Client({ apiUrl: await dev.ready() });
  await project.write("src/lib/answer.ts", answerSource("two"));
  await project.write(".env", "X=1");
  // Longer than a watcher would need; the answers in between show that the server works.
  for (let i = 0; i < 20; i++) expect(await ask()).toEqual({ answer: "one" });
  expect(dev.output()).not.toMatch(/Reloaded|restarting/u);
});

test("many quick changes end with the last one", async () => {
  await start();
  for (let i = 0; i <= 20; i++)
    await project.write("src/lib/answer.ts", answerSource(`version ${i}`));
  await eventually("the last version answers", async () => {
    const { answer } = (await ask()) as { answer: string };
    return answer === "version 20" ? true : undefined;
  });
});
