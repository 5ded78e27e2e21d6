import { readdir } from "node:fs/promises";
import { join } from "node:path";
import {
  listDeadLetters,
  readDeadLetter,
  removeDeadLetters,
  type DeadLetter,
} from "./dead-letters.ts";
import { Segment } from "./segment.ts";
import { spoolFolders, type Stream } from "./spooled-sender.ts";
import { createSegmentNames, leaveFolder, listWriters, type FoundWriter } from "./writer-folder.ts";

const STREAMS: readonly Stream[] = ["spans", "scores"];

/** What is on disk of one target's stream. */
export interface SpoolReport {
  target: string;
  stream: Stream;
  /** Records in files. Of a process that lives, some may have been sent already. */
  records: number;
  bytes: number;
  /** When the oldest was taken in, in milliseconds since 1970. */
  oldest: number | undefined;
  writers: { pid: number | undefined; state: FoundWriter["state"]; records: number }[];
  dead_letters: number;
}

/** A dead letter and where it is. */
export interface FoundDeadLetter extends Omit<DeadLetter, "record"> {
  target: string;
  stream: Stream;
  traceId: string;
  bytes: number;
  path: string;
}

/** What waits in a spool folder, by target. Touches nothing; empty if there is no such folder. */
export async function inspectSpool(folder: string): Promise<SpoolReport[]> {
  const reports: SpoolReport[] = [];
  for (const { target, stream, records, deadLetters } of await listStreams(folder)) {
    const report: SpoolReport = {
      target,
      stream,
      records: 0,
      bytes: 0,
      oldest: undefined,
      writers: [],
      dead_letters: (await listDeadLetters(deadLetters)).length,
    };
    for (const writer of listWriters(records)) {
      const found = await count(writer, report);
      if (found > 0 || writer.state === "alive")
        report.writers.push({ pid: writer.pid, state: writer.state, records: found });
    }
    if (report.records + report.dead_letters + report.writers.length > 0) reports.push(report);
  }
  return reports;
}

async function count(writer: FoundWriter, report: SpoolReport): Promise<number> {
  let records = 0;
  for (const { path } of writer.segments) {
    // It may have been sent meanwhile.
    const found = await Segment.adopt(path).catch(() => undefined);
    if (found === undefined) continue;
    const { segment } = found;
    records += segment.records;
    report.bytes += segment.size;
    if (segment.time !== undefined)
      report.oldest = Math.min(report.oldest ?? segment.time, segment.time);
  }
  report.records += records;
  return records;
}

/** The dead letters of all targets, oldest first. Files that are none are left out. */
export async function findDeadLetters(folder: string): Promise<FoundDeadLetter[]> {
  const letters: FoundDeadLetter[] = [];
  for (const { target, stream, deadLetters } of await listStreams(folder)) {
    for (const path of await listDeadLetters(deadLetters)) {
      const letter = await readDeadLetter(path).catch(() => undefined);
      if (letter === undefined) continue;
      const { record, buriedAt, answer } = letter;
      const { traceId, bytes } = record;
      letters.push({ target, stream, traceId, bytes: bytes.length, buriedAt, answer, path });
    }
  }
  return letters.toSorted((a, b) => a.buriedAt - b.buriedAt);
}

/**
 * Puts the dead letters of all targets back into the spool, where the next process that looks sends them; gives
 * their number. A letter's file goes when its record is in the spool.
 */
export async function replayDeadLetters(folder: string): Promise<number> {
  let replayed = 0;
  const nextName = createSegmentNames();
  for (const { records, deadLetters } of await listStreams(folder)) {
    const done: string[] = [];
    const letters: DeadLetter[] = [];
    for (const path of await listDeadLetters(deadLetters)) {
      const letter = await readDeadLetter(path).catch(() => undefined);
      if (letter === undefined) continue;
      letters.push(letter);
      done.push(path);
    }
    if (letters.length === 0) continue;
    await leaveFolder(records, async (place) => {
      const segment = await Segment.create(join(place, nextName()));
      // Taken in anew, or their age might send them away at once.
      const now = Date.now();
      await segment.append(
        letters.map(({ record }) => ({ ...record, time: now })),
        { fsync: true },
      );
      await segment.close();
    });
    await removeDeadLetters(done);
    replayed += letters.length;
  }
  return replayed;
}

async function listStreams(
  folder: string,
): Promise<{ target: string; stream: Stream; records: string; deadLetters: string }[]> {
  const targets = await readdir(folder, { withFileTypes: true }).catch(() => []);
  return targets
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name)
    .toSorted((a, b) => (a < b ? -1 : 1))
    .flatMap((target) =>
      STREAMS.map((stream) => ({ target, stream, ...spoolFolders(folder, target, stream) })),
    );
}
