import type { MemoryLimits } from "./memory-queue.ts";

/** What may wait where it outlives the process. */
export interface Limits {
  /** Bytes on disk, or in the database; past them the oldest traces go. */
  maxBytes: number;
  /** Older records are given up. */
  maxAgeMs: number;
  /** A larger record is given up. */
  maxRecordBytes: number;
  /** What may wait in memory while disk or database take nothing. */
  memory: MemoryLimits;
  /** Dead letters kept. */
  maxDeadLetters: number;
}

export const DEFAULT_LIMITS: Limits = {
  maxBytes: 2 * 1_024 * 1_024 * 1_024,
  maxAgeMs: 7 * 24 * 3_600_000,
  maxRecordBytes: 16 * 1_024 * 1_024,
  memory: { maxRecords: 200_000, maxBytes: 64 * 1_024 * 1_024 },
  maxDeadLetters: 10_000,
};

/** What happens to a store, for a log; each is told once per change, losses at most once a minute. */
export type StoreEvent =
  /** What it writes to takes nothing; or takes records again. */
  | { kind: "away"; error: string }
  | { kind: "back" }
  | { kind: "adopted"; records: number; torn: number }
  | { kind: "dropped"; records: number; why: string }
  /** A part of a file is damaged. */
  | { kind: "unreadable"; file: string; records: number; bytes: number }
  /** A file that is none of this version's was left aside. */
  | { kind: "foreign"; file: string };

const SAY_AGAIN_MS = 60_000;

/** Tells losses by their reason, each reason at most once a minute, with all that was lost meanwhile. */
export function createLossTeller(
  tell: (event: Extract<StoreEvent, { kind: "dropped" }>) => void,
): (records: number, why: string) => void {
  const said = new Map<string, { at: number; records: number }>();
  return (records, why) => {
    const last = said.get(why);
    if (last !== undefined && Date.now() - last.at < SAY_AGAIN_MS) {
      last.records += records;
      return;
    }
    said.set(why, { at: Date.now(), records: 0 });
    tell({ kind: "dropped", records: records + (last?.records ?? 0), why });
  };
}
