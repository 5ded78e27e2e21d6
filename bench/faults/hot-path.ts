/*
 * What the spool costs the process that makes spans: the time of one hand-over, how long a run waits until its root
 * is written, and how long the event loop computes without a pause while large spans are written, read, compressed and sent.
 * Run: npx jiti bench/faults/hot-path.ts
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { pino } from "pino";
import { createSpooledSender } from "../../src/observability/delivery/spooled-sender.ts";
import type { Sender } from "../../src/observability/delivery/sender.ts";
import { createHttpTransport } from "../../src/observability/delivery/transport.ts";

const SECONDS = 5;

if (process.send !== undefined) serve();
else await measure();

/** Takes whatever comes, in a process of its own. */
function serve(): void {
  const server = createServer((request, response) => {
    request.resume();
    request.on("end", () => response.setHeader("content-type", "application/json").end("{}"));
  });
  server.listen(0, "127.0.0.1", () => process.send?.(server.address()));
}

async function measure(): Promise<void> {
  const sink = fork(fileURLToPath(import.meta.url), { execArgv: ["--import", "jiti/register"] });
  const [{ port }] = (await once(sink, "message")) as [{ port: number }];
  const folder = await mkdtemp(join(tmpdir(), "aegra-hot-path-"));
  console.log(
    "| spans | put, median | put, p99 | written after, median | p99 | loop busy, p99 | longest |",
  );
  console.log("|---|---|---|---|---|---|---|");
  for (const { bytes, perSecond } of [
    { bytes: 0, perSecond: 100 },
    { bytes: 2_000, perSecond: 1_000 },
    { bytes: 40_000, perSecond: 500 },
    { bytes: 400_000, perSecond: 50 },
  ]) {
    const sender = open(folder, port);
    console.log(await row(sender, bytes, perSecond));
    await sender.close(10_000);
  }
  sink.kill();
  await rm(folder, { recursive: true });
}

function open(folder: string, port: number): Sender {
  return createSpooledSender({
    spool: { folder },
    target: "bench",
    stream: "spans",
    log: pino({ level: "warn" }),
    transport: createHttpTransport({
      url: `http://127.0.0.1:${port}/`,
      headers: {},
      timeoutMs: 10_000,
      contentType: "application/x-protobuf",
    }),
    encode: (records) => Buffer.concat(records),
    flushAt: 256,
    flushIntervalMs: 1_000,
    onState: () => {},
    onRefused: () => {},
    onPartial: () => {},
  });
}

async function row(sender: Sender, bytes: number, perSecond: number): Promise<string> {
  const words = Array.from({ length: 2_000 }, (_, index) => `word${(index * 7_919) % 1_000} `).join(
    "",
  );
  const text = Buffer.from(words.repeat(Math.ceil(bytes / words.length)).slice(0, bytes));
  const puts: number[] = [];
  const writes: number[] = [];
  const turns = watchLoop();
  const begun = performance.now();
  let made = 0;
  while (performance.now() - begun < SECONDS * 1_000) {
    const due = ((performance.now() - begun) / 1_000) * perSecond;
    for (; made < due; made += 1) {
      if (bytes === 0) continue;
      const before = performance.now();
      sender.put({ traceId: made.toString(16).padStart(32, "0"), root: true, bytes: text });
      puts.push(performance.now() - before);
      void sender.recorded().then(() => writes.push(performance.now() - before));
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  const blocked = turns.stop();
  const sent = await sender.flush(20_000);
  if (!sent) throw new Error("not everything was sent");
  const us = (ms: number): string => `${(ms * 1_000).toFixed(0)} µs`;
  const ms = (value: number): string => `${value.toFixed(1)} ms`;
  return `| ${bytes === 0 ? "none" : `${perSecond}/s of ${bytes / 1_000} kB`} | ${[
    us(at(puts, 0.5)),
    us(at(puts, 0.99)),
    us(at(writes, 0.5)),
    us(at(writes, 0.99)),
    ms(at(blocked, 0.99)),
    ms(blocked.reduce((most, value) => Math.max(most, value), 0)),
  ].join(" | ")} |`;
}

/**
 * The milliseconds the main thread computed between two chances for anybody else to run. Not the time that passed:
 * on a machine that does other things too, that tells of those.
 */
function watchLoop(): { stop(): number[] } {
  const turns: number[] = [];
  let last = cpuMs();
  const timer = setInterval(() => {
    const now = cpuMs();
    turns.push(now - last);
    last = cpuMs();
  }, 1);
  return {
    stop() {
      clearInterval(timer);
      return turns;
    },
  };
}

/** Linux tells how long the main thread has been on a processor. */
function cpuMs(): number {
  return Number(readFileSync("/proc/self/schedstat", "utf8").split(" ")[0]) / 1e6;
}

function at(values: number[], share: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.floor(sorted.length * share)] ?? 0;
}
