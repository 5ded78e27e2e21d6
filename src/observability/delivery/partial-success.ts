/** OTLP's answer to a request of which a part was refused; there is no telling which spans. */
export interface PartialSuccess {
  rejected: number;
  message: string;
}

const NOTHING_REJECTED: PartialSuccess = { rejected: 0, message: "" };

/**
 * What an accepted request's answer says of spans it leaves out. Decided by its content, since not every server names
 * its type: JSON begins with a brace, which no message in protobuf does. What is neither says nothing.
 */
export function readPartialSuccess(answer: Buffer): PartialSuccess {
  try {
    const text = answer.toString("utf8", 0, 64).replace(/^\uFEFF/, "");
    const found = /^\s*\{/.test(text) ? fromJson(answer) : fromProtobuf(answer);
    if (!Number.isSafeInteger(found.rejected)) return NOTHING_REJECTED;
    return { rejected: Math.max(0, found.rejected), message: found.message };
  } catch {
    return NOTHING_REJECTED;
  }
}

function fromJson(answer: Buffer): PartialSuccess {
  const { partialSuccess: partial } = JSON.parse(answer.toString().replace(/^\uFEFF/, "")) as {
    partialSuccess?: { rejectedSpans?: number | string; errorMessage?: unknown } | null;
  };
  const message = partial?.errorMessage;
  return {
    rejected: Number(partial?.rejectedSpans ?? 0),
    message: typeof message === "string" ? message : "",
  };
}

/** `ExportTraceServiceResponse`: field 1 is the partial success, in it 1 the number and 2 the reason. */
function fromProtobuf(answer: Buffer): PartialSuccess {
  const partial = protobufFields(answer).get(1);
  if (!Buffer.isBuffer(partial)) return NOTHING_REJECTED;
  const fields = protobufFields(partial);
  const rejected = fields.get(1) ?? 0n;
  const message = fields.get(2) ?? Buffer.alloc(0);
  // Any other kind of field is some other message.
  if (Buffer.isBuffer(rejected) || !Buffer.isBuffer(message)) return NOTHING_REJECTED;
  return { rejected: Number(rejected), message: message.toString() };
}

/** Varints and length-delimited fields by number; throws at anything else, and at what ends in the middle. */
function protobufFields(bytes: Buffer): Map<number, bigint | Buffer> {
  const fields = new Map<number, bigint | Buffer>();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes.readUInt8(at);
      at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new Error("a varint without an end");
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const value = varint();
    if (key < 8) throw new Error("field 0");
    if (key % 8 === 0) fields.set(Math.floor(key / 8), value);
    else if (key % 8 === 2) {
      const end = at + Number(value);
      if (end > bytes.length) throw new Error("a field without an end");
      fields.set(Math.floor(key / 8), bytes.subarray(at, end));
      at = end;
    } else throw new Error(`wire type ${key % 8}`);
  }
  return fields;
}
