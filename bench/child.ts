import { fork, type ChildProcess } from "node:child_process";
import { fileURLToPath } from "node:url";

/** A script of this folder in a process of its own, which answers one question at a time. */
export interface Child {
  pid: number;
  ask: <Answer>(question: object) => Promise<Answer>;
  close: () => Promise<void>;
}

const JITI = fileURLToPath(new URL("../node_modules/jiti/lib/jiti-cli.mjs", import.meta.url));

/**
 * Starts a script, which has to call `answer`. Whoever starts it closes it. `evaluated` runs it without a loader
 * in Node's own module system, which on Node 20 cannot load OpenTelemetry's CommonJS.
 */
export function startChild(
  script: string,
  variables: Record<string, string> = {},
  how: "loaded" | "evaluated" = "loaded",
): Child {
  const path = fileURLToPath(new URL(script, import.meta.url));
  const [entry, args, execArgv] =
    how === "loaded" ? [path, [], ["--import", "jiti/register"]] : [JITI, [path], []];
  const child = fork(entry, args, {
    execArgv,
    env: { ...process.env, ...variables },
  });
  return {
    pid: child.pid!,
    ask: (question) =>
      new Promise((resolve, reject) => {
        const ended = (code: number | null): void =>
          reject(new Error(`${script} ended with code ${code}`));
        child.once("exit", ended);
        child.once("message", (message: { answer: never } | { error: string }) => {
          child.off("exit", ended);
          if ("error" in message) reject(new Error(message.error));
          else resolve(message.answer);
        });
        child.send(question);
      }),
    close: () => end(child),
  };
}

/** In a child: answers every question of the parent with what `work` gives. */
export function answer<Question>(work: (question: Question) => Promise<unknown>): void {
  process.on("message", (question: Question) => {
    work(question).then(
      (value) => process.send?.({ answer: value }),
      (error: unknown) => process.send?.({ error: String(error) }),
    );
  });
  process.on("disconnect", () => process.exit(0));
}

/** Ends a process: asks it to, and insists after `graceMs`. */
export async function end(child: ChildProcess, graceMs = 15_000): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), graceMs);
  await exited;
  clearTimeout(timer);
}
