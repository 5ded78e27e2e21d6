import { existsSync, readFileSync, readlinkSync } from "node:fs";
import { stat } from "node:fs/promises";
import { hostname } from "node:os";
import { setTimeout as delay } from "node:timers/promises";

/*
 * Which process something on disk belongs to, and whether that process still lives. Whoever claims writes the
 * claim to a file and touches that file at least every HEARTBEAT_MS.
 */

/** A process that will not be mistaken for another: a pid alone is reused, after a reboot above all. */
export interface ProcessClaim {
  pid: number;
  /** When the process started, in the system's own unit; absent where the system does not tell. */
  startedAt?: string | undefined;
  /** The boot and the pid namespace in which `pid` means something; absent where the system does not tell. */
  bootId?: string | undefined;
  pidNamespace?: string | undefined;
  host: string;
}

/** How often a claim's file is touched while its process lives. */
export const HEARTBEAT_MS = 2_000;

/** The claim of this process. */
export function ownClaim(): ProcessClaim {
  return {
    pid: process.pid,
    startedAt: processStart(process.pid),
    bootId: bootId(),
    pidNamespace: pidNamespace(),
    host: hostname(),
  };
}

/**
 * Whether the process of the claim in the file `path` lives. A process of another host or container cannot be
 * looked up: it is dead if its file stays untouched for `silenceMs`, which this then waits for.
 */
export async function isClaimAlive(
  claim: ProcessClaim,
  path: string,
  silenceMs: number,
): Promise<boolean> {
  const known = lookUpProcess(claim);
  return known === "elsewhere" ? isTouched(path, silenceMs) : known === "alive";
}

/** What can be said at once of a claim's process; `elsewhere` if it is of another host or container. */
export function lookUpProcess(claim: ProcessClaim): "alive" | "dead" | "elsewhere" {
  const sameBoot = claim.bootId === bootId();
  if (claim.host === hostname() && !sameBoot) return "dead";
  const visible =
    sameBoot &&
    claim.pidNamespace === pidNamespace() &&
    (claim.bootId !== undefined || claim.host === hostname());
  if (!visible) return "elsewhere";
  if (!isRunning(claim.pid)) return "dead";
  const startedAt = processStart(claim.pid);
  const same =
    startedAt === undefined || claim.startedAt === undefined || startedAt === claim.startedAt;
  return same ? "alive" : "dead";
}

/** Whether a heartbeat comes within the time in which it must. */
async function isTouched(path: string, silenceMs: number): Promise<boolean> {
  const touchedAt = async (): Promise<number | undefined> =>
    stat(path).then(
      ({ mtimeMs }) => mtimeMs,
      () => undefined,
    );
  const before = await touchedAt();
  for (let waitedMs = 0; waitedMs < silenceMs; waitedMs += 500) {
    await delay(500);
    const now = await touchedAt();
    if (now !== before) return now !== undefined;
  }
  return false;
}

function isRunning(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    // EPERM: it runs, as another user.
    return error instanceof Error && "code" in error && error.code === "EPERM";
  }
  // A process that was killed and not yet waited for has a pid, and nothing else.
  return !/^[ZX]/.test(statFields(pid)?.[0] ?? "");
}

/** Field 22 of /proc/pid/stat: clock ticks after boot. */
function processStart(pid: number): string | undefined {
  return statFields(pid)?.[19];
}

/** The fields of /proc/pid/stat from the third on. The second may hold spaces and parentheses. */
function statFields(pid: number): string[] | undefined {
  const text = readOptional(`/proc/${pid}/stat`);
  return text?.slice(text.lastIndexOf(")") + 2).split(" ");
}

function bootId(): string | undefined {
  return readOptional("/proc/sys/kernel/random/boot_id")?.trim();
}

function pidNamespace(): string | undefined {
  try {
    return readlinkSync("/proc/self/ns/pid");
  } catch {
    return undefined;
  }
}

function readOptional(path: string): string | undefined {
  try {
    return existsSync(path) ? readFileSync(path, "utf8") : undefined;
  } catch {
    return undefined;
  }
}
