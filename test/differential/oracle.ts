import { spawn, type ChildProcess } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const FOLDER = fileURLToPath(new URL("../oracle", import.meta.url));
const START_MS = 120_000;

/** The official dev server, in a process of its own. Whoever started it closes it. */
export interface Oracle {
  url: string;
  pid: number;
  close(): Promise<void>;
}

/** Where the official server's packages are; a project it serves has to resolve them. */
export const ORACLE_MODULES = join(FOLDER, "node_modules");

/**
 * Installs the official server's packages with `npm ci`, if they are missing or not what the lock file says.
 * Throws what npm said if that does not work.
 */
export async function installOracle(): Promise<void> {
  if (await isInstalled()) return;
  const { code, output } = await run("npm", ["ci", "--no-audit", "--no-fund"], FOLDER);
  if (code !== 0) {
    throw new Error(
      `The official dev server, with which this compares, could not be installed. Run \`npm ci\` in test/oracle.\n${output}`,
    );
  }
}

/** Whether npm's own record of what it has installed agrees with the lock file. */
async function isInstalled(): Promise<boolean> {
  const [wanted, present] = await Promise.all([
    readLock(join(FOLDER, "package-lock.json")),
    readLock(join(ORACLE_MODULES, ".package-lock.json")).catch(() => undefined),
  ]);
  if (!present) return false;
  return Object.entries(wanted).every(
    ([path, entry]) =>
      path === "" || entry.optional === true || present[path]?.version === entry.version,
  );
}

type LockEntries = Record<string, { version?: string; optional?: boolean }>;

async function readLock(path: string): Promise<LockEntries> {
  return (JSON.parse(await readFile(path, "utf8")) as { packages: LockEntries }).packages;
}

/** Starts the official server, in memory, on the graphs of the project in `cwd`. Rejects with its output. */
export async function startOracle(options: {
  cwd: string;
  /** Graph id to `./file.ts:export`. */
  graphs: Record<string, string>;
  /** Runs it executes at the same time. */
  workers: number;
  /** `./file.ts:export`. */
  auth?: string;
  nodeOptions?: string[];
}): Promise<Oracle> {
  const resolve = createRequire(join(FOLDER, "package.json")).resolve;
  const payload = {
    port: 0,
    host: "127.0.0.1",
    nWorkers: options.workers,
    cwd: options.cwd,
    graphs: options.graphs,
    ...(options.auth !== undefined && { auth: { path: options.auth } }),
  };
  const loader = pathToFileURL(resolve("tsx")).href;
  const child = spawn(
    process.execPath,
    [
      ...(options.nodeOptions ?? []),
      "--import",
      loader,
      join(FOLDER, "serve.mjs"),
      JSON.stringify(payload),
    ],
    {
      cwd: options.cwd,
      stdio: ["ignore", "pipe", "pipe", "ipc"],
      env: {
        ...process.env,
        NODE_ENV: "development",
        LANGSMITH_TRACING: "false",
        LOG_LEVEL: "error",
      },
    },
  );
  const host = await whenListening(child);
  return {
    url: `http://${host}`,
    pid: child.pid!,
    close: async () => {
      await end(child);
      // What it persists for its next start.
      await rm(join(options.cwd, ".langgraph_api"), { recursive: true, force: true });
    },
  };
}

function whenListening(child: ChildProcess): Promise<string> {
  let output = "";
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-10_000);
  };
  child.stdout?.on("data", keep);
  child.stderr?.on("data", keep);
  return new Promise((resolve, reject) => {
    const fail = (why: string): void => {
      child.kill("SIGKILL");
      reject(new Error(`The official dev server ${why}:\n${output}`));
    };
    const timer = setTimeout(() => fail(`did not start within ${START_MS} ms`), START_MS);
    child.once("exit", (code) => {
      clearTimeout(timer);
      fail(`ended with code ${code}`);
    });
    child.once("message", (message) => {
      clearTimeout(timer);
      child.removeAllListeners("exit");
      resolve((message as { host: string }).host);
    });
  });
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), 2_000);
  await exited;
  clearTimeout(timer);
}

function run(
  command: string,
  args: string[],
  cwd: string,
): Promise<{ code: number | null; output: string }> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
    child.once("error", (error) => resolve({ code: -1, output: error.message }));
    child.once("close", (code) => resolve({ code, output }));
  });
}
