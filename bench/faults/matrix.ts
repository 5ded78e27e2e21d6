import { execFile } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import type { Question } from "./receiver.ts";

/** One thing that goes wrong for as long as the outage lasts. */
export interface Fault {
  name: string;
  /** How Langfuse meets requests meanwhile; absent where the address itself is the fault. */
  behaviour?: Extract<Question, { what: "behave" }>["behaviour"];
  /** Variables of the server during the outage; after it the server is started again without them. */
  wrong?: (receiverUrl: string) => Record<string, string>;
  /** A disk of its own for the spool. */
  disk?: { options: string };
  /** Where traces wait; on disk where left out. */
  spool?: "disk" | "database";
}

/** How the names of what is done with the outbox begin. */
export const OUTBOX = "outbox: ";

const status = (code: number, retryAfter?: string): Fault["behaviour"] => ({
  kind: "status",
  status: code,
  ...(retryAfter !== undefined && { retryAfter }),
});

export const FAULTS: Fault[] = [
  { name: "none", behaviour: { kind: "accept" } },
  { name: "refused", behaviour: { kind: "refuse" } },
  {
    name: "DNS failure",
    wrong: () => ({ LANGFUSE_HOST: "http://langfuse.invalid" }),
  },
  {
    name: "TLS failure",
    wrong: (url) => ({ LANGFUSE_HOST: url.replace("http:", "https:") }),
  },
  { name: "hang", behaviour: { kind: "hang" } },
  { name: "slow (7 s)", behaviour: { kind: "slow", ms: 7_000 } },
  { name: "401", behaviour: status(401) },
  { name: "403", behaviour: status(403) },
  { name: "408", behaviour: status(408) },
  { name: "413 over 20 kB", behaviour: { kind: "limit", bytes: 20_000 } },
  { name: "429", behaviour: status(429) },
  { name: "429, Retry-After 3", behaviour: status(429, "3") },
  { name: "500", behaviour: status(500) },
  { name: "502", behaviour: status(502) },
  { name: "503", behaviour: status(503) },
  { name: "request read in half", behaviour: { kind: "half-read" } },
  { name: "reset in mid-answer, stored", behaviour: { kind: "cut-answer" } },
  { name: "answer lost, stored", behaviour: { kind: "drop", after: "storing" } },
  { name: "flapping", behaviour: { kind: "flap" } },
  { name: `${OUTBOX}none`, behaviour: { kind: "accept" }, spool: "database" },
  { name: `${OUTBOX}refused`, behaviour: { kind: "refuse" }, spool: "database" },
  { name: `${OUTBOX}hang`, behaviour: { kind: "hang" }, spool: "database" },
  { name: `${OUTBOX}503`, behaviour: status(503), spool: "database" },
  {
    name: `${OUTBOX}answer lost, stored`,
    behaviour: { kind: "drop", after: "storing" },
    spool: "database",
  },
  { name: `${OUTBOX}flapping`, behaviour: { kind: "flap" }, spool: "database" },
  { name: "500 and a full disk", behaviour: status(500), disk: { options: "size=256k" } },
  { name: "500 and a read-only disk", behaviour: status(500), disk: { options: "size=1m,ro" } },
];

/** A small file system in memory. Rejects where this may not be mounted. The caller removes it. */
export async function mountDisk(
  options: string,
): Promise<{ folder: string; remove(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "aegra-disk-"));
  const run = promisify(execFile);
  await run("mount", ["-t", "tmpfs", "-o", options, "tmpfs", folder]);
  return {
    folder,
    async remove() {
      await run("umount", ["-l", folder]);
      await rm(folder, { recursive: true, force: true });
    },
  };
}
