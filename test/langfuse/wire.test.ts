import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-http";
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  SimpleSpanProcessor,
} from "@opentelemetry/sdk-trace-base";
import { expect, test } from "vitest";
import {
  createSpanEncoder,
  createRequestEncoder,
  type OtlpValue,
} from "../../src/observability/otlp-protobuf.ts";
import { decodeTraces } from "../support/langfuse-decode.ts";
import { openLangfuseReceiver } from "../support/langfuse-receiver.ts";

test("OpenTelemetry's own exporter and our encoder say the same", async () => {
  const receiver = await openLangfuseReceiver();
  const memory = new InMemorySpanExporter();
  const auth = Buffer.from(`${receiver.publicKey}:${receiver.secretKey}`).toString("base64");
  const official = new OTLPTraceExporter({
    url: `${receiver.url}/api/public/otel/v1/traces`,
    headers: { authorization: `Basic ${auth}`, "x-langfuse-ingestion-version": "4" },
  });
  const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(memory)] });
  const span = provider
    .getTracer("langfuse-sdk", "1")
    .startSpan("näme", { startTime: [1_700_000_000, 123] });
  span.setAttributes({
    text: "ü😀",
    whole: 7,
    below: -7,
    part: 0.5,
    yes: true,
    list: ["a", "b"],
    mixed: [1, 2.5],
  });
  span.setStatus({ code: 2 });
  span.end([1_700_000_009, 456]);
  const spans = memory.getFinishedSpans();
  const result = await new Promise((resolve) => official.export(spans, resolve));
  expect(result).toMatchObject({ code: 0 });

  const encode = createSpanEncoder();
  const ours = spans.map((finished) =>
    encode({
      ...finished.spanContext(),
      parentSpanId: undefined,
      name: finished.name,
      kind: 1,
      start: finished.startTime,
      end: finished.endTime,
      attributes: finished.attributes as Record<string, OtlpValue>,
      statusCode: finished.status.code,
    }),
  );
  const origin = { resource: {}, scope: { name: "langfuse-sdk", version: "1" } };
  const decoded = decodeTraces(createRequestEncoder(origin)(ours), "application/x-protobuf");
  expect(decoded.map((one) => ({ ...one, resource: {} }))).toEqual(
    receiver.spans.map((one) => ({ ...one, resource: {} })),
  );
  await official.shutdown();
  await receiver.close();
});
