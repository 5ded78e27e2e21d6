import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { freePort } from "./free-port.ts";
import { decodeTraces, type ReceivedSpan } from "./langfuse-decode.ts";
import { formatSpans, type FormatOptions } from "./langfuse-format.ts";
import { spanViolations, traceViolations } from "./langfuse-rules.ts";

export type { ReceivedSpan } from "./langfuse-decode.ts";

/** How the next requests are met. `paths` narrows it; by default it is for traces only. */
export type Behaviour =
  | { kind: "accept" }
  | { kind: "status"; status: number; retryAfter?: string; body?: string }
  /** Never answers. */
  | { kind: "hang" }
  | { kind: "slow"; ms: number }
  /** Breaks the connection, before or after storing what came. */
  | { kind: "drop"; after?: "storing" }
  /** Breaks the connection when a part of the request has come. */
  | { kind: "half-read" }
  /** Answers at once, reads no more, and hangs up: a proxy that does not want the body. */
  | { kind: "unread"; status: number }
  /** Breaks the connection in the middle of its answer, with what came stored. */
  | { kind: "cut-answer" }
  /** 200 with a page: a captive portal, or a proxy that wants a login. */
  | { kind: "page" }
  /** 200, and a body without an end. */
  | { kind: "endless" }
  /** 413 for uncompressed bodies over the limit. */
  | { kind: "limit"; bytes: number }
  /** 400 for the whole batch if it holds such a span. */
  | { kind: "refuse-span"; name: string }
  | { kind: "partial"; rejected: number };

export interface ReceivedRequest {
  path: string;
  headers: Record<string, string>;
  /** Uncompressed size. */
  bytes: number;
  spans: ReceivedSpan[];
  status: number | undefined;
}

export interface ReceivedScore {
  id?: string;
  traceId?: string;
  name?: string;
  value?: unknown;
  dataType?: string;
  comment?: string;
}

/** A stand-in for Langfuse on 127.0.0.1: real HTTP, real credentials, the real server's rules. */
export interface LangfuseReceiver {
  readonly url: string;
  readonly port: number;
  readonly publicKey: string;
  readonly secretKey: string;
  readonly projectId: string;
  readonly requests: readonly ReceivedRequest[];
  /** Every span stored, in order of arrival, resent ones included. */
  readonly spans: readonly ReceivedSpan[];
  readonly scores: readonly ReceivedScore[];
  /** Meets the requests for traces (or `path`) so, until told otherwise. */
  behave(behaviour: Behaviour, path?: string): void;
  /** Accepts these keys from now on. */
  setKeys(publicKey: string, secretKey: string): void;
  /** Requests for traces (or `path`) that came, also those that were not read to the end. */
  attempts(path?: string): number;
  trace(traceId: string): ReceivedSpan[];
  traceIds(): string[];
  /** What a real server would drop or misread, of all that came. */
  violations(): string[];
  formatTrace(traceId: string, options?: FormatOptions): string;
  /** Resolves when `condition` holds; checked whenever something arrives. Rejects after `timeoutMs` (60,000). */
  until(condition: (receiver: LangfuseReceiver) => boolean, timeoutMs?: number): Promise<void>;
  /** Resolves when the trace's root is there. */
  waitForTrace(traceId: string, timeoutMs?: number): Promise<ReceivedSpan[]>;
  clear(): void;
  close(): Promise<void>;
}

export interface ReceiverOptions {
  publicKey?: string;
  secretKey?: string;
  /** Default: any free port. */
  port?: number;
  projectName?: string;
  /** A path in front of the API, as behind a proxy. */
  basePath?: string;
}

/** Opens a receiver; `close` ends it. */
export async function openLangfuseReceiver(
  options: ReceiverOptions = {},
): Promise<LangfuseReceiver> {
  const receiver = new Receiver(options);
  // One that is closed and comes back has to find its port free.
  await receiver.listen(options.port ?? (await freePort()));
  return receiver;
}

const TRACES = "/api/public/otel/v1/traces";

class Receiver implements LangfuseReceiver {
  publicKey: string;
  secretKey: string;
  readonly projectId = "project-1";
  readonly requests: ReceivedRequest[] = [];
  readonly spans: ReceivedSpan[] = [];
  readonly scores: ReceivedScore[] = [];
  port = 0;
  readonly #server: Server;
  readonly #options: ReceiverOptions;
  readonly #behaviours = new Map<string, Behaviour>();
  readonly #waiters = new Set<() => void>();
  readonly #found: string[] = [];
  readonly #bodies = new Map<string, string>();
  readonly #attempts = new Map<string, number>();

