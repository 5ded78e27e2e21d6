import type * as OtelApi from "@opentelemetry/api";
import type * as OtelTrace from "@opentelemetry/sdk-trace-base";
import type * as LangfuseTracing from "@langfuse/tracing";

/** The optional packages every tracing target is built on. */
export interface OtelPackages {
  otel: Pick<typeof OtelApi, "trace" | "ROOT_CONTEXT" | "TraceFlags" | "SpanStatusCode">;
  sdk: Pick<typeof OtelTrace, "BasicTracerProvider" | "AlwaysOnSampler">;
}

/** The optional packages Langfuse tracing is built on. */
export interface LangfusePackages extends OtelPackages {
  langfuse: Pick<
    typeof LangfuseTracing,
    "createObservationAttributes" | "LangfuseOtelSpanAttributes"
  >;
}

/** What has to be typed when they are missing. */
export const INSTALL_COMMAND =
  "npm install @langfuse/tracing@^5.11.1 @opentelemetry/api@~1.9.0 @opentelemetry/sdk-trace-base@^2.12.0";

/** The same for the targets that are not Langfuse. */
export const OTEL_INSTALL_COMMAND =
  "npm install @opentelemetry/api@~1.9.0 @opentelemetry/sdk-trace-base@^2.12.0";

/** The packages every target needs, or why they cannot be used. Imports them only when called. Never rejects. */
export async function loadOtelPackages(): Promise<OtelPackages | { missing: string }> {
  try {
    const [otel, sdk] = await Promise.all([
      import("@opentelemetry/api"),
      import("@opentelemetry/sdk-trace-base"),
    ]);
    return { otel, sdk };
  } catch (error) {
    return { missing: firstLine(error) };
  }
}

/** The packages for Langfuse, or why they cannot be used. Imports them only when called. Never rejects. */
export async function loadPackages(): Promise<LangfusePackages | { missing: string }> {
  try {
    const [packages, langfuse] = await Promise.all([
      loadOtelPackages(),
      import("@langfuse/tracing"),
    ]);
    return "missing" in packages ? packages : { ...packages, langfuse };
  } catch (error) {
    return { missing: firstLine(error) };
  }
}

function firstLine(error: unknown): string {
  return error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
}
