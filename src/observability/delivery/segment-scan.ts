import { isAttemptRoot, type AttemptRoot } from "./record.ts";
import { FRAME_BYTES, frameLength, mayBeFrame, readFrame, readMeta } from "./segment-format.ts";

/** Bytes of a segment file; fewer where it ends. */
export type ReadBytes = (position: number, bytes: number) => Promise<Buffer>;

/** What a file holds between two positions. */
export interface Scanned {
  /** Records, with one for each part that is damaged. */
  records: number;
  /** Where the last of them ends. */
  end: number;
  /** When the first was taken in. */
  time: number | undefined;
  /** Those that waited for their runs' results. */
  roots: AttemptRoot[];
}

const CHUNK_BYTES = 512 * 1_024;

/**
 * Goes from record to record by their lengths, from `from` to `size`, without looking at what is in them. Where a length
 * leads nowhere it goes on with the next record that is whole.
 */
export async function scanRecords(read: ReadBytes, from: number, size: number): Promise<Scanned> {
  const scanned: Scanned = { records: 0, end: from, time: undefined, roots: [] };
  let chunk: Buffer = Buffer.alloc(0);
  let chunkAt = from;
  let last: number | undefined;
  while (scanned.end + FRAME_BYTES <= size) {
    const at = scanned.end;
    if (at + FRAME_BYTES > chunkAt + chunk.length) {
      chunkAt = at;
      chunk = await read(at, Math.min(CHUNK_BYTES, size - at));
      if (chunk.length < FRAME_BYTES) break;
    }
    const length = frameLength(chunk, at - chunkAt);
    if (length !== undefined && at + length <= size) {
      const about = readMeta(chunk.subarray(at - chunkAt + 8));
      if (isAttemptRoot(about))
        scanned.roots.push({ traceId: about.traceId, attempt: about.attempt });
      scanned.time ??= about.time;
      scanned.records += 1;
      scanned.end = at + length;
      last = at;
      continue;
    }
    // Either there is no record here, or the length of the last one is wrong.
    const misled = last !== undefined && !(await isWhole(read, last, at - last));
    const next = await findRecord(read, (misled ? (last ?? at) : at) + 1, size);
    if (next === undefined) break;
    if (!misled) scanned.records += 1;
    scanned.end = next;
    last = undefined;
    chunk = Buffer.alloc(0);
    chunkAt = next;
  }
  return scanned;
}

/** Where the next whole record begins, at `from` or behind it. */
export async function findRecord(
  read: ReadBytes,
  from: number,
  size: number,
): Promise<number | undefined> {
  for (let at = from; at + FRAME_BYTES <= size;) {
    const chunk = await read(at, Math.min(CHUNK_BYTES, size - at));
    const places = chunk.length - FRAME_BYTES + 1;
    if (places <= 0) return undefined;
    for (let offset = 0; offset < places; offset += 1) {
      const length = mayBeFrame(chunk, offset) ? frameLength(chunk, offset) : undefined;
      if (length === undefined || at + offset + length > size) continue;
      if (await isWhole(read, at + offset, length)) return at + offset;
    }
    at += places;
  }
  return undefined;
}

async function isWhole(read: ReadBytes, at: number, length: number): Promise<boolean> {
  return readFrame(await read(at, length), 0).kind === "record";
}
