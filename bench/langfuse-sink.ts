/**
 * Stands in for Langfuse, in a process of its own: takes what it gets and decodes it only when it is asked how
 * many runs it has heard of, so that it does not take the processor from what is measured.
 */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { gunzipSync } from "node:zlib";
import { decodeTraces } from "../test/support/langfuse-decode.ts";
import { answer } from "./child.ts";

const bodies: { raw: Buffer; gzip: boolean; type: string }[] = [];

const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    if (request.url?.startsWith("/api/public/otel")) {
      bodies.push({
        raw: Buffer.concat(chunks),
        gzip: request.headers["content-encoding"] === "gzip",
        type: String(request.headers["content-type"]),
      });
      return send(response, {});
    }
    if (request.url?.startsWith("/api/public/projects")) {
      return send(response, { data: [{ id: "project-1", name: "Bench" }] });
    }
    send(response, { status: "OK", version: "4.16.0" });
  });
});
await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));

answer(async (question: { what: "address" | "traces" }) => {
  if (question.what === "address") {
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  }
  const roots = new Set<string>();
  let spans = 0;
  let bytes = 0;
  for (const { raw, gzip, type } of bodies.splice(0)) {
    bytes += raw.length;
    for (const span of decodeTraces(gzip ? gunzipSync(raw) : raw, type)) {
      spans += 1;
      if (span.parentSpanId === undefined) roots.add(span.traceId);
    }
  }
  return { traces: roots.size, spans, bytes };
});

function send(response: ServerResponse, body: object): void {
  response.writeHead(200, { "Content-Type": "application/json" }).end(JSON.stringify(body));
}
