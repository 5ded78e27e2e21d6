import { randomUUID } from "node:crypto";
import { chmod, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { makePath } from "./make-path.ts";
import type { StoredRecord } from "./record.ts";

/** A record the server will not take, and what it said. */
export interface DeadLetter {
  record: StoredRecord;
  /** When it was given up, in milliseconds since 1970. */
  buriedAt: number;
  /** The server's answer. */
  answer: string;
}

interface DeadLetterFile {
  version: 1;
  buried_at: string;
  taken_in_at: string;
  trace_id: string;
  root: boolean;
  answer: string;
  bytes_base64: string;
}

const SUFFIX = ".json";

/** One file per letter, in a folder for its owner only. Rejects if the disk does not take it. */
export async function writeDeadLetter(folder: string, letter: DeadLetter): Promise<void> {
  await makePath(folder);
  await chmod(folder, 0o700).catch(() => {});
  const { record } = letter;
  const content: DeadLetterFile = {
    version: 1,
    buried_at: new Date(letter.buriedAt).toISOString(),
    taken_in_at: new Date(record.time).toISOString(),
    trace_id: record.traceId,
    root: record.root,
    answer: letter.answer,
    bytes_base64: record.bytes.toString("base64"),
  };
  const name = `${String(letter.buriedAt).padStart(14, "0")}-${randomUUID().slice(0, 8)}`;
  const unfinished = join(folder, `${name}.tmp`);
  await writeFile(unfinished, JSON.stringify(content), { mode: 0o600 });
  await rename(unfinished, join(folder, `${name}${SUFFIX}`));
}

/** The files of the letters in a folder, oldest first. Empty if there is no such folder. */
export async function listDeadLetters(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names
    .filter((name) => name.endsWith(SUFFIX))
    .toSorted()
    .map((name) => join(folder, name));
}

/** Rejects for a file that is not a dead letter. */
export async function readDeadLetter(path: string): Promise<DeadLetter> {
  const content = JSON.parse(await readFile(path, "utf8")) as DeadLetterFile;
  if (content.version !== 1) throw new Error(`${path} is not a dead letter of this version`);
  return {
    buriedAt: Date.parse(content.buried_at),
    answer: content.answer,
    record: {
      traceId: content.trace_id,
      root: content.root,
      time: Date.parse(content.taken_in_at),
      bytes: Buffer.from(content.bytes_base64, "base64"),
    },
  };
}

/** Forgets letters that are somewhere else by now. */
export async function removeDeadLetters(paths: readonly string[]): Promise<void> {
  for (const path of paths) await rm(path, { force: true });
}
