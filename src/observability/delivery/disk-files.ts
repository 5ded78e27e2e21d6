import { open, rm, writeFile } from "node:fs/promises";
import type { SpooledRecord } from "./segment.ts";

/** What is written with one call, where much has waited: a checksum of each record is work of this thread. */
const PART = { records: 2_000, bytes: 1_024 * 1_024 };
const PROBE_BYTES = 256 * 1_024;

/** As many records as are made ready for the disk without a pause. */
export function firstPart(records: readonly SpooledRecord[]): readonly SpooledRecord[] {
  let bytes = 0;
  let count = 0;
  for (const record of records) {
    bytes += record.bytes.length;
    if (count > 0 && (bytes > PART.bytes || count === PART.records)) break;
    count += 1;
  }
  return count === records.length ? records : records.slice(0, count);
}

/** A new file's name is on the disk only when its folder is. */
export async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** A folder may be there where no file fits any more. */
export async function probeDisk(path: string): Promise<void> {
  try {
    await writeFile(path, Buffer.alloc(PROBE_BYTES), { mode: 0o600 });
  } finally {
    await rm(path, { force: true });
  }
}
