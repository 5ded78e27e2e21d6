import { gzip } from "node:zlib";
import { promisify } from "node:util";

const compress = promisify(gzip);

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
      const response = await fetch(options.url, {
        method: "POST",
        headers: {
          ...options.headers,
          "content-type": options.contentType,
          "content-encoding": "gzip",
        },
        body: new Uint8Array(compressed),
        redirect: "manual",
        signal: AbortSignal.any([stopped, AbortSignal.timeout(options.timeoutMs)]),
      });
      const answer = Buffer.from(await response.arrayBuffer());
      return judge(response, answer);
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
  if (!(response.headers.get("content-type") ?? "").includes("json"))
    return { rejected: 0, message: "" };
  try {
    const body = JSON.parse(answer.toString()) as {
      partialSuccess?: { rejectedSpans?: number | string; errorMessage?: string };
    };
    const rejected = Number(body.partialSuccess?.rejectedSpans ?? 0);
    return {
      rejected: Number.isSafeInteger(rejected) && rejected > 0 ? rejected : 0,
      message: (body.partialSuccess?.errorMessage ?? "").slice(0, 300),
    };
  } catch {
    return { rejected: 0, message: "" };
  }
}

/** Milliseconds to wait by a `Retry-After` header, in seconds or as a date; `undefined` where there is none. */
export function retryAfterMs(header: string | null, now = Date.now()): number | undefined {
  if (header === null || header.trim() === "") return undefined;
  const seconds = Number(header);
  if (Number.isFinite(seconds)) return Math.max(0, seconds * 1_000);
  const date = Date.parse(header);
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
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
