/** OTLP trace requests, JSON or protobuf, decoded to one plain shape. Written apart from the encoder on purpose. */

export type AttributeValue = string | number | boolean | AttributeValue[] | null;

export interface ReceivedSpan {
  traceId: string;
  spanId: string;
  parentSpanId: string | undefined;
  name: string;
  startNs: bigint;
  endNs: bigint;
  statusCode: number;
  attributes: Record<string, AttributeValue>;
  scope: { name: string; version: string };
  resource: Record<string, AttributeValue>;
  /** OTLP's number; left out for 1, internal. */
  kind?: number;
  statusMessage?: string;
  /** Left out where there are none, as are links. */
  events?: { name: string; timeNs: bigint; attributes: Record<string, AttributeValue> }[];
  links?: { traceId: string; spanId: string }[];
}

export function decodeTraces(body: Buffer, contentType: string): ReceivedSpan[] {
  return contentType.includes("json")
    ? decodeJson(JSON.parse(body.toString()))
    : decodeProtobuf(body);
}

// --- JSON -----------------------------------------------------------------------------------------------------

interface JsonValue {
  stringValue?: string;
  boolValue?: boolean;
  intValue?: string | number;
  doubleValue?: number;
  arrayValue?: { values?: JsonValue[] };
}
interface JsonAttribute {
  key: string;
  value: JsonValue;
}
interface JsonSpan {
  traceId?: string;
  spanId?: string;
  parentSpanId?: string;
  name?: string;
  startTimeUnixNano?: string | number;
  endTimeUnixNano?: string | number;
  attributes?: JsonAttribute[];
  status?: { code?: number; message?: string };
  kind?: number;
  events?: { name?: string; timeUnixNano?: string | number; attributes?: JsonAttribute[] }[];
  links?: { traceId?: string; spanId?: string }[];
}
interface JsonRequest {
  resourceSpans?: Array<{
    resource?: { attributes?: JsonAttribute[] };
    scopeSpans?: Array<{ scope?: { name?: string; version?: string }; spans?: JsonSpan[] }>;
  }>;
}

function decodeJson(request: JsonRequest): ReceivedSpan[] {
  return (request.resourceSpans ?? []).flatMap((resourceSpans) =>
    (resourceSpans.scopeSpans ?? []).flatMap((scopeSpans) =>
      (scopeSpans.spans ?? []).map((span) => ({
        traceId: span.traceId ?? "",
        spanId: span.spanId ?? "",
        parentSpanId: span.parentSpanId === "" ? undefined : span.parentSpanId,
        name: span.name ?? "",
        startNs: BigInt(span.startTimeUnixNano ?? 0),
        endNs: BigInt(span.endTimeUnixNano ?? 0),
        statusCode: span.status?.code ?? 0,
        ...extras({
          kind: span.kind ?? 0,
          statusMessage: span.status?.message ?? "",
          events: (span.events ?? []).map((event) => ({
            name: event.name ?? "",
            timeNs: BigInt(event.timeUnixNano ?? 0),
            attributes: fromJsonAttributes(event.attributes),
          })),
          links: (span.links ?? []).map(({ traceId = "", spanId = "" }) => ({ traceId, spanId })),
        }),
        attributes: fromJsonAttributes(span.attributes),
        scope: { name: scopeSpans.scope?.name ?? "", version: scopeSpans.scope?.version ?? "" },
        resource: fromJsonAttributes(resourceSpans.resource?.attributes),
      })),
    ),
  );
}

/** What most spans do not have is left out. */
function extras(span: Required<Extras>): Extras {
  return {
    ...(span.kind === 1 ? {} : { kind: span.kind }),
    ...(span.statusMessage === "" ? {} : { statusMessage: span.statusMessage }),
    ...(span.events.length === 0 ? {} : { events: span.events }),
    ...(span.links.length === 0 ? {} : { links: span.links }),
  };
}

type Extras = Pick<ReceivedSpan, "kind" | "statusMessage" | "events" | "links">;

function fromJsonAttributes(
  attributes: JsonAttribute[] | undefined,
): Record<string, AttributeValue> {
  return Object.fromEntries(
    (attributes ?? []).map(({ key, value }) => [key, fromJsonValue(value)]),
  );
}

