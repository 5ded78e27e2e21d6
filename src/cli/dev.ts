/**
 * `aegra dev` is two processes: this small one holds the terminal, and its child is the server. A change of
 * the configuration ends the child with `RESTART`, and a new one takes its place on the same port.
 *
 *     serving --RESTART--> serving --any other end--> ended, with the child's exit code
 *        '----signal, passed on----> ending ---------------'
 */
import { fork } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { constants } from "node:os";
import { extname } from "node:path";
import { fileURLToPath } from "node:url";

import type { ServeOptions } from "./options.ts";
import { serve } from "./serve.ts";
import { closeOnSignal } from "./shutdown.ts";

/** The exit code with which the server asks to be started again. */
export const RESTART = 75;

/** What the child is told. */
export interface DevServerOptions extends ServeOptions {
  /** The port an earlier child was configured with, and the one it got. */
  previous?: PortReport;
}

/** What the child tells once it listens. */
export interface PortReport {
  configured: number;
  actual: number;
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Serves a project with reload; ends the process with the server's exit code. */
export async function dev(options: ServeOptions & { reload: boolean }): Promise<void> {
  const { reload, ...rest } = options;
  if (!reload) {
    closeOnSignal(await serve(rest, { mode: "dev" }));
    return;
  }
  let child: ChildProcess | undefined;
  let ending = false;
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      ending = true;
      child?.kill(signal);
    });
  }
  let previous: PortReport | undefined;
  for (;;) {
    child = spawnServer({ ...rest, ...(previous && { previous }) });
    child.on("message", (message: PortReport) => {
      previous = message;
    });
    const exitCode = await ended(child);
    if (exitCode !== RESTART || ending) process.exit(exitCode === RESTART ? 0 : exitCode);
  }
}

/** In a process group of its own, so that Ctrl-C reaches it once, through this process. */
function spawnServer(options: DevServerOptions): ChildProcess {
  const entry = new URL(`./dev-server${extname(import.meta.url)}`, import.meta.url);
  return fork(fileURLToPath(entry), [JSON.stringify(options)], { detached: true });
}

function ended(child: ChildProcess): Promise<number> {
  return new Promise((resolve) => {
    child.once("error", () => resolve(1));
    child.once("exit", (code, signal) => {
      resolve(code ?? (signal ? 128 + constants.signals[signal] : 1));
    });
  });
}
