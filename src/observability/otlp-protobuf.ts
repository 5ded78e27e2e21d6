/**
 * OTLP trace requests in protobuf, one span at a time. A span is encoded once, when it ends, and those bytes are
 * what is queued, stored and sent, however often: a resent span is byte for byte the same. A batch is a header
 * around its spans' bytes.
 *
 * Field numbers: opentelemetry-proto, `trace/v1/trace.proto` and `common/v1/common.proto`.
 */

export type OtlpValue = string | number | boolean | readonly (string | number | boolean)[];

/** A finished span. Times are `[seconds, nanoseconds]` since 1970. */
export interface OtlpSpan {
  traceId: string;
  spanId: string;
  parentSpanId: string | undefined;
  name: string;
  kind: number;
  start: readonly [seconds: number, nanoseconds: number];
  end: readonly [seconds: number, nanoseconds: number];
  attributes: Readonly<Record<string, OtlpValue | undefined>>;
  /** 0 unset, 1 ok, 2 error. */
  statusCode: number;
  statusMessage?: string | undefined;
  events?: readonly OtlpEvent[];
  links?: readonly OtlpLink[];
}

/** Something that happened at one moment of a span, such as an exception. */
export interface OtlpEvent {
  name: string;
  time: readonly [seconds: number, nanoseconds: number];
  attributes: Readonly<Record<string, OtlpValue | undefined>>;
}

/** Another span this one has to do with, without being its child. */
export interface OtlpLink {
  traceId: string;
  spanId: string;
}

const VARINT = 0;
const FIXED64 = 1;
const BYTES = 2;

/**
 * An encoder of single spans, framed as entries of `ScopeSpans.spans`. The bytes it gives are never written
 * again.
 */
export function createSpanEncoder(): (span: OtlpSpan) => Buffer {
  const writer = new ProtobufWriter();
  return (span) => encodeSpan(writer, span);
}

function encodeSpan(writer: ProtobufWriter, span: OtlpSpan): Buffer {
  const body = writer.begin(2);
  writer.bytes(1, Buffer.from(span.traceId, "hex"));
  writer.bytes(2, Buffer.from(span.spanId, "hex"));
  if (span.parentSpanId !== undefined) writer.bytes(4, Buffer.from(span.parentSpanId, "hex"));
  writer.text(5, span.name);
  writer.varint(6, span.kind);
  writer.fixed64(7, span.start);
  writer.fixed64(8, span.end);
  for (const [key, value] of Object.entries(span.attributes)) {
    if (value !== undefined) writeAttribute(writer, 9, key, value);
  }
  for (const event of span.events ?? []) writeEvent(writer, event);
  for (const link of span.links ?? []) {
    const entry = writer.begin(13);
    writer.bytes(1, Buffer.from(link.traceId, "hex"));
    writer.bytes(2, Buffer.from(link.spanId, "hex"));
    writer.end(entry);
  }
  if (span.statusCode !== 0) {
    const status = writer.begin(15);
    if (span.statusMessage !== undefined) writer.text(2, span.statusMessage);
    writer.varint(3, span.statusCode);
    writer.end(status);
  }
  writer.end(body);
  return writer.finish();
}

function writeEvent(writer: ProtobufWriter, event: OtlpEvent): void {
  const entry = writer.begin(11);
  writer.fixed64(1, event.time);
  writer.text(2, event.name);
  for (const [key, value] of Object.entries(event.attributes)) {
    if (value !== undefined) writeAttribute(writer, 3, key, value);
  }
  writer.end(entry);
}

/** The resource and the instrumentation scope all spans of a sender share. */
export interface OtlpOrigin {
  resource: Readonly<Record<string, OtlpValue>>;
  scope: { name: string; version: string };
}

/** An encoder of whole `ExportTraceServiceRequest`s around encoded spans. */
export function createRequestEncoder(origin: OtlpOrigin): (spans: readonly Uint8Array[]) => Buffer {
  const writer = new ProtobufWriter();
  const resourceBody = writer.begin(1);
  for (const [key, value] of Object.entries(origin.resource)) writeAttribute(writer, 1, key, value);
  writer.end(resourceBody);
  const resource = Buffer.from(writer.finish());
  const scopeBody = writer.begin(1);
  writer.text(1, origin.scope.name);
  writer.text(2, origin.scope.version);
  writer.end(scopeBody);
  const scope = Buffer.from(writer.finish());
  return (spans) => {
    const spanBytes = spans.reduce((total, span) => total + span.length, 0);
    const scopeSpans = Buffer.concat([tag(2, BYTES), varint(scope.length + spanBytes), scope]);
    const length = resource.length + scopeSpans.length + spanBytes;
    return Buffer.concat([tag(1, BYTES), varint(length), resource, scopeSpans, ...spans]);
  };
}

function writeAttribute(
  writer: ProtobufWriter,
  field: number,
  key: string,
  value: OtlpValue,
): void {
  const attribute = writer.begin(field);
  writer.text(1, key);
  const any = writer.begin(2);
  writeValue(writer, value);
  writer.end(any);
  writer.end(attribute);
}