function fromJsonValue(value: JsonValue): AttributeValue {
  if (value.stringValue !== undefined) return value.stringValue;
  if (value.boolValue !== undefined) return value.boolValue;
  if (value.intValue !== undefined) return Number(value.intValue);
  if (value.doubleValue !== undefined) return value.doubleValue;
  return value.arrayValue === undefined ? null : (value.arrayValue.values ?? []).map(fromJsonValue);
}

// --- protobuf -------------------------------------------------------------------------------------------------

type Field = { number: number; bytes: Buffer; value: bigint };

function decodeProtobuf(body: Buffer): ReceivedSpan[] {
  return all(body, 1).flatMap((resourceSpans) => {
    const resource = readAttributes(all(resourceSpans, 1).flatMap((bytes) => all(bytes, 1)));
    return all(resourceSpans, 2).flatMap((scopeSpans) => {
      const [scopeBytes] = all(scopeSpans, 1);
      const scope = { name: text(scopeBytes, 1), version: text(scopeBytes, 2) };
      return all(scopeSpans, 2).map((span) => ({ ...readSpan(span), scope, resource }));
    });
  });
}

function readSpan(bytes: Buffer): Omit<ReceivedSpan, "scope" | "resource"> {
  const fields = parse(bytes);
  const hex = (number: number): string =>
    fields.find((field) => field.number === number)?.bytes.toString("hex") ?? "";
  const int = (number: number): bigint =>
    fields.find((field) => field.number === number)?.value ?? 0n;
  const [status] = all(bytes, 15);
  const parent = hex(4);
  return {
    traceId: hex(1),
    spanId: hex(2),
    parentSpanId: parent === "" ? undefined : parent,
    name: text(bytes, 5),
    startNs: int(7),
    endNs: int(8),
    attributes: readAttributes(all(bytes, 9)),
    ...extras({
      kind: Number(int(6)),
      statusMessage: text(status, 2),
      events: all(bytes, 11).map((event) => ({
        name: text(event, 2),
        timeNs: parse(event).find((field) => field.number === 1)?.value ?? 0n,
        attributes: readAttributes(all(event, 3)),
      })),
      links: all(bytes, 13).map((link) => ({
        traceId: all(link, 1)[0]?.toString("hex") ?? "",
        spanId: all(link, 2)[0]?.toString("hex") ?? "",
      })),
    }),
    statusCode:
      status === undefined
        ? 0
        : Number(parse(status).find((field) => field.number === 3)?.value ?? 0n),
  };
}

function readAttributes(entries: Buffer[]): Record<string, AttributeValue> {
  return Object.fromEntries(
    entries.map((entry) => [text(entry, 1), readValue(all(entry, 2)[0] ?? Buffer.alloc(0))]),
  );
}

function readValue(bytes: Buffer): AttributeValue {
  const [field] = parse(bytes);
  switch (field?.number) {
    case 1:
      return utf8(field.bytes);
    case 2:
      return field.value !== 0n;
    case 3:
      return Number(BigInt.asIntN(64, field.value));
    case 4: {
      const double = Buffer.alloc(8);
      double.writeBigUInt64LE(field.value);
      return double.readDoubleLE();
    }
    case 5:
      return all(field.bytes, 1).map(readValue);
    default:
      return null;
  }
}

function all(bytes: Buffer, number: number): Buffer[] {
  return parse(bytes)
    .filter((field) => field.number === number)
    .map((field) => field.bytes);
}

function text(bytes: Buffer | undefined, number: number): string {
  const field =
    bytes === undefined ? undefined : parse(bytes).find((candidate) => candidate.number === number);
  return field === undefined ? "" : utf8(field.bytes);
}

/** Strict: text that is not UTF-8 is a broken request, as it is for a real server. */
function utf8(bytes: Buffer): string {
  return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
}

function parse(bytes: Buffer): Field[] {
  const fields: Field[] = [];
  const none = Buffer.alloc(0);
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 70n; shift += 7n) {
      const byte = bytes[at];
      if (byte === undefined) throw new Error("truncated varint");
      at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    throw new Error("varint too long");
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const number = key >>> 3;
    const type = key & 7;
    if (type === 0) fields.push({ number, value: varint(), bytes: none });
    else if (type === 1) {
      fields.push({ number, value: bytes.readBigUInt64LE(at), bytes: none });
      at += 8;
    } else if (type === 2) {
      const length = Number(varint());
      if (at + length > bytes.length) throw new Error("truncated field");
      fields.push({ number, value: 0n, bytes: bytes.subarray(at, at + length) });
      at += length;
    } else throw new Error(`wire type ${type}`);
  }
  return fields;
}
