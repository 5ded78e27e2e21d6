import { gzip } from "node:zlib";
import { promisify } from "node:util";
import { invalidHeader } from "../../config/headers.ts";
import { readAnswer } from "./answer.ts";
import { withDeadline } from "./deadline.ts";
import { readPartialSuccess } from "./partial-success.ts";
import { reasonOf, toLine } from "./reason.ts";
import { createWithhold, type Withhold } from "./withhold.ts";

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
  const withhold = createWithhold(options.headers);
  const invalid = invalidHeader(options.headers);
  const later = (message: string): Delivery => {
    return { kind: "retry", afterMs: undefined, refused: false, message };
  };
  return async (body, stopped) => {
    if (invalid !== undefined) return later(invalid);
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
        return judge(response, await readAnswer(response), withhold);
      });
    } catch (error) {
      return later(reasonOf(error, options.timeoutMs, withhold));
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

function judge(response: Response, answer: Buffer, withhold: Withhold): Delivery {
  const { status } = response;
  const type = response.headers.get("content-type") ?? "";
  if (response.ok && !type.includes("html")) {
    const { rejected, message } = readPartialSuccess(answer);
    return { kind: "delivered", rejected, message: toLine(message, withhold) };
  }
  // A page where an answer should be is a proxy's or a login's, and nothing was stored.
  const what = response.ok ? " with a page instead of an answer" : excerpt(answer, withhold);
  const message = `HTTP ${status}${what}`;
  if (status === 400 || status === 413 || status === 422) return { kind: "unacceptable", message };
  return {
    kind: "retry",
    afterMs: retryAfterMs(response.headers.get("retry-after")),
    refused: status === 401 || status === 403,
    message,
  };
}

function excerpt(answer: Buffer, withhold: Withhold): string {
  const line = toLine(answer.toString(), withhold);
  return line === "" || line.startsWith("<") ? "" : `: ${line}`;
}

/** Milliseconds to wait by a `Retry-After` header, in seconds or as a date, an hour at most; `undefined` where there is none. */
export function retryAfterMs(header: string | null, now = Date.now()): number | undefined {
  if (header === null || header.trim() === "") return undefined;
  const seconds = Number(header);
  const waitMs = Number.isFinite(seconds) ? seconds * 1_000 : Date.parse(header) - now;
  return Number.isNaN(waitMs) ? undefined : Math.min(LONGEST_RETRY_AFTER_MS, Math.max(0, waitMs));
}
