import type { Config, OtlpTarget } from "../config/schema.ts";
import { createHttpTransport } from "../observability/delivery/transport.ts";
import { toSettings } from "../observability/langfuse/config.ts";
import { checkProject } from "../observability/langfuse/project.ts";
import { reportOn, type Finding } from "./check.ts";

const TIMEOUT_MS = 10_000;

/** Whether the targets beside the default Langfuse project would take traces: further projects, OTLP, Phoenix. */
export async function checkTargets(config: Config): Promise<Finding[]> {
  const projects = config.langfuse.enabled ? Object.keys(config.langfuse.projects ?? {}) : [];
  const found = await Promise.all([
    ...projects.map((name) => checkFurtherProject(config, name)),
    ...(config.otlp === undefined ? [] : [checkOtlp("otlp", config.otlp)]),
    ...(config.phoenix === undefined ? [] : [checkOtlp("phoenix", config.phoenix)]),
  ]);
  return found;
}

async function checkFurtherProject(config: Config, name: string): Promise<Finding> {
  const report = reportOn(`langfuse:${name}`);
  const keys = config.langfuse.projects?.[name];
  const { mask: _mask, ...langfuse } = config.langfuse;
  const { settings, problem } = toSettings({ ...langfuse, ...keys });
  const advice = `Check langfuse.projects.${name} and the variables it names;`;
  if (problem !== undefined)
    return report.failed(problem, `${advice} its runs are not traced until then.`);
  const answer = await checkProject(settings, AbortSignal.timeout(TIMEOUT_MS));
  if (answer.kind !== "ok")
    return report.failed(answer.message, `${advice} its traces wait until then.`);
  return report.ok(`traces go to the project "${answer.projectName}" at ${settings.host}`);
}

/** Sends a request without spans, which stores nothing and still has to get past the door. */
async function checkOtlp(name: "otlp" | "phoenix", target: OtlpTarget): Promise<Finding> {
  const report = reportOn(name);
  const json = target.protocol === "http/json";
  const send = createHttpTransport({
    url: target.url,
    headers: target.headers,
    timeoutMs: Math.min(target.timeoutMs, TIMEOUT_MS),
    contentType: json ? "application/json" : "application/x-protobuf",
  });
  const empty = json ? Buffer.from('{"resourceSpans":[]}') : Buffer.alloc(0);
  const answer = await send(empty, AbortSignal.timeout(TIMEOUT_MS));
  // Some backends object to a request without spans; they have read it, though.
  if (answer.kind !== "retry") return report.ok(`traces go to ${target.url}`);
  const variables = name === "phoenix" ? "PHOENIX_*" : "OTEL_EXPORTER_OTLP_*";
  return report.failed(
    answer.refused
      ? `${target.url} refuses the keys (${answer.message})`
      : `${target.url} does not take traces (${answer.message})`,
    `Check ${variables} in .env; traces wait until it does.`,
  );
}