  constructor(options: ReceiverOptions) {
    this.#options = options;
    this.publicKey = options.publicKey ?? "pk-lf-test";
    this.secretKey = options.secretKey ?? "sk-lf-test";
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch((error: unknown) => {
        if (!response.headersSent) send(response, 500, { message: String(error) });
      });
    });
  }

  async listen(port: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once("error", reject);
      this.#server.listen(port, "127.0.0.1", resolve);
    });
    this.port = (this.#server.address() as AddressInfo).port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}${this.#options.basePath ?? ""}`;
  }

  behave(behaviour: Behaviour, path = TRACES): void {
    this.#behaviours.set(path, behaviour);
  }

  setKeys(publicKey: string, secretKey: string): void {
    this.publicKey = publicKey;
    this.secretKey = secretKey;
  }

  attempts(path = TRACES): number {
    const read = this.requests.filter((request) => request.path === path).length;
    return read + (this.#attempts.get(path) ?? 0);
  }

  trace(traceId: string): ReceivedSpan[] {
    return this.spans.filter((span) => span.traceId === traceId);
  }

  traceIds(): string[] {
    return [...new Set(this.spans.map((span) => span.traceId))];
  }

  violations(): string[] {
    const perTrace = groupByTrace(this.spans);
    return [...this.#found, ...[...perTrace.values()].flatMap((spans) => traceViolations(spans))];
  }

  formatTrace(traceId: string, options?: FormatOptions): string {
    return formatSpans(this.trace(traceId), options);
  }

  async until(
    condition: (receiver: LangfuseReceiver) => boolean,
    timeoutMs = 60_000,
  ): Promise<void> {
    if (condition(this)) return;
    await new Promise<void>((resolve, reject) => {
      const check = (): void => {
        if (!condition(this)) return;
        clearTimeout(timer);
        this.#waiters.delete(check);
        resolve();
      };
      const timer = setTimeout(() => {
        this.#waiters.delete(check);
        reject(
          new Error(
            `nothing of the kind within ${timeoutMs} ms; ${this.spans.length} spans are here`,
          ),
        );
      }, timeoutMs);
      this.#waiters.add(check);
    });
  }

  async waitForTrace(traceId: string, timeoutMs?: number): Promise<ReceivedSpan[]> {
    await this.until(
      (self) => self.trace(traceId).some((span) => span.parentSpanId === undefined),
      timeoutMs,
    );
    return this.trace(traceId);
  }

  clear(): void {
    this.requests.length = 0;
    this.spans.length = 0;
    this.scores.length = 0;
    this.#found.length = 0;
    this.#bodies.clear();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const base = this.#options.basePath ?? "";
    const url = (request.url ?? "/").split("?")[0] ?? "/";
    const path = url.startsWith(base) ? url.slice(base.length) : url;
    const early = this.#behaviours.get(path);
    if (early?.kind === "half-read" || early?.kind === "unread") {
      meetEarly(early, request, response);
      this.#attempts.set(path, (this.#attempts.get(path) ?? 0) + 1);
      for (const check of this.#waiters) check();
      return;
    }
    const raw = await read(request);
    const body = request.headers["content-encoding"] === "gzip" ? gunzipSync(raw) : raw;
    const entry: ReceivedRequest = {
      path,
      headers: Object.fromEntries(
        Object.entries(request.headers).map(([key, value]) => [key, String(value)]),
      ),
      bytes: body.length,
      spans: [],
      status: undefined,
    };
    this.requests.push(entry);
    const behaviour = this.#behaviours.get(path) ?? { kind: "accept" };
    const status = await this.#meet(behaviour, { request, response, path, body, entry });
    entry.status = status;
    for (const check of this.#waiters) check();
  }

  async #meet(
    behaviour: Behaviour,
    about: {
      request: IncomingMessage;
      response: ServerResponse;
      path: string;
      body: Buffer;
      entry: ReceivedRequest;
    },
  ): Promise<number | undefined> {
    const { request, response, path, body, entry } = about;
    switch (behaviour.kind) {
      case "hang":
        return undefined;
      case "drop":
        if (behaviour.after === "storing") this.#store(path, body, entry);
        request.socket.destroy();
        return undefined;
      case "status": {
        const headers: Record<string, string> =
          behaviour.retryAfter === undefined ? {} : { "retry-after": behaviour.retryAfter };
        return send(
          response,
          behaviour.status,
          behaviour.body ?? { message: `status ${behaviour.status}` },
          headers,
        );
      }
      case "cut-answer":
        this.#store(path, body, entry);
        response.writeHead(200, { "content-type": "application/json", "content-length": 1_000 });
        response.write('{"partial');
        await new Promise((resolve) => setTimeout(resolve, 20));
        request.socket.resetAndDestroy();
        return undefined;
      case "endless":
        await sendWithoutEnd(response);
        return 200;
      case "page":
        response.writeHead(200, { "content-type": "text/html" });
        response.end("<html>Log in first</html>");
        return 200;
      case "half-read":
      case "unread":
        return undefined;
      case "slow":
        await new Promise((resolve) => setTimeout(resolve, behaviour.ms));
        break;
      case "limit":
        if (body.length > behaviour.bytes) return send(response, 413, { message: "too large" });
        break;
      case "refuse-span": {
        const spans = decodeTraces(body, String(request.headers["content-type"]));
        if (spans.some((span) => span.name === behaviour.name))
          return send(response, 400, { message: "bad span" });
        break;
      }
      case "partial":
      case "accept":
        break;
    }
    if (path === "/api/public/health")
      return send(response, 200, { status: "OK", version: "4.16.0" });
    if (!this.#authorized(request)) return send(response, 401, { message: "Invalid credentials" });
    const answer = this.#store(path, body, entry);
    if (answer.status === 200 && behaviour.kind === "partial") {
      return send(response, 200, {
        partialSuccess: { rejectedSpans: String(behaviour.rejected), errorMessage: "some" },
      });
    }
    return send(response, answer.status, answer.body);
  }

  #authorized(request: IncomingMessage): boolean {
    const expected = Buffer.from(`${this.publicKey}:${this.secretKey}`).toString("base64");
    return request.headers.authorization === `Basic ${expected}`;
  }

  #store(path: string, body: Buffer, entry: ReceivedRequest): { status: number; body: unknown } {
    if (path === TRACES) return this.#storeTraces(body, entry);
    if (path === "/api/public/projects") {
      return {
        status: 200,
        body: { data: [{ id: this.projectId, name: this.#options.projectName ?? "Test project" }] },
      };
    }
    const [, traceId] = /^\/api\/public\/traces\/([0-9a-f]{32})$/u.exec(path) ?? [];
    if (traceId !== undefined) {
      const found = this.spans.some((span) => span.traceId === traceId);
      return found
        ? { status: 200, body: { id: traceId } }
        : { status: 404, body: { message: "Trace not found" } };
    }
    if (path === "/api/public/scores") {
      const score = JSON.parse(body.toString()) as ReceivedScore;
      const at = this.scores.findIndex((known) => known.id !== undefined && known.id === score.id);
      if (at >= 0) this.scores[at] = score;
      else this.scores.push(score);
      return { status: 200, body: { id: score.id } };
    }
    this.#found.push(`unknown path ${path}`);
    return { status: 404, body: { message: "not found" } };
  }

  #storeTraces(body: Buffer, entry: ReceivedRequest): { status: number; body: unknown } {
    const version = entry.headers["x-langfuse-ingestion-version"];
    if (version !== "4") this.#found.push(`ingestion version ${String(version)}`);
    let spans: ReceivedSpan[];
    try {
      spans = decodeTraces(body, entry.headers["content-type"] ?? "");
    } catch (error) {
      this.#found.push(`a body that cannot be decoded: ${String(error)}`);
      return { status: 400, body: { message: "cannot be decoded" } };
    }
    if (spans.some((span) => span.traceId === "" || span.spanId === "")) {
      this.#found.push("a span without ids: the whole batch is refused");
      return { status: 400, body: { message: "ids are missing" } };
    }
    for (const span of spans) {
      this.#found.push(...spanViolations(span));
      const text = JSON.stringify(span, (_key, value: unknown) =>
        typeof value === "bigint" ? String(value) : value,
      );
      const key = `${span.traceId}/${span.spanId}`;
      const known = this.#bodies.get(key);
      if (known !== undefined && known !== text) {
        this.#found.push(`${span.name}: sent again, and not the same`);
      }
      this.#bodies.set(key, text);
    }
    entry.spans.push(...spans);
    this.spans.push(...spans);
    return { status: 200, body: {} };
  }
}

function meetEarly(
  behaviour: Extract<Behaviour, { kind: "half-read" | "unread" }>,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  if (behaviour.kind === "half-read") {
    request.once("data", () => request.socket.destroy());
    return;
  }
  response.writeHead(behaviour.status, { "content-type": "application/json", connection: "close" });
  response.end("{}", () => request.socket.destroy());
}

function groupByTrace(spans: readonly ReceivedSpan[]): Map<string, ReceivedSpan[]> {
  const groups = new Map<string, ReceivedSpan[]>();
  for (const span of spans) groups.set(span.traceId, [...(groups.get(span.traceId) ?? []), span]);
  return groups;
}

function send(
  response: ServerResponse,
  status: number,
  body: unknown,
  headers: Record<string, string> = {},
): number {
  response.writeHead(status, { "content-type": "application/json", ...headers });
  response.end(typeof body === "string" ? body : JSON.stringify(body));
  return status;
}

/** Resolves when the client hangs up; after 256 MB at the latest, for the sake of one that does not. */
async function sendWithoutEnd(response: ServerResponse): Promise<void> {
  response.writeHead(200, { "content-type": "application/json" });
  const chunk = Buffer.alloc(64 * 1_024, " ");
  for (let sent = 0; sent < 4_096 && !response.destroyed; sent += 1) {
    if (response.write(chunk)) continue;
    const over = new AbortController();
    const options = { signal: over.signal };
    await Promise.race([once(response, "drain", options), once(response, "close", options)]);
    over.abort();
  }
  response.end();
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
