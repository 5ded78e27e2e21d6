import { spawn, type ChildProcess } from "node:child_process";
import { randomBytes } from "node:crypto";
import { cp, mkdir, mkdtemp, realpath, symlink, writeFile } from "node:fs/promises";
import { createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { ORACLE_MODULES, installOracle, startOracle } from "../test/differential/oracle.ts";
import { execute, startPostgres } from "../test/support/postgres-server.ts";
import { end, startChild } from "./child.ts";

/** What is measured: a server at a URL, or the graphs in a process of their own. */
export interface Target {
  name: string;
  /** The process that does the work. */
  pid: number;
  /** `undefined` for the graphs themselves. */
  url: string | undefined;
  /** Asks the target itself, where it is not a server. */
  ask?: <Answer>(question: object) => Promise<Answer>;
  close: () => Promise<void>;
}

export interface TargetOptions {
  /** A folder for projects and databases; removed by the caller. */
  folder: string;
  /** Where Langfuse stands in. */
  langfuseUrl: string;
  /** Where CPU profiles of our servers are written; none without it. */
  profiles?: string | undefined;
}

const ROOT = fileURLToPath(new URL("..", import.meta.url));
const READY_MS = 60_000;
/** As many runs at a time as the official server executes by default. */
const WORKERS = 10;

export const TARGETS: Record<string, (options: TargetOptions) => Promise<Target>> = {
  raw: async () => {
    // Otherwise LangGraph loses the tokens of runs that share a process and never wait for anything.
    const child = startChild("raw.ts", { LANGCHAIN_CALLBACKS_BACKGROUND: "false" });
    return { name: "raw", pid: child.pid, url: undefined, ask: child.ask, close: child.close };
  },
  pglite: (options) => startAegra("pglite", options, {}),
  "pglite-traced": (options) => startAegra("pglite-traced", options, langfuse(options)),
  postgres: (options) => startOnPostgres("postgres", options, {}),
  "postgres-traced": (options) => startOnPostgres("postgres-traced", options, langfuse(options)),
  official: async ({ folder }) => {
    await installOracle();
    const cwd = await createProject(folder, "official", ORACLE_MODULES);
    const graphs = { five: "./graphs.ts:five", tokens: "./graphs.ts:tokens" };
    const oracle = await startOracle({ cwd, graphs, workers: WORKERS });
    return { name: "official", ...oracle };
  },
};

function langfuse({ langfuseUrl }: TargetOptions): Record<string, string> {
  return {
    LANGFUSE_LOGGING: "true",
    LANGFUSE_PUBLIC_KEY: "pk-lf-bench",
    LANGFUSE_SECRET_KEY: "sk-lf-bench",
    LANGFUSE_HOST: langfuseUrl,
  };
}

/** Starts the built server as its users do, on the bench's project. */
async function startAegra(
  name: string,
  options: TargetOptions,
  variables: Record<string, string>,
): Promise<Target> {
  const cwd = await createProject(options.folder, name, join(ROOT, "node_modules"));
  await writeFile(
    join(cwd, "aegra.json"),
    JSON.stringify({ graphs: { five: "./graphs.ts:five", tokens: "./graphs.ts:tokens" } }),
  );
  const port = await freePort();
  const profile = options.profiles
    ? ["--cpu-prof", `--cpu-prof-dir=${options.profiles}`, `--cpu-prof-name=${name}.cpuprofile`]
    : [];
  const child = spawn(
    process.execPath,
    [
      ...profile,
      join(ROOT, "dist/cli/main.js"),
      "start",
      "--cwd",
      cwd,
      "--host",
      "127.0.0.1",
      "--port",
      String(port),
    ],
    // Its own environment, so that no setting of this shell changes what is measured.
    { stdio: ["ignore", "ignore", "inherit"], env: { PATH: process.env["PATH"], ...variables } },
  );
  const url = `http://127.0.0.1:${port}`;
  await whenReady(url, child);
  return { name, pid: child.pid!, url, close: () => end(child) };
}

async function startOnPostgres(
  name: string,
  options: TargetOptions,
  variables: Record<string, string>,
): Promise<Target> {
  const server = await openPostgres(join(options.folder, `${name}-data`));
  try {
    const target = await startAegra(name, options, { ...variables, DATABASE_URL: server.url });
    return {
      ...target,
      close: async () => {
        await target.close();
        await server.close();
      },
    };
  } catch (error) {
    await server.close();
    throw error;
  }
}

/** A PostgreSQL with its own defaults: commits are on disk before they are told. */
async function openPostgres(folder: string): Promise<{ url: string; close: () => Promise<void> }> {
  const given = process.env["DATABASE_URL"];
  if (given) return createDatabase(given);
  await mkdir(folder);
  const server = await startPostgres(folder, []);
  return { url: server.url, close: server.stop };
}

async function createDatabase(
  adminUrl: string,
): Promise<{ url: string; close: () => Promise<void> }> {
  const name = `aegra_bench_${randomBytes(6).toString("hex")}`;
  await execute(adminUrl, `CREATE DATABASE ${name}`);
  const url = new URL(adminUrl);
  url.pathname = `/${name}`;
  return { url: url.href, close: () => execute(adminUrl, `DROP DATABASE ${name} WITH (FORCE)`) };
}

/** A user's project with the bench's graphs. */
async function createProject(folder: string, name: string, modules: string): Promise<string> {
  const cwd = await realpath(await mkdtemp(join(folder, `${name}-`)));
  await symlink(modules, join(cwd, "node_modules"), "dir");
  await writeFile(join(cwd, "package.json"), JSON.stringify({ name, type: "module" }));
  await cp(join(ROOT, "bench/project/graphs.ts"), join(cwd, "graphs.ts"));
  return cwd;
}

async function whenReady(url: string, child: ChildProcess): Promise<void> {
  const until = Date.now() + READY_MS;
  while (Date.now() < until && child.exitCode === null) {
    const ready = await fetch(`${url}/ok`).then(
      (response) => response.ok,
      () => false,
    );
    if (ready) return;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  child.kill("SIGKILL");
  throw new Error(`The server did not start on ${url}; what it said is above.`);
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, "127.0.0.1", resolve));
  const { port } = probe.address() as AddressInfo;
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
