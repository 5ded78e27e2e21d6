import { once } from "node:events";
import { createServer as createHttpServer } from "node:http";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { Client } from "@langchain/langgraph-sdk";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { eventually, runCli } from "../fixtures/cli.ts";
import type { CliProcess } from "../fixtures/cli.ts";
import { echoSource, openProject } from "../fixtures/project.ts";
import type { Project } from "../fixtures/project.ts";
import { createTestDatabases } from "../support/databases.ts";

const databases = createTestDatabases("postgres");

let project: Project;
const closers: (() => Promise<unknown>)[] = [];

beforeEach(async () => {
  project = await openProject({
    "aegra.json": { graphs: { agent: "./agent.ts:graph" } },
    "agent.ts": `${echoSource("hello")}\nexport const graph = builder.compile();\n`,
  });
  closers.push(project.close);
});

afterEach(async () => {
  for (const close of closers.splice(0).toReversed()) await close();
});

function run(args: string[], env: Record<string, string> = {}): CliProcess {
  const cli = runCli(args, { cwd: project.dir, env });
  closers.push(cli.close);
  return cli;
}

/** A migrated PostgreSQL of its own: it starts faster than a cold PGlite. */
async function postgres(): Promise<{ DATABASE_URL: string }> {
  const { databaseUrl } = await databases.configure();
  return { DATABASE_URL: databaseUrl ?? "" };
}

/** Runs a command that must fail, and gives what it printed. No expected failure shows a stack. */
async function refusal(args: string[], env: Record<string, string> = {}, exitCode = 1) {
  const cli = run(args, env);
  expect([await cli.exited, cli.output()]).toEqual([exitCode, expect.any(String)]);
  expect(cli.output()).not.toMatch(/^ +at /mu);
  return cli.output();
}

async function occupyPort(port: number): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once("listening", resolve);
    // Another program may have the port; what matters is that it is taken.
    server.once("error", (error: NodeJS.ErrnoException) =>
      error.code === "EADDRINUSE" ? resolve() : reject(error),
    );
    server.listen(port, "127.0.0.1");
  });
  if (!server.listening) return port;
  closers.push(() => once(server.close(), "close"));
  return (server.address() as AddressInfo).port;
}

describe("the command line", () => {
  test("explains itself", async () => {
    const help = run(["--help"]);
    expect(await help.exited).toBe(0);
    expect(help.output()).toMatch(/dev .*\n\s+start .*\n\s+db <action>/u);
    const version = run(["--version"]);
    expect(await version.exited).toBe(0);
    expect(version.output()).toMatch(/^aegra\/\d+\.\d+\.\d+/u);
    const devHelp = run(["dev", "--help"]);
    await devHelp.exited;
    expect(devHelp.output()).toMatch(/--no-reload +Do not watch for changes *$/mu);
  });

  test("refuses what it does not know", async () => {
    expect(await refusal(["serve"], {}, 2)).toContain('Unknown command "serve"');
    expect(await refusal(["start", "--prot", "1"], {}, 2)).toContain("Unknown option `--prot`");
    expect(await refusal(["db", "drop"], {}, 2)).toContain('Unknown action "drop"');
    const twice = ["dev", "--log-level", "info", "--log-level", "debug"];
    expect(await refusal(twice, {}, 2)).toContain("--log-level is given more than once");
  });

  test.each([
    ["start", "--port", "abc"],
    ["dev", "--port", "70000"],
    ["dev", "--no-reload", "--log-level", "loud"],
    ["start", "--role", "foo"],
    ["start", "--workers", "0"],
    ["start", "--processes", "0"],
    ["start", "--processes", "257"],
    ["traces", "flush", "--timeout", "abc"],
    ["traces", "flush", "--timeout", "-1"],
    ["start", "--workers", "-1"],
  ])("ends with 2 for a wrong value: %s %s %s", async (...args) => {
    const wrong = args.findLast((arg) => arg.startsWith("--"));
    expect(await refusal(args, {}, 2)).toContain(`${wrong} must be`);
  });

  test("ends with 1 where its values are right and something else is not", async () => {
    for (const args of [
      ["start", "--role", "worker"],
      ["start", "--processes", "2"],
    ]) {
      expect(await refusal(args)).toMatch(/DATABASE_URL/u);
    }
    expect(await refusal(["start", "--config", "absent.json"])).toContain("does not exist");
  });
});

