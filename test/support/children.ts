import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));

export interface Child {
  pid: number;
  /** The next line it writes; `undefined` when it has ended. */
  readLine: () => Promise<string | undefined>;
  /** Ends it as a crash does, and waits until it is gone. */
  kill: () => Promise<void>;
}

/** Runs a module's text in a process of its own; relative imports start at the project's root. */
export function startChild(source: string): Child {
  const child = spawn(process.execPath, ["--input-type=module", "-e", source], {
    cwd: ROOT,
    stdio: ["pipe", "pipe", "inherit"],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const exited = once(child, "exit");
  return {
    pid: child.pid ?? 0,
    readLine: async () => {
      const { value, done } = await lines.next();
      return done ? undefined : value;
    },
    kill: async () => {
      child.kill("SIGKILL");
      await exited;
    },
  };
}
