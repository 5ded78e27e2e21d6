import { randomUUID } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import {
  chmod,
  mkdir,
  readdir,
  readFile,
  rename,
  rm,
  rmdir,
  stat,
  utimes,
  writeFile,
} from "node:fs/promises";
import { join } from "node:path";
import {
  HEARTBEAT_MS,
  isClaimAlive,
  lookUpProcess,
  ownClaim,
  type ProcessClaim,
} from "../../process-claim.ts";
import { makePath } from "./make-path.ts";

/*
 * A spool folder has one folder per writer, which holds the writer's claim and its segments:
 *
 *   being made ──renamed into place──▶ claimed ──closed, or its process is gone──▶ ownerless ──emptied──▶ removed
 *
 * Whoever finds an ownerless folder moves its segments into its own, one rename each: of two that find it, every
 * segment goes to exactly one.
 */

const CLAIM = "claim.json";
const UNFINISHED = ".new-";
/** A writer of another host or container is gone if its claim is untouched this long. */
const SILENCE_MS = 30_000;
const UNFINISHED_MS = 3_600_000;

export const SEGMENT_SUFFIX = ".seg";

/**
 * Gives names that no other process chooses, and that sort in the order they were given: within a millisecond, and where
 * the clock goes back, too. A file that came too early would be read before the one it belongs behind.
 */
export function createSegmentNames(clock: () => number = Date.now): () => string {
  let time = 0;
  let count = 0;
  return () => {
    const now = clock();
    count = now > time ? 0 : count + 1;
    time = Math.max(now, time);
    const at = `${String(time).padStart(14, "0")}-${String(count).padStart(6, "0")}`;
    return `${at}-${randomUUID().slice(0, 13)}${SEGMENT_SUFFIX}`;
  };
}

/** A folder of this process. */
export interface WriterFolder {
  readonly path: string;
  /** Whether it is there, with its claim; touches the claim. */
  isThere(): Promise<boolean>;
  /** Takes the segments of writers that are gone; gives their new paths, oldest first. */
  adopt(): Promise<string[]>;
  /** Forgets a folder that is not there any more. */
  abandon(): void;
  /** Gives up the claim; removes the folder if it is empty. What is left is another's to adopt. */
  release(): Promise<void>;
}

/**
 * Makes a folder for this process in the spool folder `base`, which is made, for its owner only, if it is missing.
 * `onBeat` is called whenever its claim should be touched; one call at a time.
 */
export async function openWriterFolder(
  base: string,
  onBeat: (folder: WriterFolder) => Promise<void>,
): Promise<WriterFolder> {
  const path = await makeFolder(base, async (unfinished) => {
    await writeFile(join(unfinished, CLAIM), JSON.stringify(ownClaim()), { mode: 0o600 });
  });
  let beating: Promise<void> | undefined;
  const heartbeat = setInterval(() => {
    // On a disk that hangs each would hold a thread.
    beating ??= onBeat(folder)
      .catch(() => {})
      .finally(() => (beating = undefined));
  }, HEARTBEAT_MS);
  heartbeat.unref();
  const folder: WriterFolder = {
    path,
    async isThere() {
      const now = new Date();
      return utimes(join(path, CLAIM), now, now).then(
        () => true,
        (error: unknown) => !isMissing(error),
      );
    },
    adopt: () => adoptInto(path, base),
    abandon: () => clearInterval(heartbeat),
    async release() {
      clearInterval(heartbeat);
      await rm(join(path, CLAIM), { force: true });
      await rmdir(path).catch(() => {});
    },
  };
  return folder;
}

/** Whether what an operation on a file failed for is that the file is not there. */
export function isMissing(error: unknown): boolean {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  return code === "ENOENT" || code === "ENOTDIR" || code === "ESTALE";
}

/** An ownerless folder with what `fill` puts into it, there at once for whoever adopts. */
export async function leaveFolder(
  base: string,
  fill: (folder: string) => Promise<void>,
): Promise<void> {
  await makeFolder(base, fill);
}

async function makeFolder(base: string, fill: (folder: string) => Promise<void>): Promise<string> {
  await makePath(base);
  await chmod(base, 0o700).catch(() => {});
  const id = `${process.pid}-${randomUUID()}`;
  const unfinished = join(base, `${UNFINISHED}${id}`);
  await mkdir(unfinished, { mode: 0o700 });
  try {
    await fill(unfinished);
    await rename(unfinished, join(base, id));
  } catch (error) {
    await rm(unfinished, { recursive: true, force: true }).catch(() => {});
    throw error;
  }
  return join(base, id);
}

async function adoptInto(own: string, base: string): Promise<string[]> {
  const names = await readdir(base);
  const adopted = await Promise.all(
    names.map(async (name) => {
      const folder = join(base, name);
      if (folder === own) return [];
      if (name.startsWith(UNFINISHED)) return removeIfOld(folder);
      return (await isOwned(folder)) ? [] : moveSegments(folder, own);
    }),
  );
  return adopted.flat().toSorted();
}

async function isOwned(folder: string): Promise<boolean> {
  const path = join(folder, CLAIM);
  const claim = await readClaim(path);
  return claim !== undefined && isClaimAlive(claim, path, SILENCE_MS);
}

/** `undefined` for a claim that is missing or means nothing: claims appear whole. */
async function readClaim(path: string): Promise<ProcessClaim | undefined> {
  return readFile(path, "utf8").then(toClaim, () => undefined);
}

function toClaim(text: string): ProcessClaim | undefined {
  try {
    return JSON.parse(text) as ProcessClaim;
  } catch {
    return undefined;
  }
}

async function moveSegments(from: string, to: string): Promise<string[]> {
  const moved: string[] = [];
  for (const name of (await readdir(from).catch((): string[] => [])).toSorted()) {
    if (!name.endsWith(SEGMENT_SUFFIX)) continue;
    const target = join(to, name);
    // Someone else may have been faster.
    const done = await rename(join(from, name), target).then(
      () => true,
      () => false,
    );
    if (done) moved.push(target);
  }
  await rm(join(from, CLAIM), { force: true }).catch(() => {});
  await rmdir(from).catch(() => {});
  return moved;
}

async function removeIfOld(folder: string): Promise<never[]> {
  const made = await stat(folder).catch(() => undefined);
  if (made !== undefined && Date.now() - made.mtimeMs > UNFINISHED_MS)
    await rm(folder, { recursive: true, force: true }).catch(() => {});
  return [];
}

/** A writer as it is found from outside. */
export interface FoundWriter {
  folder: string;
  pid: number | undefined;
  state: "alive" | "gone" | "elsewhere";
  segments: { path: string; bytes: number }[];
}

/** The writers of a spool folder, without touching anything. Empty if there is no such folder. */
export function listWriters(base: string): FoundWriter[] {
  return names(base)
    .filter((name) => !name.startsWith("."))
    .map((name) => {
      const folder = join(base, name);
      const claim = claimIn(folder);
      const known = claim === undefined ? "dead" : lookUpProcess(claim);
      return {
        folder,
        pid: claim?.pid,
        state: known === "dead" ? ("gone" as const) : known,
        segments: names(folder)
          .filter((file) => file.endsWith(SEGMENT_SUFFIX))
          .toSorted()
          .map((file) => ({ path: join(folder, file), bytes: sizeOf(join(folder, file)) })),
      };
    });
}

function claimIn(folder: string): ProcessClaim | undefined {
  try {
    return toClaim(readFileSync(join(folder, CLAIM), "utf8"));
  } catch {
    return undefined;
  }
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}

function sizeOf(path: string): number {
  try {
    return statSync(path).size;
  } catch {
    return 0;
  }
}
