import { openAsBlob } from "node:fs";
import { writeFile } from "node:fs/promises";
import { parentPort, workerData } from "node:worker_threads";
import { PGlite } from "@electric-sql/pglite";
import { vector } from "@electric-sql/pglite-pgvector";
import { PgliteSession } from "./pglite-session.ts";

/** What the thread is started with. */
export interface PgliteWorkerData {
  /** The folder with PostgreSQL's files, or `memory://`. */
  dataDir: string;
  /** A gzipped tar of such a folder, to begin with when it is empty. */
  template: string | undefined;
}

/** To the thread. Connections are numbers that the other side chooses. */
export type PgliteRequest =
  | { type: "bytes"; connection: number; bytes: Uint8Array }
  | { type: "notify"; connection: number }
  | { type: "drop"; connection: number }
  /** Writes a gzipped tar of the database's folder. */
  | { type: "dump"; path: string }
  | { type: "close" };

/** From the thread. */
export type PgliteReply =
  | { type: "ready" }
  | { type: "bytes"; connection: number; bytes: Uint8Array<ArrayBuffer> }
  | { type: "dumped"; error?: string }
  | { type: "failed"; error: string }
  | { type: "closed" };

async function main(): Promise<void> {
  const port = parentPort;
  if (!port) throw new Error("pglite-worker must be started as a worker thread");
  const reply = (message: PgliteReply, transfer: ArrayBuffer[] = []): void =>
    port.postMessage(message, transfer);
  const { dataDir, template } = workerData as PgliteWorkerData;

  const database = await PGlite.create({
    dataDir,
    ...(template !== undefined && {
      loadDataDir: await openAsBlob(template, { type: "application/x-gzip" }),
    }),
    extensions: { vector },
    // 16 MB instead of 128: resident memory falls by 130 MB and the files are in the page cache anyway.
    startParams: [...PGlite.defaultStartParams, "-c", "shared_buffers=16MB"],
  });
  const session = new PgliteSession({
    execute: (bytes, onData) => database.execProtocolRawStream(bytes, { onRawData: onData }),
    reply: (connection, bytes) => reply({ type: "bytes", connection, bytes }, [bytes.buffer]),
    onFailure: (error) => reply({ type: "failed", error: describe(error) }),
  });

  port.on("message", (message: PgliteRequest) => {
    switch (message.type) {
      case "bytes":
        session.receive(message.connection, message.bytes);
        break;
      case "notify":
        session.notify(message.connection);
        break;
      case "drop":
        session.drop(message.connection);
        break;
      case "dump":
        dump(database, message.path).then(
          () => reply({ type: "dumped" }),
          (error: unknown) => reply({ type: "dumped", error: String(error) }),
        );
        break;
      case "close":
        void session
          .idle()
          .then(() => database.close())
          .finally(() => {
            reply({ type: "closed" });
            port.close();
          });
    }
  });
  reply({ type: "ready" });
}

async function dump(database: PGlite, path: string): Promise<void> {
  const file = await database.dumpDataDir("gzip");
  await writeFile(path, Buffer.from(await file.arrayBuffer()));
}

/** What a WASM module throws at its end is not an Error. */
function describe(error: unknown): string {
  return error instanceof Error ? error.message : JSON.stringify(error);
}

await main();
