import type * as OtelApi from "@opentelemetry/api";
import type * as OtelTrace from "@opentelemetry/sdk-trace-base";

/** The optional packages every tracing target is built on. */
export interface OtelPackages {
  otel: Pick<typeof OtelApi, "trace" | "ROOT_CONTEXT" | "TraceFlags" | "SpanStatusCode">;
  sdk: Pick<typeof OtelTrace, "BasicTracerProvider" | "AlwaysOnSampler">;
}

/** What has to be typed when they are missing, for targets that are not Langfuse. */
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

/** What is wrong with a package that cannot be imported. */
export function firstLine(error: unknown): string {
  return error instanceof Error ? (error.message.split("\n")[0] ?? "") : String(error);
}
