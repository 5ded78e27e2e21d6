import { describe, expect, it } from "vitest";
import { FRAME_BYTES, frame, readFrame } from "./segment-format.ts";

const record = {
  traceId: "0123456789abcdef0123456789abcdef",
  root: true,
  bytes: Buffer.from("a span"),
};
const time = 1_790_000_000_123;

function framed(): Buffer {
  return Buffer.concat([frame(record, time), record.bytes]);
}

describe("a segment's frames", () => {
  it("give back what was put in", () => {
    const bytes = Buffer.concat([framed(), framed()]);
    expect(readFrame(bytes, 0)).toEqual({
      kind: "record",
      end: FRAME_BYTES + 6,
      record: { ...record, time },
    });
    expect(readFrame(bytes, FRAME_BYTES + 6)).toMatchObject({ kind: "record", end: bytes.length });
  });

  it("tell a cut record from a whole one, wherever it is cut", () => {
    const whole = framed();
    for (let length = 0; length < whole.length; length += 1) {
      expect(readFrame(whole.subarray(0, length), 0).kind).toBe("partial");
    }
  });

  it("notice any byte that is not as it was written", () => {
    for (let at = 0; at < framed().length; at += 1) {
      const bytes = framed();
      bytes.writeUInt8(bytes.readUInt8(at) ^ 0x10, at);
      expect(readFrame(bytes, 0).kind).not.toBe("record");
    }
  });

  it("take no zeros for a record: what a disk gives for what never reached it", () => {
    expect(readFrame(Buffer.alloc(1_000), 0)).toEqual({ kind: "broken" });
  });
});
