import cluster from "node:cluster";
import { constants } from "node:os";

import type { Serving } from "./serve.ts";

/** What closing may take on top, for traces and the database, before the process ends anyway. */
const EXTRA_MS = 10_000;

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/**
 * From now on the first SIGINT, SIGTERM or SIGHUP closes the server and ends the process: 0 if all went well,
 * 1 if it did not or took too long. A second signal ends it at once with 128 + its number. The returned
 * function does the same on its own account, with the exit code it is given.
 */
export function closeOnSignal(serving: Serving): (exitCode: number) => Promise<void> {
  const { server, config, log, console } = serving;
  let closing = false;
  const close = async (exitCode: number): Promise<void> => {
    closing = true;
    const { graceMs } = config.workers;
    setTimeout(() => {
      console.print("The server did not close in time; ending it.\n");
      process.exit(1);
    }, graceMs + EXTRA_MS).unref();
    try {
      await server.close(graceMs);
      process.exit(exitCode);
    } catch (error) {
      log.fatal({ err: error }, "the server did not close cleanly");
      process.exit(1);
    }
  };
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      // A terminal sends it to every process; the parent of several passes it on, as SIGTERM and once.
      if (cluster.isWorker && signal !== "SIGTERM") return;
      if (closing) process.exit(128 + constants.signals[signal]);
      console.print(`\n${signal}: finishing runs and closing. Once more to end at once.\n`);
      void close(0);
    });
  }
  // A promise nobody waits for in a graph's code is that graph's mistake; the server stays up.
  process.on("unhandledRejection", (reason) => {
    log.error({ err: reason }, "a promise was rejected and nothing handled it");
  });
  process.on("uncaughtException", (error) => {
    log.fatal({ err: error }, "an error was thrown outside of any request or run; closing");
    if (!closing) void close(1);
  });
  return close;
}
