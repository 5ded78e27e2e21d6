import type { TraceableRun } from "./observer.ts";

/** What a run's or an assistant's metadata says to stay out of every trace: `false`. */
export const OPT_OUT_METADATA = "aegra_trace";
/** The request header that says it: `off`. */
export const OPT_OUT_HEADER = "x-aegra-trace";

const OFF = new Set(["off", "false", "no", "0"]);

/** Whether a run must not be traced anywhere. The header outranks the run, the run its assistant. */
export function isOptedOut(run: Pick<TraceableRun, "metadata" | "headers">): boolean {
  return isOff(run.headers?.[OPT_OUT_HEADER]) || isOff(metadataValue(run.metadata));
}

function metadataValue(metadata: Readonly<Record<string, unknown>>): unknown {
  try {
    return metadata[OPT_OUT_METADATA];
  } catch {
    return undefined;
  }
}

function isOff(value: unknown): boolean {
  return value === false || (typeof value === "string" && OFF.has(value.trim().toLowerCase()));
}
