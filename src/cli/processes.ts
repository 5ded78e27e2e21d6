import cluster, { type Worker } from "node:cluster";
import { constants } from "node:os";

import { loadConfig } from "../config/load.ts";
import { ServerError } from "../errors.ts";
import type { ServeOptions } from "./options.ts";

/** A process that dies sooner than this after its start is started again after a pause, which doubles. */
const SHORT_LIFE_MS = 10_000;
const FIRST_PAUSE_MS = 500;
const MAX_PAUSE_MS = 30_000;
const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/*
 * The parent of the processes that share a port:
 *
 *   starting (one process, which migrates) --ready--> running (all; who dies is started again)
 *   any of them --signal--> stopping (all are asked to close) --> ended
 *
 * It opens nothing itself but the port, which node:cluster hands on.
 */

/**
 * Runs `count` processes that serve the project on one port, until a signal comes. Rejects with
 * `startup_failed` without PostgreSQL: the embedded database belongs to one process.
 */
export async function superviseProcesses(options: ServeOptions, count: number): Promise<void> {
  const config = await loadConfig({ ...options, mode: "start", terminal: process.stdout.isTTY });
  if (config.database.url === undefined) {
    throw new ServerError(
      "startup_failed",
      `--processes ${count} needs PostgreSQL: the embedded database belongs to one process. Set DATABASE_URL.`,
    );
  }
  new Supervisor(count).open();
}

class Supervisor {
  readonly #count: number;
  readonly #living = new Set<Worker>();
  readonly #restarts = new Set<NodeJS.Timeout>();
  #pauseMs = FIRST_PAUSE_MS;
  #started = false;
  #stopping = false;
  #exitCode = 0;

  constructor(count: number) {
    this.#count = count;
  }

  open(): void {
    for (const signal of SIGNALS) process.on(signal, () => this.#stop(signal));
    this.#fork();
  }

  #fork(): void {
    const child = cluster.fork();
    const begun = Date.now();
    this.#living.add(child);
    child.on("message", (message) => {
      if (message !== "ready" || this.#started || this.#stopping) return;
      this.#started = true;
      for (let others = 1; others < this.#count; others += 1) this.#fork();
    });
    child.on("exit", (code, signal) => this.#onExit(child, { code, signal, begun }));
  }

  #onExit(child: Worker, how: { code: number; signal: string | null; begun: number }): void {
    this.#living.delete(child);
    if (this.#stopping) {
      // SIGTERM ends one that was still starting.
      if (how.code !== 0 && how.signal !== "SIGTERM") this.#exitCode = 1;
      this.#endIfDone();
      return;
    }
    // It has said itself what is wrong, and what is wrong for the first is wrong for all.
    if (!this.#started) process.exit(how.code || 1);
    const livedMs = Date.now() - how.begun;
    this.#pauseMs =
      livedMs < SHORT_LIFE_MS ? Math.min(this.#pauseMs * 2, MAX_PAUSE_MS) : FIRST_PAUSE_MS;
    const cause = how.signal ? `by ${how.signal}` : `with ${how.code}`;
    process.stderr.write(
      `Process ${child.process.pid} ended ${cause}; another one starts in ${this.#pauseMs / 1_000} s.\n`,
    );
    const restart = setTimeout(() => {
      this.#restarts.delete(restart);
      this.#fork();
    }, this.#pauseMs);
    this.#restarts.add(restart);
  }

  /** The first signal lets every process finish its runs, the second ends them. */
  #stop(signal: (typeof SIGNALS)[number]): void {
    if (this.#stopping) {
      for (const child of this.#living) child.process.kill("SIGKILL");
      process.exit(128 + constants.signals[signal]);
    }
    this.#stopping = true;
    for (const restart of this.#restarts) clearTimeout(restart);
    for (const child of this.#living) child.process.kill("SIGTERM");
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#living.size === 0) process.exit(this.#exitCode);
  }
}
