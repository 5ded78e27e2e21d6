/*
 * PGlite in a worker thread against PGlite in the main thread, over the same wire protocol and pool.
 * Run: npm run build && npx jiti bench/pglite-thread.ts
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setImmediate } from "node:timers/promises";
import { PGlite } from "@electric-sql/pglite";
import { vector } from "@electric-sql/pglite-pgvector";
import { Client, Pool } from "pg";
import type { Database } from "../src/storage/database.ts";
import { openPglite } from "../src/storage/pglite.ts";
import { PgliteSession } from "../src/storage/pglite-session.ts";
import { PgliteStream } from "../src/storage/pglite-stream.ts";
import { PoolDatabase } from "../src/storage/pool-database.ts";

type Open = (folder: string) => Promise<Database>;

const openInThread: Open = (folder) => openPglite({ dataDir: folder });

/** The same session, stream and pool, with function calls where the thread has messages. */
const openInMain: Open = async (folder) => {
  const engine = await PGlite.create({
    dataDir: join(folder, "files"),
    extensions: { vector },
    startParams: [...PGlite.defaultStartParams, "-c", "shared_buffers=16MB"],
  });
  let pauseAt = 0;
  const attached = new Map<number, (bytes: Buffer) => void>();
  const session = new PgliteSession({
    execute: async (bytes, onData) => {
      await engine.execProtocolRawStream(bytes, { onRawData: onData });
      // Everything between two statements is microtasks: without a pause, nothing else would ever run.
      if (performance.now() < pauseAt) return;
      await setImmediate();
      pauseAt = performance.now() + 2;
    },
    reply: (connection, bytes) => attached.get(connection)?.(Buffer.from(bytes.buffer)),
    onFailure: (error) => {
      throw error;
    },
  });
  let connections = 0;
  const pool = new Pool({
    user: "postgres",
    max: 8,
    idleTimeoutMillis: 0,
    stream: () =>
      new PgliteStream({
        connection: (connections += 1),
        notify: false,
        channel: {
          send: (message) => {
            if (message.type === "bytes") session.receive(message.connection, message.bytes);
          },
          attach: (connection, onBytes) => attached.set(connection, onBytes),
          detach: (connection) => attached.delete(connection),
        },
      }),
  });
  return new PoolDatabase({
    kind: "pglite",
    location: folder,
    pool,
    createListenClient: () => new Client(),
    listens: true,
    heartbeatMs: 0,
    prepare: true,
    log: () => {},
    afterClose: () => engine.close(),
  });
};

async function time(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

async function repeat(count: number, work: (index: number) => Promise<unknown>): Promise<void> {
  for (let index = 0; index < count; index += 1) await work(index);
}

const perSecond = (count: number, ms: number): number => Math.round((count * 1000) / ms);

async function transfer(database: Database): Promise<void> {
  await database.transaction(async (tx) => {
    const { rows } = await tx.query<{ id: number }>(
      "INSERT INTO bench (body) VALUES ($1) RETURNING id",
      ['{"messages":["one","two"]}'],
    );
    await tx.query("UPDATE bench SET count = count + 1 WHERE id = $1", [rows[0]?.id]);
    await tx.query("SELECT id, body FROM bench WHERE id = $1", [rows[0]?.id]);
  });
}

/** A main thread that computes in slices of 1 ms, as one that parses and serialises for many clients does. */
async function whileBusy(
  work: () => Promise<unknown>,
  durationMs: number,
): Promise<[number, number]> {
  let [slices, done, running] = [0, 0, true];
  const burn = (): void => {
    const end = performance.now() + 1;
    while (performance.now() < end);
    slices += 1;
    if (running) globalThis.setImmediate(burn);
  };
  globalThis.setImmediate(burn);
  const end = performance.now() + durationMs;
  const workers = Array.from({ length: 16 }, async () => {
    while (performance.now() < end) {
      await work();
      done += 1;
    }
  });
  await Promise.all(workers);
  running = false;
  return [perSecond(done, durationMs), perSecond(slices, durationMs)];
}

/** The longest time for which a timer of 5 ms did not fire. */
async function longestPause(work: () => Promise<unknown>): Promise<number> {
  let last = performance.now();
  let longestMs = 0;
  const look = (): void => {
    longestMs = Math.max(longestMs, performance.now() - last);
    last = performance.now();
  };
  const timer = setInterval(look, 5);
  await work();
  look();
  clearInterval(timer);
  return longestMs;
}

async function measure(name: string, open: Open): Promise<Record<string, unknown>> {
  const folder = await mkdtemp(join(tmpdir(), "aegra-bench-"));
  await (await openPglite({ dataDir: folder })).close();
  let database = await open(folder);
  await database.close();
  const reopenMs = await time(async () => {
    database = await open(folder);
  });
  await database.query(
    "CREATE TABLE bench (id bigserial PRIMARY KEY, body jsonb, count int DEFAULT 0)",
  );
  await database.query("INSERT INTO bench (body) SELECT '{}' FROM generate_series(1, 1000)");
  const select = (index: number): Promise<unknown> =>
    database.query("SELECT id, body, count FROM bench WHERE id = $1", [1 + (index % 1000)]);
  await repeat(500, select);
  const alone = await time(() => repeat(3000, select));
  const together = await time(() => Promise.all(Array.from({ length: 3000 }, (_, i) => select(i))));
  await repeat(100, () => transfer(database));
  const transactions = await time(() =>
    Promise.all(Array.from({ length: 1000 }, () => transfer(database))),
  );
  const [busyTransactions, slices] = await whileBusy(() => transfer(database), 4000);
  let heavyMs = 0;
  const longestMs = await longestPause(async () => {
    heavyMs = await time(() =>
      database.query("SELECT sum(sqrt(n)) FROM generate_series(1, 4000000) AS n"),
    );
  });
  await database.close();
  await rm(folder, { recursive: true, force: true });
  return {
    name,
    "reopen ms": Math.round(reopenMs),
    "select alone µs": Math.round((alone * 1000) / 3000),
    "selects/s together": perSecond(3000, together),
    "transactions/s": perSecond(1000, transactions),
    "transactions/s, busy main": busyTransactions,
    "main's slices/s meanwhile": slices,
    "heavy query ms": Math.round(heavyMs),
    "longest pause of main ms": Math.round(longestMs),
  };
}

const rows = [];
for (let round = 0; round < 2; round += 1) {
  rows.push(await measure("main thread", openInMain), await measure("worker thread", openInThread));
}
console.table(rows); // eslint-disable-line no-console
