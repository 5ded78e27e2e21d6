import { randomUUID } from "node:crypto";
import { mkdir, readFile, readdir, rename, rm, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { ServerError } from "../errors.ts";
import { HEARTBEAT_MS, isClaimAlive, ownClaim, type ProcessClaim } from "../process-claim.ts";

/*
 * One process per folder, by claims:
 *
 *   none ──write own claim──> claimed ──no other claim is alive──> held ──release──> none
 *                                └──another is──> own claim withdrawn, tried again, then refused
 *
 * Each process first writes a claim in a file of its own and then reads everyone's, so of two that start at
 * once at least the later reader sees the other. A dead process's claim is removed by whoever meets it; as
 * no two claims share a name, that can never remove a living one.
 */

export interface FolderLock {
  release(): Promise<void>;
}

/** A process of another host or container cannot be looked up: its claim is dead if untouched this long. */
const SILENCE_MS = 10_000;
const ATTEMPTS = 5;

/**
 * Takes the folder for this process until `release`. The claim of a process that was killed does not count.
 *
 * `silenceMs` is how long a claim of another host must stay untouched until it counts as dead.
 *
 * @throws ServerError `startup_failed`, naming the process that has the folder.
 */
export async function acquireFolderLock(
  folder: string,
  { silenceMs = SILENCE_MS } = {},
): Promise<FolderLock> {
  const claims = join(folder, "claims");
  await mkdir(claims, { recursive: true });
  for (let attempt = 1; ; attempt += 1) {
    const own = await writeClaim(claims);
    const holder = await findLiving(claims, own, silenceMs).catch(async (error: unknown) => {
      await rm(join(claims, own), { force: true });
      throw error;
    });
    if (!holder) return hold(join(claims, own));
    await rm(join(claims, own), { force: true });
    if (attempt === ATTEMPTS) throw heldBy(holder, folder);
    // Two that started together may both have withdrawn; an uneven wait lets one of them go first.
    await delay(Math.random() * 50 * attempt);
  }
}

function hold(path: string): FolderLock {
  const heartbeat = setInterval(() => {
    const now = new Date();
    utimes(path, now, now).catch(() => {});
  }, HEARTBEAT_MS);
  heartbeat.unref();
  return {
    release: async () => {
      clearInterval(heartbeat);
      await rm(path, { force: true });
    },
  };
}

function heldBy(holder: ProcessClaim, folder: string): ServerError {
  const where = holder.host === hostname() ? "" : ` on host ${holder.host}`;
  const who = holder.pid === process.pid && where === "" ? "this process" : "another process";
  return new ServerError(
    "startup_failed",
    `The database in ${folder} is in use by ${who} (pid ${holder.pid}${where}). PGlite serves one process ` +
      "at a time: stop that one, use another folder, or set DATABASE_URL to share a PostgreSQL server.",
    { details: { pid: holder.pid, host: holder.host } },
  );
}

/** Claims appear whole: written under another name, then renamed. */
async function writeClaim(claims: string): Promise<string> {
  const name = `${process.pid}-${randomUUID()}`;
  const unfinished = join(claims, `${name}.tmp`);
  await writeFile(unfinished, JSON.stringify(ownClaim()));
  await rename(unfinished, join(claims, `${name}.json`));
  return `${name}.json`;
}

async function findLiving(
  claims: string,
  own: string,
  silenceMs: number,
): Promise<ProcessClaim | undefined> {
  for (const name of await readdir(claims)) {
    if (name === own || !name.endsWith(".json")) continue;
    const path = join(claims, name);
    const claim = await readClaim(path);
    if (!claim) continue;
    if (await isClaimAlive(claim, path, silenceMs)) return claim;
    await rm(path, { force: true });
  }
  return undefined;
}

/** `undefined` if the claim was withdrawn meanwhile. */
async function readClaim(path: string): Promise<ProcessClaim | undefined> {
  try {
    return JSON.parse(await readFile(path, "utf8")) as ProcessClaim;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw new ServerError(
      "startup_failed",
      `The lock file ${path} cannot be read. If no server uses this folder, delete it.`,
      { cause: error },
    );
  }
}
