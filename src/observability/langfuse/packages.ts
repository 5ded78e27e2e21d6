import type * as LangfuseTracing from "@langfuse/tracing";
import { firstLine, loadOtelPackages, type OtelPackages } from "../trace/otel.ts";

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
