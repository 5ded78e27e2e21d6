import { gzip } from "node:zlib";
import { promisify } from "node:util";
import { withDeadline } from "./deadline.ts";

const compress = promisify(gzip);

/** A server that asks for more has its clock or its unit wrong. */
const LONGEST_RETRY_AFTER_MS = 3_600_000;

/** What became of one request, as a value: the sender decides, nothing is thrown. */
export type Delivery =
  | { kind: "delivered"; rejected: number; message: string }
  /** Try again later; `refused` means the keys, which a person has to mend. */
  | { kind: "retry"; afterMs: number | undefined; refused: boolean; message: string }
  /** The request itself is the problem: too large, or one of its spans. */
  | { kind: "unacceptable"; message: string };

export interface TransportOptions {
  url: string;
  headers: Readonly<Record<string, string>>;
  timeoutMs: number;
  contentType: "application/x-protobuf" | "application/json";
}

/** Sends one encoded request, gzipped; `signal` gives it up. Never rejects. */
export type Transport = (body: Buffer, signal: AbortSignal) => Promise<Delivery>;

/** A transport over HTTP(S), with keep-alive. It reads no environment variable and follows no redirect. */
export function createHttpTransport(options: TransportOptions): Transport {
  const compressOne = oneAtATime();
  return async (body, stopped) => {
    try {
      const compressed = await compressOne(body);
      return await withDeadline({ timeoutMs: options.timeoutMs, stopped }, async (signal) => {
        const response = await fetch(options.url, {
          method: "POST",
          headers: {
            ...options.headers,
            "content-type": options.contentType,
            "content-encoding": "gzip",
          },
          body: new Uint8Array(compressed),
          redirect: "manual",
          signal,
        });
        return judge(response, Buffer.from(await response.arrayBuffer()));
      });
    } catch (error) {
      return {
        kind: "retry",
        afterMs: undefined,
        refused: false,
        message: reasonOf(error, options.timeoutMs),
      };
    }
  };
}

/** One compression at a time: the threads that do it are those that write the spool. */
function oneAtATime(): (body: Buffer) => Promise<Buffer> {
  let last: Promise<unknown> = Promise.resolve();
  return (body) => {
    const next = last.then(() => compress(body, { level: 3 }));
    last = next.catch(() => {});
    return next;
  };
}

function judge(response: Response, answer: Buffer): Delivery {
  const { status } = response;
  const type = response.headers.get("content-type") ?? "";
  if (response.ok && !type.includes("html"))
    return { kind: "delivered", ...partialSuccess(response, answer) };
  // A page where an answer should be is a proxy's or a login's, and nothing was stored.
  const message = `HTTP ${status}${response.ok ? " with a page instead of an answer" : excerpt(answer)}`;
  if (status === 401 || status === 403)
    return { kind: "retry", afterMs: undefined, refused: true, message };
  if (status === 400 || status === 413 || status === 422) return { kind: "unacceptable", message };
  return {
    kind: "retry",
    afterMs: retryAfterMs(response.headers.get("retry-after")),
    refused: false,
    message,
  };
}

/** OTLP's answer to a request of which a part was refused; there is no telling which spans. */
function partialSuccess(response: Response, answer: Buffer): { rejected: number; message: string } {
  const type = response.headers.get("content-type") ?? "";
  try {
    const found = type.includes("json")
      ? fromJson(answer)
      : type.includes("protobuf")
        ? fromProtobuf(answer)
        : undefined;
    if (found === undefined || !Number.isSafeInteger(found.rejected)) return NOTHING_REJECTED;
    return { rejected: Math.max(0, found.rejected), message: found.message.slice(0, 300) };
  } catch {
    return NOTHING_REJECTED;
  }
}

const NOTHING_REJECTED = { rejected: 0, message: "" };

function fromJson(answer: Buffer): { rejected: number; message: string } {
  const { partialSuccess: partial } = JSON.parse(answer.toString()) as {
    partialSuccess?: { rejectedSpans?: number | string; errorMessage?: string };
  };
  return { rejected: Number(partial?.rejectedSpans ?? 0), message: partial?.errorMessage ?? "" };
}

/** `ExportTraceServiceResponse`: field 1 is the partial success, in it 1 the number and 2 the reason. */
function fromProtobuf(answer: Buffer): { rejected: number; message: string } {
  const partial = protobufFields(answer).get(1);
  if (!Buffer.isBuffer(partial)) return NOTHING_REJECTED;
  const fields = protobufFields(partial);
  const message = fields.get(2);
  return {
    rejected: Number(fields.get(1) ?? 0n),
    message: Buffer.isBuffer(message) ? message.toString() : "",
  };
}

/** Varints and length-delimited fields by number; throws at anything else. */
function protobufFields(bytes: Buffer): Map<number, bigint | Buffer> {
  const fields = new Map<number, bigint | Buffer>();
  let at = 0;
  const varint = (): bigint => {
    let value = 0n;
    for (let shift = 0n; shift < 64n; shift += 7n) {
      const byte = bytes.readUInt8(at);
      at += 1;
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) break;
    }
    return value;
  };
  while (at < bytes.length) {
    const key = Number(varint());
    const value = varint();
    if (key % 8 === 0) fields.set(key >> 3, value);
    else if (key % 8 === 2) {
      fields.set(key >> 3, bytes.subarray(at, at + Number(value)));
      at += Number(value);
    } else throw new Error(`wire type ${key % 8}`);
  }
  return fields;
}

/** Milliseconds to wait by a `Retry-After` header, in seconds or as a date, an hour at most; `undefined` where there is none. */
export function retryAfterMs(header: string | null, now = Date.now()): number | undefined {
  if (header === null || header.trim() === "") return undefined;
  const seconds = Number(header);
  const waitMs = Number.isFinite(seconds) ? seconds * 1_000 : Date.parse(header) - now;
  return Number.isNaN(waitMs) ? undefined : Math.min(LONGEST_RETRY_AFTER_MS, Math.max(0, waitMs));
}

function excerpt(answer: Buffer): string {
  const text = answer.toString("utf8", 0, 200).replaceAll(/\s+/g, " ").trim();
  return text === "" || text.startsWith("<") ? "" : `: ${text}`;
}

/** One short sentence for a failed request; `fetch` hides the reason in its cause. */
export function reasonOf(error: unknown, timeoutMs: number): string {
  if (!(error instanceof Error)) return String(error);
  if (error.name === "TimeoutError") return `no answer within ${timeoutMs} ms`;
  const { cause } = error;
  if (cause instanceof Error) {
    const code = "code" in cause ? String(cause.code) : "";
    return cause.message === "" ? code || error.message : cause.message;
  }
  return error.message;
}
