import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import type { Config } from "../config/schema.ts";
import { loadLangfuseObserver } from "../observability/langfuse/observer.ts";
import { createLogger } from "../observability/log.ts";
import type { Observer, ObserverStatus } from "../observability/observer.ts";
import { reportOn, type Finding } from "./check.ts";
import { reasonOf } from "./project.ts";

/** A clock further off than this shows in Langfuse as traces in the wrong order. */
const LARGEST_SKEW_MS = 5_000;
const TIMEOUT_MS = 10_000;
/** Langfuse answers "queued" first and stores a little later. */
const READ_BACK_MS = 20_000;
const READ_EVERY_MS = 1_000;

/**
 * Whether traces would arrive: packages, keys, reachability and clock; then sends one trace and reads it
 * back, where the keys allow it.
 */
export async function checkLangfuse(config: Config): Promise<Finding[]> {
  const report = reportOn("langfuse");
  const { langfuse } = config;
  if (!langfuse.enabled) {
    return [report.skipped("off; LANGFUSE_LOGGING=true turns it on")];
  }
  const log = createLogger({ level: "silent", pretty: false });
  const { mask: _mask, ...settings } = langfuse;
  const observer = await loadLangfuseObserver({ ...settings, sampleRate: 1 }, { log });
  try {
    await observer.ready();
    const [status] = observer.status();
    if (status?.state !== "on") {
      return [report.failed(status?.message ?? "not working", describeMeanwhile(config, status))];
    }
    const findings = [report.ok(status.message), await checkClock(config)];
    return [...findings, await checkTrace(config, observer)];
  } finally {
    await observer.shutdown(1_000);
  }
}

/** Only what can deliver lets traces wait: without keys or packages there is nothing that makes any. */
function describeMeanwhile(config: Config, status: ObserverStatus | undefined): string {
  if (status?.delivery === undefined) return "Runs go on, untraced, until this is mended.";
  const limit = config.tracing.spool === "memory" ? ", if the server has not ended by then" : "";
  return `Runs go on, and their traces are sent once this is mended${limit}.`;
}

async function checkClock(config: Config): Promise<Finding> {
  const report = reportOn("clock");
  try {
    const before = Date.now();
    const answer = await request(config, "/api/public/health");
    const theirs = Date.parse(answer.headers.get("date") ?? "");
    if (Number.isNaN(theirs)) return report.skipped("Langfuse does not tell its time");
    // The header has whole seconds; the request's own duration is no skew either.
    const skewMs = Math.max(0, Math.abs((before + Date.now()) / 2 - theirs - 500) - 500);
    if (skewMs <= LARGEST_SKEW_MS) return report.ok("this machine's clock agrees with Langfuse's");
    return report.warning(
      `this machine's clock is ${Math.round(skewMs / 1000)} s off Langfuse's`,
      "Synchronise the clock (NTP); traces are stored under this machine's time.",
    );
  } catch (error) {
    return report.skipped(`Langfuse's health page does not answer (${reasonOf(error)})`);
  }
}

async function checkTrace(config: Config, observer: Observer): Promise<Finding> {
  const report = reportOn("trace");
  const runId = uuid7();
  const now = new Date();
  observer
    .startRun({
      run_id: runId,
      thread_id: uuid7(),
      session_id: undefined,
      user_id: undefined,
      graph_id: "aegra-doctor",
      assistant_id: "aegra-doctor",
      assistant_name: "aegra doctor",
      assistant_version: 1,
      attempt: 1,
      trigger: "doctor",
      tags: [],
      metadata: {},
      input: "Does a trace arrive?",
      checkpoint_id: undefined,
      resumed_from: undefined,
      created_at: now,
      started_at: now,
      traceparent: undefined,
    })
    .end({ status: "success", output: "It does." });
  const sent = await observer.flush(TIMEOUT_MS);
  if (!sent) {
    const [status] = observer.status();
    return report.failed(
      `a test trace was not accepted: ${status?.last_error ?? "no answer"}`,
      "Check a proxy in front of Langfuse, and that it forwards POST /api/public/otel/v1/traces.",
    );
  }
  return readBack(config, observer, runId);
}

async function readBack(config: Config, observer: Observer, runId: string): Promise<Finding> {
  const report = reportOn("trace");
  const url = observer.traceUrl(runId) ?? runId.replaceAll("-", "");
  const deadline = Date.now() + READ_BACK_MS;
  for (;;) {
    const answer = await request(config, `/api/public/traces/${runId.replaceAll("-", "")}`).catch(
      () => undefined,
    );
    if (answer?.ok) return report.ok(`a test trace was sent and read back: ${url}`);
    if (answer?.status === 401 || answer?.status === 403) {
      return report.ok(`a test trace was accepted; these keys may not read it back: ${url}`);
    }
    if (Date.now() > deadline) {
      return report.warning(
        `a test trace was accepted, but could not be read back within ${READ_BACK_MS / 1000} s: ${url}`,
        "Look for it in Langfuse. If it never appears, look at Langfuse's worker and queue.",
      );
    }
    await new Promise((resolve) => setTimeout(resolve, READ_EVERY_MS));
  }
}

function request(config: Config, path: string): Promise<Response> {
  const { publicKey, secretKey, host, headers } = config.langfuse;
  const credentials = Buffer.from(`${publicKey ?? ""}:${secretKey ?? ""}`).toString("base64");
  return fetch(`${host.replace(/\/+$/u, "")}${path}`, {
    headers: { ...headers, authorization: `Basic ${credentials}`, accept: "application/json" },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
}
