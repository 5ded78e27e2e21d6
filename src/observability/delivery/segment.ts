import * as fs from "node:fs";
import { access, unlink } from "node:fs/promises";
import { basename } from "node:path";
import { promisify } from "node:util";
import type { AttemptRoot, StoredRecord } from "./record.ts";
import type { DiskTurns } from "./disk-turns.ts";
import { FRAME_BYTES, frame, readFrame, SEGMENT_MAGIC } from "./segment-format.ts";
import { findRecord, scanRecords, type ReadBytes } from "./segment-scan.ts";
import { isMissing } from "./writer-folder.ts";

/*
 *   writing ──seal──▶ sealed ──every record settled──▶ removed
 *
 * Reading follows writing, in one pass: what was read and is not settled is in the sender's hands.
 */

const CHUNK_BYTES = 512 * 1_024;

// Plain descriptors: a promise's file handle cannot be written to in the same moment.
const open = promisify(fs.open);
const close = promisify(fs.close);
const read = promisify(fs.read);
const writev = promisify(fs.writev);
const fstat = promisify(fs.fstat);
const ftruncate = promisify(fs.ftruncate);
const fdatasync = promisify(fs.fdatasync);

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
  /** The writer's descriptor and the reader's, as each ends in its own time. */
  #fd: number | undefined;
  #readFd: number | undefined;
  #readAt = SEGMENT_MAGIC.length;
  #read = 0;
  #time: number | undefined;
  #chunk: Buffer = Buffer.alloc(0);
  #chunkAt = 0;

  private constructor(path: string, fd: number | undefined) {
    this.path = path;
    this.#fd = fd;
  }

  /** A new file, which must not exist. */
  static async create(path: string): Promise<Segment> {
    const fd = await open(path, "wx+", 0o600);
    try {
      await writev(fd, [SEGMENT_MAGIC], 0);
    } catch (error) {
      await close(fd);
      await unlink(path).catch(() => {});
      throw error;
    }
    return new Segment(path, fd);
  }

  /** The same at once. */
  static createSync(path: string): Segment {
    const fd = fs.openSync(path, "wx+", 0o600);
    try {
      fs.writeSync(fd, SEGMENT_MAGIC, 0, SEGMENT_MAGIC.length, 0);
    } catch (error) {
      fs.closeSync(fd);
      fs.rmSync(path, { force: true });
      throw error;
    }
    return new Segment(path, fd);
  }

  /**
   * A file another process left. `torn` tells that it ends in half a record, `roots` are those that waited for
   * their runs' results; `undefined` if the file is not a segment of this version.
   */
  static async adopt(
    path: string,
  ): Promise<{ segment: Segment; torn: boolean; roots: AttemptRoot[] } | undefined> {
    const segment = new Segment(path, undefined);
    const fd = (segment.#readFd = await open(path, "r"));
    segment.sealed = true;
    try {
      const { size } = await fstat(fd);
      const magic = await readAt(fd, 0, SEGMENT_MAGIC.length);
      if (size >= SEGMENT_MAGIC.length && !magic.equals(SEGMENT_MAGIC)) return undefined;
      const { records, end, time, roots } = await scanRecords(
        (at, bytes) => readAt(fd, at, bytes),
        segment.size,
        size,
      );
      segment.size = Math.max(segment.size, end);
      segment.records = records;
      segment.#time = time;
      return { segment, torn: size > segment.size, roots };
    } finally {
      await segment.close();
    }
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

  /**
   * Appends whole records or, if it rejects, nothing; nothing too once `signal` is aborted. Those that are `taken` are
   * not to be read.
   */
  async append(
    records: readonly StoredRecord[],
    options: { fsync: boolean; taken?: boolean; signal?: AbortSignal },
  ): Promise<void> {
    const fd = (this.#fd ??= await open(this.path, "r+"));
    let at = this.size;
    for (let buffers = toBuffers(records); buffers.length > 0;) {
      const { bytesWritten } = await writev(fd, buffers, at);
      at += bytesWritten;
      buffers = rest(buffers, bytesWritten);
    }
    if (options.fsync) await fdatasync(fd);
    options.signal?.throwIfAborted();
    this.#grow(at, records);
    if (options.taken !== true) return;
    this.#readAt = this.size;
    this.#read = this.records;
  }

  /** The same at once: it throws where `append` rejects. */
  appendSync(records: readonly StoredRecord[]): void {
    const fd = (this.#fd ??= fs.openSync(this.path, "r+"));
    let at = this.size;
    for (let buffers = toBuffers(records); buffers.length > 0;) {
      const bytesWritten = fs.writevSync(fd, buffers, at);
      at += bytesWritten;
      buffers = rest(buffers, bytesWritten);
    }
    this.#grow(at, records);
  }

  #grow(size: number, records: readonly StoredRecord[]): void {
    this.size = size;
    this.records += records.length;
    this.#time ??= records[0]?.time;
  }

  /** Ends the writing. Takes away what a failed `append` may have left behind the last whole record. */
  async seal(): Promise<void> {
    this.sealed = true;
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd === undefined) return;
    let removed = false;
    try {
      const { size, nlink } = await fstat(fd);
      removed = nlink === 0;
      if (size > this.size) await ftruncate(fd, this.size);
    } finally {
      // Of a file that somebody removed there is nothing left but this descriptor.
      if (removed) this.#fd = fd;
      else await close(fd);
    }
  }

  /** Whether somebody removed the file; it may be readable all the same. */
  async isRemoved(): Promise<boolean> {
    if (this.#fd !== undefined) return (await fstat(this.#fd)).nlink === 0;
    return access(this.path).then(
      () => false,
      (error: unknown) => isMissing(error),
    );
  }

  /**
   * The next record, which stays the next one until `shift`; `broken` if there should be one and is not. Rejects if the
   * disk does not give it now.
   */
  async peek(disk: DiskTurns): Promise<SpooledRecord | "broken" | undefined> {
    if (this.unread <= 0) return undefined;
    for (let tries = 0; ; tries += 1) {
      const found = readFrame(this.#chunk, this.#readAt - this.#chunkAt);
      if (found.kind === "record") return { ...found.record, segment: this };
      if (found.kind === "broken" || tries === 2) return "broken";
      const needed = this.#chunkAt + found.end - this.#readAt;
      await disk.take(() => this.#load(Math.max(needed, CHUNK_BYTES)));
    }
  }

  shift(record: SpooledRecord): SpooledRecord {
    this.#readAt += FRAME_BYTES + record.bytes.length;
    this.#read += 1;
    this.#time = record.time;
    if (this.unread === 0) {
      this.#chunk = Buffer.alloc(0);
      if (this.sealed) void this.#closeReader();
    }
    return record;
  }

  /** Takes a record that is given up. */
  skip(record: SpooledRecord): void {
    this.shift(record);
    this.settled += 1;
  }

  /**
   * Goes on behind a record that is broken, with the next one that is whole; tells how much was given up. There may be
   * more behind it than was known, and then it is less than nothing.
   */
  async skipBroken(disk: DiskTurns): Promise<{ records: number; bytes: number }> {
    const fd = this.#readFd ?? this.#fd;
    if (fd === undefined) return this.giveUpRest();
    const { size, unread } = this;
    const from = this.#readAt;
    const read: ReadBytes = (at, bytes) => readAt(fd, at, bytes);
    const next = await disk.take(() => findRecord(read, from + 1, size));
    if (next === undefined) return this.giveUpRest();
    const { records } = await disk.take(() => scanRecords(read, next, size));
    const lost = unread - records;
    this.records -= lost;
    this.#readAt = this.#chunkAt = next;
    this.#chunk = Buffer.alloc(0);
    return { records: lost, bytes: next - from - lost * FRAME_BYTES };
  }

  /** Gives up what cannot be read; tells how much that was. */
  giveUpRest(): { records: number; bytes: number } {
    const records = this.unread;
    this.records -= records;
    this.sealed = true;
    return { records, bytes: this.size - this.#readAt - records * FRAME_BYTES };
  }

  async remove(): Promise<void> {
    await this.close();
    await unlink(this.path);
  }

  async close(): Promise<void> {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) await close(fd).catch(() => {});
    await this.#closeReader();
  }

  async #closeReader(): Promise<void> {
    const fd = this.#readFd;
    this.#readFd = undefined;
    if (fd !== undefined) await close(fd).catch(() => {});
  }

  async #load(bytes: number): Promise<void> {
    this.#readFd ??= await open(this.path, "r").catch((error: unknown) => {
      if (this.#fd === undefined) throw error;
      return undefined;
    });
    const fd = this.#readFd ?? this.#fd;
    if (fd === undefined) return;
    this.#chunkAt = this.#readAt;
    this.#chunk = await readAt(fd, this.#readAt, Math.min(bytes, this.size - this.#readAt));
  }
}

function toBuffers(records: readonly StoredRecord[]): Buffer[] {
  return records.flatMap((record) => [frame(record, record.time), record.bytes]);
}

async function readAt(fd: number, position: number, bytes: number): Promise<Buffer<ArrayBuffer>> {
  const buffer = Buffer.allocUnsafeSlow(Math.max(0, bytes));
  let filled = 0;
  while (filled < buffer.length) {
    const { bytesRead } = await read(fd, buffer, filled, buffer.length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return buffer.subarray(0, filled);
}

/** What is left of `buffers` after their first `bytes` bytes, of which there must be some. */
function rest(buffers: readonly Buffer[], bytes: number): Buffer[] {
  if (bytes === 0) throw Object.assign(new Error("nothing was written"), { code: "ENOSPC" });
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
