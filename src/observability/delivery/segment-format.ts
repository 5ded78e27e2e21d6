import { crc32 } from "node:zlib";
import type { DeliveryRecord, StoredRecord } from "./record.ts";

/**
 * A segment file: eight bytes that name the format, then records, each
 *
 *   length of the rest of the record   4 bytes, little endian
 *   CRC-32 of the rest                 4 bytes, little endian
 *   0; for a root 1, or 2 and more     1 byte: a root that waits for its run's result, 2 for that of attempt 1
 *   when it was taken in               6 bytes, milliseconds since 1970, little endian
 *   trace id                           16 bytes
 *   the encoded span or score
 *
 * A record is whole or it is not there: what a killed process had half written fails the length or the checksum.
 */
export const SEGMENT_MAGIC = Buffer.from("AEGRASP1", "latin1");

/** What a record takes beside its bytes. */
export const FRAME_BYTES = 31;
const LENGTH_AND_CHECKSUM = 8;
const META_BYTES = FRAME_BYTES - LENGTH_AND_CHECKSUM;
/** Longer than any record can be: a length beyond it is not one. */
const LONGEST = 0x4000_0000;
/** 2001 and 2096: where records are looked for in a damaged file, others are not found. */
const EARLIEST = 1e12;
const LATEST = 4e12;

/** The bytes in front of a record's own. */
export function frame(record: DeliveryRecord, time: number): Buffer {
  const header = Buffer.allocUnsafe(FRAME_BYTES);
  header.writeUInt32LE(META_BYTES + record.bytes.length, 0);
  header.writeUInt8(toFlag(record), 8);
  header.writeUIntLE(time, 9, 6);
  header.fill(0, 15);
  header.write(record.traceId, 15, 16, "hex");
  header.writeUInt32LE(checksum(header.subarray(LENGTH_AND_CHECKSUM), record.bytes), 4);
  return header;
}

/** `end` is where the next record begins. */
export type ReadFrame =
  | { kind: "record"; record: StoredRecord; end: number }
  /** The buffer ends before the record does; it would end at `end`. */
  | { kind: "partial"; end: number }
  /** There is no record here. */
  | { kind: "broken" };

/** How long the frame at `at` says that it and its record are; `undefined` if no record is as long. */
export function frameLength(buffer: Buffer, at: number): number | undefined {
  const length = buffer.readUInt32LE(at);
  return length < META_BYTES || length > LONGEST ? undefined : LENGTH_AND_CHECKSUM + length;
}

/** Whether a record may begin at `at`, by its time: most places are ruled out without a checksum. */
export function mayBeFrame(buffer: Buffer, at: number): boolean {
  const time = buffer.readUIntLE(at + LENGTH_AND_CHECKSUM + 1, 6);
  return time > EARLIEST && time < LATEST;
}

/** The record at `at`. Its bytes are a view of `buffer`. */
export function readFrame(buffer: Buffer, at: number): ReadFrame {
  if (at + LENGTH_AND_CHECKSUM > buffer.length) return { kind: "partial", end: at + FRAME_BYTES };
  const length = frameLength(buffer, at);
  if (length === undefined) return { kind: "broken" };
  const end = at + length;
  if (end > buffer.length) return { kind: "partial", end };
  const body = buffer.subarray(at + LENGTH_AND_CHECKSUM, end);
  if (crc32(body) !== buffer.readUInt32LE(at + 4)) return { kind: "broken" };
  return {
    kind: "record",
    end,
    record: { ...readMeta(body), bytes: body.subarray(META_BYTES) },
  };
}

/** What stands between a record's checksum and its bytes. */
export function readMeta(meta: Buffer): Omit<StoredRecord, "bytes"> {
  return {
    ...fromFlag(meta.readUInt8(0)),
    time: meta.readUIntLE(1, 6),
    traceId: meta.toString("hex", 7, 23),
  };
}

function toFlag({ root, attempt }: DeliveryRecord): number {
  if (!root) return 0;
  return attempt === undefined ? 1 : Math.min(0xff, attempt + 1);
}

function fromFlag(flag: number): Pick<DeliveryRecord, "root" | "attempt"> {
  return flag > 1 ? { root: true, attempt: flag - 1 } : { root: flag === 1 };
}

function checksum(meta: Buffer, bytes: Buffer): number {
  return crc32(bytes, crc32(meta));
}