describe("a start that cannot be", () => {
  test("without a config says what to write", async () => {
    await project.delete("aegra.json");
    for (const command of ["start", "dev"]) {
      expect(await refusal([command])).toContain(
        `${project.dir}: has no aegra.json or langgraph.json; create one such as`,
      );
    }
  });

  test("lists all problems at once", async () => {
    await project.write("aegra.json", { graphs: { agent: 1 }, port: "x" });
    await project.write(".env", "LANGFUSE_LOGGING=perhaps\n");
    const flags = ["--log-level", "loud", "--processes", "0"];
    const output = await refusal(["start", ...flags], { PORT: "99999" }, 2);
    expect(output).toContain("The configuration has 6 problems:");
    expect(output).toContain(`${project.path("aegra.json")}: graphs.agent `);
    expect(output).toContain('environment: LANGFUSE_LOGGING must be true or false, not "perhaps"');
    expect(output).toContain("environment: PORT must be a whole number");
    expect(output).toContain("command line: --log-level must be one of");
    expect(output).toContain("command line: --processes must be a whole number from 1 to 256");
  });

  test("on a port that somebody asked for and that is taken", async () => {
    const env = await postgres();
    const port = await occupyPort(0);
    const message = `Port ${port} is taken.`;
    const asked = ["--host", "127.0.0.1", "--port", String(port)];
    expect(await refusal(["start", ...asked], env)).toContain(message);
    expect(await refusal(["dev", ...asked], env)).toContain(message);
    const fromEnv = { ...env, PORT: String(port), HOST: "127.0.0.1" };
    expect(await refusal(["start"], fromEnv)).toContain(message);
    await project.write("aegra.json", { graphs: { agent: "./agent.ts:graph" }, port });
    expect(await refusal(["dev", "--no-reload"], env)).toContain(message);
  });

  test("on an address that is not this machine's", async () => {
    expect(await refusal(["start", "--host", "203.0.113.1"], await postgres())).toContain(
      "Cannot listen on 203.0.113.1",
    );
  });

  test("with an authentication handler that cannot load", async () => {
    await project.write("aegra.json", {
      graphs: { agent: "./agent.ts:graph" },
      auth: { path: "./auth.ts:auth" },
    });
    const env = await postgres();
    for (const command of ["start", "dev"]) {
      const missing = await refusal([command, "--port", "0"], env);
      expect(missing).toContain("The authentication handler cannot be loaded");
      expect(missing).toContain("auth.ts: file does not exist");
    }
    await project.write("auth.ts", "type T = string;\nthrow new Error('no secret');\n");
    const thrown = await refusal(["start", "--port", "0"], env);
    expect(thrown).toContain("auth.ts:2: no secret");
  });

  test("beside another server on the same folder", async () => {
    const first = run(["start", "--port", "0"]);
    await first.ready();
    expect(await refusal(["start", "--port", "0"])).toContain(project.path(".aegra/pglite"));
    expect(first.process.exitCode).toBeNull();
  });
});