function writeValue(writer: ProtobufWriter, value: OtlpValue): void {
  if (typeof value === "string") writer.text(1, value);
  else if (typeof value === "boolean") writer.varint(2, value ? 1 : 0);
  else if (typeof value === "number") {
    if (Number.isSafeInteger(value)) writer.varint(3, value);
    else writer.double(4, value);
  } else {
    const list = writer.begin(5);
    for (const entry of value) {
      const any = writer.begin(1);
      writeValue(writer, entry);
      writer.end(any);
    }
    writer.end(list);
  }
}

const LENGTH_BYTES = 5;
/** Finished spans share slabs, which saves an allocation and a copy each; a slab lives as long as its last span. */
const SLAB_BYTES = 256 * 1_024;
const MEASURED_CHARS = 10_000;

/** Grows as it is written; a nested message's length is filled in when it ends, padded to a fixed width. */
class ProtobufWriter {
  #slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
  #from = 0;
  #at = 0;

  /** Where the message begins, counted from the span's start: the span moves when its slab is full. */
  begin(field: number): number {
    this.#tag(field, BYTES);
    this.#room(LENGTH_BYTES);
    this.#at += LENGTH_BYTES;
    return this.#at - this.#from;
  }

  end(begun: number): void {
    const start = this.#from + begun;
    this.#writeLength(start - LENGTH_BYTES, this.#at - start);
  }

  text(field: number, value: string): void {
    this.#tag(field, BYTES);
    // Three bytes per UTF-16 unit is the most UTF-8 needs; measuring pays for long texts only.
    const most = value.length < MEASURED_CHARS ? value.length * 3 : Buffer.byteLength(value);
    this.#room(LENGTH_BYTES + most);
    const lengthAt = this.#at;
    this.#at += LENGTH_BYTES;
    const written = this.#slab.write(value, this.#at, "utf8");
    this.#at += written;
    this.#writeLength(lengthAt, written);
  }

  bytes(field: number, value: Uint8Array): void {
    this.#tag(field, BYTES);
    this.#varint(value.length);
    this.#room(value.length);
    this.#slab.set(value, this.#at);
    this.#at += value.length;
  }

  varint(field: number, value: number): void {
    this.#tag(field, VARINT);
    this.#varint(value);
  }

  double(field: number, value: number): void {
    this.#tag(field, FIXED64);
    this.#room(8);
    this.#at = this.#slab.writeDoubleLE(value, this.#at);
  }

  fixed64(field: number, time: readonly [number, number]): void {
    this.#tag(field, FIXED64);
    this.#room(8);
    const nanoseconds = BigInt(time[0]) * 1_000_000_000n + BigInt(Math.round(time[1]));
    this.#at = this.#slab.writeBigUInt64LE(nanoseconds, this.#at);
  }

  /** What was written since the last time. */
  finish(): Buffer {
    const written = this.#slab.subarray(this.#from, this.#at);
    this.#from = this.#at;
    return written;
  }

  #tag(field: number, type: number): void {
    this.#varint(field * 8 + type);
  }

  #varint(value: number): void {
    this.#room(10);
    if (value < 0) {
      this.#at = writeVarint(this.#slab, this.#at, BigInt.asUintN(64, BigInt(value)));
      return;
    }
    let left = value;
    while (left > 0x7f) {
      this.#slab[this.#at] = (left % 0x80) + 0x80;
      this.#at += 1;
      left = Math.floor(left / 0x80);
    }
    this.#slab[this.#at] = left;
    this.#at += 1;
  }

  /** A varint may carry leading zero groups, so a length fits where room was kept before it was known. */
  #writeLength(at: number, length: number): void {
    let left = length;
    for (let index = 0; index < LENGTH_BYTES - 1; index += 1) {
      this.#slab[at + index] = (left & 0x7f) | 0x80;
      left >>>= 7;
    }
    this.#slab[at + LENGTH_BYTES - 1] = left;
  }

  #room(bytes: number): void {
    if (this.#at + bytes <= this.#slab.length) return;
    const begun = this.#at - this.#from;
    const slab = Buffer.allocUnsafeSlow(begun + bytes + SLAB_BYTES);
    this.#slab.copy(slab, 0, this.#from, this.#at);
    this.#slab = slab;
    this.#from = 0;
    this.#at = begun;
  }
}

function writeVarint(buffer: Buffer, at: number, value: bigint): number {
  let left = value;
  let index = at;
  while (left > 0x7fn) {
    buffer[index] = Number(left & 0x7fn) | 0x80;
    index += 1;
    left >>= 7n;
  }
  buffer[index] = Number(left);
  return index + 1;
}

function varint(value: number): Buffer {
  const buffer = Buffer.alloc(10);
  return buffer.subarray(0, writeVarint(buffer, 0, BigInt(value)));
}

function tag(field: number, type: number): Buffer {
  return varint(field * 8 + type);
}
