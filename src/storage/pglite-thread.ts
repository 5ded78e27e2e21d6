import { Worker } from "node:worker_threads";
import { ServerError } from "../errors.ts";
import { PgliteStream } from "./pglite-stream.ts";
import type { PgliteChannel } from "./pglite-stream.ts";
import type { PgliteReply, PgliteRequest, PgliteWorkerData } from "./pglite-worker.ts";

/*
 *   starting ──ready──> running ──close──> closing ──closed──> ended
 *      └──────error or exit──────┴──error, exit, "failed"──────> ended (every connection is told)
 */

interface Attached {
  onBytes: (bytes: Buffer) => void;
  onEnd: (error: Error) => void;
}

/** PGlite in a worker thread (docs/decisions/0003-pglite-thread.md), and the connections to it. */
export class PgliteThread implements PgliteChannel {
  readonly #worker: Worker;
  readonly #attached = new Map<number, Attached>();
  readonly #onFailure: (error: Error) => void;
  #connectionCount = 0;
  #ended: Error | undefined;
  #closing: Promise<void> | undefined;
  #onReply: ((reply: PgliteReply) => void) | undefined;

  private constructor(worker: Worker, onFailure: (error: Error) => void) {
    this.#worker = worker;
    this.#onFailure = onFailure;
    worker.on("message", (reply: PgliteReply) => this.#receive(reply));
    worker.on("error", (error: Error) => this.#end(error));
    worker.on("exit", (code) => this.#end(new Error(`the thread exited with code ${code}`)));
  }

  /** Resolves when PGlite answers. `onFailure` is told when it stops by itself later. */
  static async start(
    data: PgliteWorkerData,
    onFailure: (error: Error) => void = () => {},
  ): Promise<PgliteThread> {
    let failed: ((error: Error) => void) | undefined;
    // No execArgv: the process's loaders and inspectors are not for this thread.
    const worker = new Worker(workerUrl(), { workerData: data, execArgv: [] });
    const thread = new PgliteThread(worker, (error) => (failed ? failed(error) : onFailure(error)));
    await new Promise<void>((resolve, reject) => {
      failed = reject;
      thread.#onReply = (reply) => {
        if (reply.type === "ready") resolve();
      };
    });
    failed = undefined;
    return thread;
  }

  /** A connection for `pg`'s `stream` option; with `notify` it is the one that hears notifications. */
  createStream(notify: boolean): PgliteStream {
    this.#connectionCount += 1;
    return new PgliteStream({ channel: this, connection: this.#connectionCount, notify });
  }

  send(message: PgliteRequest, transfer: ArrayBuffer[]): void {
    if (this.#ended) return;
    this.#worker.postMessage(message, transfer);
  }

  attach(
    connection: number,
    onBytes: (bytes: Buffer) => void,
    onEnd: (error: Error) => void,
  ): void {
    if (this.#ended) onEnd(this.#ended);
    else this.#attached.set(connection, { onBytes, onEnd });
  }

  detach(connection: number): void {
    if (this.#attached.delete(connection)) this.send({ type: "drop", connection }, []);
  }

  /** Writes a gzipped tar of the database's files: a copy that another PGlite can begin with. */
  async dump(path: string): Promise<void> {
    if (this.#ended) throw this.#ended;
    const reply = await this.#ask({ type: "dump", path }, "dumped");
    if (reply.error !== undefined)
      throw new Error(`The database could not be copied: ${reply.error}`);
  }

  close(): Promise<void> {
    this.#closing ??= (async () => {
      if (this.#ended) return;
      const exited = new Promise((resolve) => this.#worker.once("exit", resolve));
      this.send({ type: "close" }, []);
      await exited;
    })();
    return this.#closing;
  }

  async #ask<Type extends PgliteReply["type"]>(
    request: PgliteRequest,
    type: Type,
  ): Promise<Extract<PgliteReply, { type: Type }>> {
    return new Promise((resolve, reject) => {
      const onExit = (): void => reject(this.#ended ?? new Error("PGlite has stopped."));
      this.#worker.once("exit", onExit);
      this.#onReply = (reply) => {
        if (reply.type !== type) return;
        this.#worker.off("exit", onExit);
        resolve(reply as Extract<PgliteReply, { type: Type }>);
      };
      this.send(request, []);
    });
  }

  #receive(reply: PgliteReply): void {
    if (reply.type === "bytes") {
      const { buffer, byteOffset, byteLength } = reply.bytes;
      this.#attached.get(reply.connection)?.onBytes(Buffer.from(buffer, byteOffset, byteLength));
      return;
    }
    if (reply.type === "failed") this.#end(new Error(reply.error));
    this.#onReply?.(reply);
  }

  #end(reason: Error): void {
    if (this.#ended) return;
    this.#ended = new ServerError(
      "unavailable",
      this.#closing
        ? "The database is closed."
        : "The embedded database has stopped; restart the server.",
      { cause: reason },
    );
    for (const { onEnd } of this.#attached.values()) onEnd(this.#ended);
    this.#attached.clear();
    if (!this.#closing) this.#onFailure(reason);
  }
}

/** From source, the thread runs the built file: Node loads no TypeScript in a worker before version 22. */
function workerUrl(): URL {
  const built = import.meta.url.endsWith(".ts") ? "../../dist/storage/" : "./";
  return new URL(`${built}pglite-worker.js`, import.meta.url);
}
