import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { decodeTraces, type ReceivedSpan } from "./langfuse-decode.ts";

export interface OtlpRequest {
  path: string;
  headers: Record<string, string>;
  spans: ReceivedSpan[];
}

/** A stand-in for any OTLP backend on 127.0.0.1: real HTTP, both encodings. */
export interface OtlpReceiver {
  readonly url: string;
  readonly requests: readonly OtlpRequest[];
  readonly spans: readonly ReceivedSpan[];
  /** What the next requests are answered with; 200 stores. */
  status: number;
  trace(traceId: string): ReceivedSpan[];
  /** Resolves when `condition` holds. Rejects after `timeoutMs` (60,000). */
  until(condition: () => boolean, timeoutMs?: number): Promise<void>;
  close(): Promise<void>;
}

export async function openOtlpReceiver(): Promise<OtlpReceiver> {
  const requests: OtlpRequest[] = [];
  const waiters = new Set<() => void>();
  const server = createServer((request, response) => {
    void read(request).then((raw) => {
      const body = request.headers["content-encoding"] === "gzip" ? gunzipSync(raw) : raw;
      const headers = Object.fromEntries(
        Object.entries(request.headers).map(([key, value]) => [key, String(value)]),
      );
      const type = headers["content-type"] ?? "";
      const spans = receiver.status === 200 ? decodeTraces(body, type) : [];
      requests.push({ path: request.url ?? "/", headers, spans });
      response.writeHead(receiver.status, { "content-type": "application/json" }).end("{}");
      for (const check of waiters) check();
    });
  });
  await new Promise<void>((resolve) => {
    server.listen(0, "127.0.0.1", resolve);
  });
  const receiver: OtlpReceiver = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    requests,
    get spans() {
      return requests.flatMap(({ spans }) => spans);
    },
    status: 200,
    trace: (traceId) => receiver.spans.filter((span) => span.traceId === traceId),
    async until(condition, timeoutMs = 60_000) {
      if (condition()) return;
      await new Promise<void>((resolve, reject) => {
        const check = (): void => {
          if (!condition()) return;
          clearTimeout(timer);
          waiters.delete(check);
          resolve();
        };
        const timer = setTimeout(() => {
          waiters.delete(check);
          reject(new Error(`nothing of the kind within ${timeoutMs} ms`));
        }, timeoutMs);
        waiters.add(check);
      });
    },
    async close() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => {
        server.close(() => resolve());
      });
    },
  };
  return receiver;
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}