describe("a server", () => {
  test("says where it is, keeps its database, and ends with 0 when asked to", async () => {
    await project.write("aegra.json", {
      graphs: { agent: "./agent.ts:graph", broken: "./broken.ts:graph" },
      surprise: true,
    });
    await project.write("broken.ts", "interface A {}\n\nexport const graph = missing;\n");
    const dev = run(["dev", "--port", "0"]);
    const url = await dev.ready();
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+$/u);
    const output = dev.output();
    expect(output).toContain(`Docs       ${url}/docs`);
    expect(output).toContain(`Studio     https://smith.langchain.com/studio/?baseUrl=${url}`);
    expect(output).toContain("Database   PGlite, .aegra/pglite");
    expect(output).toContain("Graphs     agent\n");
    expect(output).toContain("broken: broken.ts:3: ReferenceError: missing is not defined");
    expect(output).toContain("> 3 | export const graph = missing;");
    expect(output).toContain("Langfuse   off. To trace every run, put four lines into .env:");
    // It is logged, and what comes by another pipe than the banner may come later.
    const warning = '"surprise\\" is not a known option and has no effect';
    await eventually(warning, () => dev.output().includes(warning) || undefined);

    const client = new Client({ apiUrl: url });
    const { thread_id } = await client.threads.create();
    expect(await client.runs.wait(thread_id, "agent", { input: {} })).toEqual({ answer: "hello" });
    await expect(client.runs.wait(thread_id, "broken", { input: {} })).rejects.toThrow(
      'Graph \\"broken\\" failed to load: ReferenceError: missing is not defined',
    );
    dev.process.kill("SIGTERM");
    expect(await dev.exited).toBe(0);
    expect(dev.output()).toContain("SIGTERM: finishing runs and closing.");

    const start = run(["start", "--port", "0"]);
    const again = await start.ready();
    expect(again).toMatch(/^http:\/\/localhost:\d+$/u);
    const state = await new Client({ apiUrl: again }).threads.getState(thread_id);
    expect(state.values).toEqual({ answer: "hello" });
    start.process.kill("SIGINT");
    expect(await start.exited).toBe(0);
  });

  test("steps over a default port that is taken, and says so", async () => {
    await occupyPort(2024);
    const cli = run(["start", "--host", "127.0.0.1"], await postgres());
    const url = await cli.ready();
    expect(Number(new URL(url).port)).toBeGreaterThan(2024);
    const taken = "port 2024 is taken";
    await eventually(taken, () => cli.output().includes(taken) || undefined);
    expect((await fetch(`${url}/ok`)).status).toBe(200);
  });

  test("reads langgraph.json, .env and the environment, which wins", async () => {
    await project.delete("aegra.json");
    await project.write("langgraph.json", { graphs: { agent: "./agent.ts:graph" }, env: ".env" });
    await project.write(".env", "GREETING=from-file\nOTHER=from-file\nEMPTY=\n");
    await project.write(
      "agent.ts",
      `${echoSource("?").replace('"?"', "`${process.env.GREETING} ${process.env.OTHER} ${process.env.EMPTY}`")}
       export const graph = builder;`,
    );
    const cli = run(["start", "--port", "0"], { ...(await postgres()), GREETING: "from-env" });
    const client = new Client({ apiUrl: await cli.ready() });
    expect(await client.runs.wait(null, "agent", { input: {} })).toEqual({
      answer: "from-env from-file undefined",
    });
  });

  test("a step of many nodes does not look like a leak", async () => {
    await project.write(
      "agent.ts",
      `import { Annotation, Send, StateGraph } from "@langchain/langgraph";
       const State = Annotation.Root({
         seen: Annotation<number[]>({ reducer: (a, b) => a.concat(b), default: () => [] }),
         index: Annotation<number>(),
       });
       export const graph = new StateGraph(State)
         .addNode("worker", async ({ index }) => {
           await new Promise((resolve) => setTimeout(resolve, 10));
           return { seen: [index] };
         })
         .addConditionalEdges("__start__", () =>
           Array.from({ length: 50 }, (_, index) => new Send("worker", { index })))
         .compile();`,
    );
    const cli = run(["start", "--port", "0"], await postgres());
    const client = new Client({ apiUrl: await cli.ready() });
    const { seen } = (await client.runs.wait(null, "agent", { input: {} })) as { seen: number[] };
    expect(seen).toHaveLength(50);
    expect(cli.output()).not.toContain("MaxListenersExceededWarning");
  });

  test("prints logs as JSON to stdout and the banner to stderr where nobody watches", async () => {
    const cli = run(["start", "--port", "0"], await postgres());
    let stdout = "";
    cli.process.stdout?.on("data", (chunk: string) => (stdout += chunk));
    const url = await cli.ready();
    await new Client({ apiUrl: url }).runs.wait(null, "agent", { input: {} });
    await eventually("a log line of the run", () =>
      stdout.includes('"msg":"run"') ? true : undefined,
    );
    const lines = stdout.slice(0, stdout.lastIndexOf("\n")).split("\n");
    for (const line of lines) expect(JSON.parse(line)).toHaveProperty("level");
  });

  test("says how Langfuse is, without waiting for it", async () => {
    let answer: (() => void) | undefined;
    const langfuse = createHttpServer((request, response) => {
      // The check of the keys is answered when the test says so; everything else at once.
      if (!request.url?.startsWith("/api/public/projects"))
        return void response.writeHead(404).end();
      answer = () => {
        response.setHeader("content-type", "application/json");
        response.end(JSON.stringify({ data: [{ id: "p1", name: "Shop" }] }));
      };
    }).listen(0, "127.0.0.1");
    closers.push(async () => {
      langfuse.closeAllConnections();
      await once(langfuse.close(), "close");
    });
    await once(langfuse, "listening");
    const host = `http://127.0.0.1:${(langfuse.address() as AddressInfo).port}`;
    await project.write(
      ".env",
      `LANGFUSE_LOGGING=true\nLANGFUSE_PUBLIC_KEY=pk-lf-1\nLANGFUSE_SECRET_KEY=sk-lf-1\nLANGFUSE_HOST=${host}\nLANGFUSE_TIMEOUT=60\n`,
    );
    const cli = run(["start", "--port", "0"], await postgres());
    const url = await cli.ready();
    expect((await fetch(`${url}/ok`)).status).toBe(200);
    await cli.waitFor(/^ {3}checking/u);
    await eventually("the keys are checked", () => (answer ? true : undefined));
    answer?.();
    await cli.waitFor(/Langfuse {3}on, .*Shop/u);
    expect(cli.output()).not.toContain("sk-lf-1");
  });

  test("authenticates with the handler of the config", async () => {
    await project.write("aegra.json", {
      graphs: { agent: "./agent.ts:graph" },
      auth: { path: "./auth.ts:auth" },
    });
    await project.write(
      "auth.ts",
      `import { Auth, HTTPException } from "@langchain/langgraph-sdk/auth";
       export const auth = new Auth().authenticate((request: Request) => {
         if (request.headers.get("authorization") !== "Bearer good")
           throw new HTTPException(401, { message: "who are you?", headers: { "www-authenticate": "Bearer" } });
         return "ada";
       });`,
    );
    const cli = run(["start", "--port", "0"], await postgres());
    const url = await cli.ready();
    const refused = await fetch(`${url}/threads/search`, { method: "POST", body: "{}" });
    expect([refused.status, refused.headers.get("www-authenticate")]).toEqual([401, "Bearer"]);
    expect(await refused.json()).toMatchObject({ detail: "who are you?" });
    const headers = { authorization: "Bearer good" };
    const client = new Client({ apiUrl: url, defaultHeaders: headers });
    expect(await client.runs.wait(null, "agent", { input: {} })).toEqual({ answer: "hello" });
    expect((await fetch(`${url}/ok`)).status).toBe(200);
    expect(cli.output()).not.toContain("no authentication");
  });

  test("ends at once on the second signal, though a run is not done", async () => {
    await project.write(
      "agent.ts",
      `${echoSource("x").replace("() => (", "async () => (await new Promise((r) => setTimeout(r, 600_000)), ")}
       export const graph = builder;`,
    );
    const env = await postgres();
    for (const command of ["start", "dev"]) {
      const cli = run([command, "--port", "0"], env);
      const client = new Client({ apiUrl: await cli.ready() });
      const { thread_id } = await client.threads.create();
      const { run_id } = await client.runs.create(thread_id, "agent", { input: {} });
      await eventually("the run runs", async () => {
        const { status } = await client.runs.get(thread_id, run_id);
        return status === "running" ? true : undefined;
      });
      cli.process.kill("SIGINT");
      await cli.waitFor(/SIGINT: finishing runs/u);
      cli.process.kill("SIGINT");
      expect(await cli.exited).toBe(130);
    }
  });

  test("of dev does not outlive the process that holds the terminal", async () => {
    const cli = run(["dev", "--port", "0"], await postgres());
    const url = await cli.ready();
    cli.process.kill("SIGKILL");
    await eventually("the server is gone", () =>
      fetch(`${url}/ok`).then(
        () => undefined,
        () => true,
      ),
    );
  });

  test("stays up when graph code leaves a rejection unhandled", async () => {
    await project.write(
      "agent.ts",
      `${echoSource("x").replace("() => (", "() => (void Promise.reject(new Error('forgotten')), ")}
       export const graph = builder;`,
    );
    const cli = run(["start", "--port", "0"], await postgres());
    const client = new Client({ apiUrl: await cli.ready() });
    await client.runs.wait(null, "agent", { input: {} });
    await cli.waitFor(/forgotten/u);
    expect(await client.runs.wait(null, "agent", { input: {} })).toEqual({ answer: "x" });
  });
});

test("an error that nothing can catch ends the server in order, with 1", async () => {
  await project.write(
    "agent.ts",
    `${echoSource("x").replace("() => (", "() => (void setTimeout(() => { throw new Error('loose'); }), ")}
     export const graph = builder;`,
  );
  const cli = run(["start", "--port", "0"], await postgres());
  const client = new Client({ apiUrl: await cli.ready() });
  await client.runs.create(null, "agent", { input: {} });
  expect(await cli.exited).toBe(1);
  expect(cli.output()).toContain("an error was thrown outside of any request or run; closing");
  expect(cli.output()).toContain("loose");
});

test("aegra db migrate brings a database up to date, without a config file", async () => {
  await project.delete("aegra.json");
  const first = run(["db", "migrate"]);
  expect(await first.exited).toBe(0);
  expect(first.output()).toMatch(/The database at \S+ was migrated: 0001/u);
  const second = run(["db", "migrate"]);
  expect(await second.exited).toBe(0);
  expect(second.output()).toContain("is up to date");
});
