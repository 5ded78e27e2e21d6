import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Client } from "@langchain/langgraph-sdk";
import { freePort } from "./free-port.ts";
import { createClient } from "./server.ts";

const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const MODULES = fileURLToPath(new URL("../../node_modules", import.meta.url));
/** A cold PGlite on a busy machine. */
const START_MS = 100_000;

/** A user's project in a folder of its own, with the packages of this checkout. */
export async function createProject(files: Record<string, string>): Promise<{
  folder: string;
  remove: () => Promise<void>;
}> {
  const folder = await mkdtemp(join(tmpdir(), "aegra-project-"));
  await symlink(MODULES, join(folder, "node_modules"));
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(folder, name), content);
  }
  return { folder, remove: () => rm(folder, { recursive: true, force: true }) };
}

/** The real command line in a real process. */
export interface ChildServer {
  url: string;
  client: Client;
  process: ChildProcess;
  /** Everything it printed so far. */
  output(): string;
  /** Ends it, by SIGKILL unless told otherwise, and resolves with its exit code. */
  kill(signal?: NodeJS.Signals): Promise<number | null>;
}

/** Starts `aegra start` in `folder` on a free port, and resolves when it answers. The caller kills it. */
export async function startChild(
  folder: string,
  env: Record<string, string | undefined> = {},
  args: readonly string[] = [],
): Promise<ChildServer> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await tryChild(folder, env, args);
    } catch (error) {
      // Between the look for a free port and the start somebody else may have taken it.
      if (tries === 3 || !String(error).includes("is taken")) throw error;
    }
  }
}

async function tryChild(
  folder: string,
  env: Record<string, string | undefined>,
  args: readonly string[],
): Promise<ChildServer> {
  const port = await freePort();
  const { DATABASE_URL: _database, ...inherited } = process.env;
  const child = spawn(
    process.execPath,
    [MAIN, "start", "--host", "127.0.0.1", "--port", String(port), ...args],
    { cwd: folder, env: { ...inherited, ...env }, stdio: ["ignore", "pipe", "pipe"] },
  );
  let output = "";
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (output += chunk.toString()));
  // Later than its exit: all that it printed has come.
  const closed = once(child, "close");
  const url = `http://127.0.0.1:${port}`;
  const deadline = Date.now() + START_MS;
  while (!(await answers(url))) {
    if (child.exitCode !== null) {
      await closed;
      throw new Error(`The server ended with code ${child.exitCode}:\n${output}`);
    }
    if (Date.now() > deadline) {
      child.kill("SIGKILL");
      throw new Error(`The server did not answer in ${START_MS} ms:\n${output}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    url,
    client: createClient(url),
    process: child,
    output: () => output,
    async kill(signal = "SIGKILL") {
      if (child.exitCode !== null || child.signalCode !== null) return child.exitCode;
      const exited = once(child, "exit");
      child.kill(signal);
      const [code] = (await exited) as [number | null];
      // Of one that was not asked, processes it had started may still be printing.
      if (signal !== "SIGKILL") await closed;
      return code;
    },
  };
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/ok`)).ok;
  } catch {
    return false;
  }
}

/** Resolves with the first value of `look` that is not undefined; looks again until then. */
export async function until<T>(
  look: () => Promise<T | undefined>,
  what: string,
  timeoutMs = 60_000,
): Promise<T> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const found = await look();
    if (found !== undefined) return found;
    if (Date.now() > deadline) throw new Error(`Waited ${timeoutMs} ms in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
