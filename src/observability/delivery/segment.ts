import { open, unlink, type FileHandle } from "node:fs/promises";
import { basename } from "node:path";
import type { StoredRecord } from "./record.ts";
import { FRAME_BYTES, frame, readFrame, SEGMENT_MAGIC } from "./segment-format.ts";

/*
 *   writing ──seal──▶ sealed ──every record settled──▶ removed
 *
 * Reading follows writing, in one pass: what was read and is not settled is in the sender's hands.
 */

const CHUNK_BYTES = 512 * 1_024;

/** A record with the file it is in; without one it is in memory alone. */
export interface SpooledRecord extends StoredRecord {
  segment: Segment | undefined;
}

/** One file of the spool. One writer, one reader, not at the same time as `remove`. */
export class Segment {
  readonly path: string;
  /** Bytes that are known to be whole records. */
  size = SEGMENT_MAGIC.length;
  records = 0;
  settled = 0;
  sealed = false;
  #handle: FileHandle | undefined;
  #readAt = SEGMENT_MAGIC.length;
  #read = 0;
  #time: number | undefined;
  #chunk: Buffer = Buffer.alloc(0);
  #chunkAt = 0;

  private constructor(path: string, handle: FileHandle | undefined) {
    this.path = path;
    this.#handle = handle;
  }

  /** A new file, which must not exist. */
  static async create(path: string): Promise<Segment> {
    const handle = await open(path, "wx+", 0o600);
    try {
      await handle.write(SEGMENT_MAGIC, 0, SEGMENT_MAGIC.length, 0);
    } catch (error) {
      await handle.close();
      await unlink(path).catch(() => {});
      throw error;
    }
    return new Segment(path, handle);
  }

  /**
   * A file another process left. `torn` tells that it ends in half a record; `undefined` if the file is not a
   * segment of this version.
   */
  static async adopt(path: string): Promise<{ segment: Segment; torn: boolean } | undefined> {
    const handle = await open(path, "r");
    const segment = new Segment(path, handle);
    segment.sealed = true;
    const { size } = await handle.stat();
    const magic = Buffer.alloc(SEGMENT_MAGIC.length);
    await handle.read(magic, 0, magic.length, 0);
    if (size >= magic.length && !magic.equals(SEGMENT_MAGIC)) {
      await handle.close();
      return undefined;
    }
    await segment.#scan(handle, size);
    await segment.#closeHandle();
    return { segment, torn: size > segment.size };
  }

  get name(): string {
    return basename(this.path);
  }

  /** Whether every record of it is settled. */
  get spent(): boolean {
    return this.settled === this.records;
  }

  /** Bytes of the records alone. */
  get recordBytes(): number {
    return this.size - SEGMENT_MAGIC.length - this.records * FRAME_BYTES;
  }

  /** Records read and not settled. */
  get underWay(): number {
    return this.#read - this.settled;
  }

  get unread(): number {
    return this.records - this.#read;
  }

  /** When the next record was taken in, or a little before. */
  get time(): number | undefined {
    return this.#time;
  }

  /** Appends whole records or, if it rejects, nothing. */
  async append(records: readonly StoredRecord[], options: { fsync: boolean }): Promise<void> {
    const handle = this.#handle ?? (this.#handle = await open(this.path, "r+"));
    let buffers = records.flatMap((record) => [frame(record, record.time), record.bytes]);
    let at = this.size;
    while (buffers.length > 0) {
      const { bytesWritten } = await handle.writev(buffers, at);
      if (bytesWritten === 0)
        throw Object.assign(new Error("nothing was written"), { code: "ENOSPC" });
      at += bytesWritten;
      buffers = rest(buffers, bytesWritten);
    }
    if (options.fsync) await handle.datasync();
    this.size = at;
    this.records += records.length;
    this.#time ??= records[0]?.time;
  }

  /** Takes away what a failed `append` may have left behind the last whole record, and ends the writing. */
  async seal(): Promise<void> {
    this.sealed = true;
    if (this.#handle === undefined) return;
    const { size } = await this.#handle.stat();
    if (size > this.size) await this.#handle.truncate(this.size);
    if (this.unread === 0) await this.#closeHandle();
  }

  /** The next record, which stays the next one until `shift`; `broken` if there should be one and is not. */
  async peek(): Promise<SpooledRecord | "broken" | undefined> {
    if (this.unread <= 0) return undefined;
    for (let tries = 0; ; tries += 1) {
      const found = readFrame(this.#chunk, this.#readAt - this.#chunkAt);
      if (found.kind === "record") return { ...found.record, segment: this };
      if (found.kind === "broken" || tries === 2) return "broken";
      const needed = this.#chunkAt + found.end - this.#readAt;
      await this.#load(Math.max(needed, CHUNK_BYTES));
    }
  }

  shift(record: SpooledRecord): SpooledRecord {
    this.#readAt += FRAME_BYTES + record.bytes.length;
    this.#read += 1;
    this.#time = record.time;
    if (this.unread === 0) {
      this.#chunk = Buffer.alloc(0);
      if (this.sealed) void this.#closeHandle();
    }
    return record;
  }

  /** Takes a record that is given up. */
  skip(record: SpooledRecord): void {
    this.shift(record);
    this.settled += 1;
  }

  /** Gives up what cannot be read; tells how much that was. */
  giveUpRest(): { records: number; bytes: number } {
    const records = this.unread;
    this.records -= records;
    this.sealed = true;
    return { records, bytes: this.size - this.#readAt - records * FRAME_BYTES };
  }

  async remove(): Promise<void> {
    await this.#closeHandle();
    await unlink(this.path);
  }

  async close(): Promise<void> {
    await this.#closeHandle();
  }

  async #scan(handle: FileHandle, size: number): Promise<void> {
    let chunk = Buffer.alloc(0);
    let chunkAt = 0;
    while (this.size + FRAME_BYTES <= size) {
      if (this.size + FRAME_BYTES > chunkAt + chunk.length) {
        chunkAt = this.size;
        chunk = await readAt(handle, chunkAt, Math.min(CHUNK_BYTES, size - chunkAt));
        if (chunk.length < FRAME_BYTES) return;
      }
      const at = this.size - chunkAt;
      const end = this.size + 8 + chunk.readUInt32LE(at);
      if (end > size || end < this.size + FRAME_BYTES) return;
      this.#time ??= chunk.readUIntLE(at + 9, 6);
      this.size = end;
      this.records += 1;
    }
  }

  async #load(bytes: number): Promise<void> {
    const handle = this.#handle ?? (this.#handle = await open(this.path, "r"));
    this.#chunkAt = this.#readAt;
    this.#chunk = await readAt(handle, this.#readAt, Math.min(bytes, this.size - this.#readAt));
  }

  async #closeHandle(): Promise<void> {
    const handle = this.#handle;
    this.#handle = undefined;
    await handle?.close().catch(() => {});
  }
}

async function readAt(
  handle: FileHandle,
  position: number,
  bytes: number,
): Promise<Buffer<ArrayBuffer>> {
  const buffer = Buffer.allocUnsafeSlow(Math.max(0, bytes));
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await handle.read(
      buffer,
      filled,
      buffer.length - filled,
      position + filled,
    );
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

/** What is left of `buffers` after their first `bytes` bytes. */
function rest(buffers: readonly Buffer[], bytes: number): Buffer[] {
  let skip = bytes;
  const left: Buffer[] = [];
  for (const buffer of buffers) {
    if (skip >= buffer.length) skip -= buffer.length;
    else {
      left.push(skip === 0 ? buffer : buffer.subarray(skip));
      skip = 0;
    }
  }
  return left;
}
