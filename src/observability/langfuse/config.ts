import { toLangfuseBase } from "../../config/addresses.ts";
import { describeKey, invalidHeader } from "../../config/headers.ts";
import type { Mask } from "../trace/mask.ts";

/** Everything the Langfuse observer needs to know. Plain data but for `mask`; nothing here reads the environment. */
export interface LangfuseConfig {
  enabled: boolean;
  publicKey: string | undefined;
  secretKey: string | undefined;
  /** Base address; a path prefix and trailing slashes are fine. */
  host: string | undefined;
  /** 0 to 1; decided by run id. Default 1. */
  sampleRate?: number | undefined;
  environment?: string | undefined;
  release?: string | undefined;
  /** The deployment's version. */
  version?: string | undefined;
  /** One request to Langfuse. Default 10,000. */
  timeoutMs?: number | undefined;
  /** Spans that make a batch worth sending at once. Default 256. */
  flushAt?: number | undefined;
  /** The longest a span waits for company. Default 1,000. */
  flushIntervalMs?: number | undefined;
  /** Extra headers on every request, such as for a proxy in front of Langfuse. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** Applied to every input, output, metadata value, name and error text. A field whose mask throws is withheld. */
  mask?: Mask | undefined;
  /** What content is captured (both default to true), and the longest field in characters. Default 400,000. */
  capture?:
    | { input?: boolean | undefined; output?: boolean | undefined; maxChars?: number | undefined }
    | undefined;
}

export const LANGFUSE_CLOUD = "https://cloud.langfuse.com";

/** `config` with every default filled in. */
export interface LangfuseSettings {
  publicKey: string;
  secretKey: string;
  host: string;
  sampleRate: number;
  environment: string;
  release: string | undefined;
  version: string | undefined;
  timeoutMs: number;
  flushAt: number;
  flushIntervalMs: number;
  headers: Readonly<Record<string, string>>;
  mask: Mask | undefined;
  capture: { input: boolean; output: boolean; maxChars: number | undefined };
}

/**
 * The settings of a config, or one sentence that says what is missing and what to do. Values that Langfuse
 * would refuse silently are corrected here; `notes` tells which.
 */
export function toSettings(config: LangfuseConfig): {
  settings: LangfuseSettings;
  problem: string | undefined;
  notes: string[];
} {
  const notes: string[] = [];
  const host = toHost(config.host ?? LANGFUSE_CLOUD);
  const settings: LangfuseSettings = {
    publicKey: config.publicKey?.trim() ?? "",
    secretKey: config.secretKey?.trim() ?? "",
    host: host ?? LANGFUSE_CLOUD,
    sampleRate: toRate(config.sampleRate, notes),
    environment: toEnvironment(config.environment, notes),
    release: config.release,
    version: config.version,
    timeoutMs: positive(config.timeoutMs, 10_000),
    flushAt: positive(config.flushAt, 256),
    flushIntervalMs: positive(config.flushIntervalMs, 1_000),
    headers: config.headers ?? {},
    mask: config.mask,
    capture: {
      input: config.capture?.input ?? true,
      output: config.capture?.output ?? true,
      maxChars: config.capture?.maxChars,
    },
  };
  const problem =
    host === undefined
      ? `LANGFUSE_HOST is not an address: write it like ${LANGFUSE_CLOUD}.`
      : (missingKeys(settings) ?? whatCannotBeSent(settings));
  return { settings, problem, notes };
}

function missingKeys({ publicKey, secretKey, host }: LangfuseSettings): string | undefined {
  const missing = [
    ...(publicKey === "" ? ["LANGFUSE_PUBLIC_KEY"] : []),
    ...(secretKey === "" ? ["LANGFUSE_SECRET_KEY"] : []),
  ];
  if (missing.length === 0) return undefined;
  return `${missing.join(" and ")} ${missing.length > 1 ? "are" : "is"} not set: copy the keys from the project's settings in Langfuse (${host}), or set LANGFUSE_LOGGING=false.`;
}

function whatCannotBeSent({ publicKey, secretKey, headers }: LangfuseSettings): string | undefined {
  const keys = { LANGFUSE_PUBLIC_KEY: publicKey, LANGFUSE_SECRET_KEY: secretKey };
  for (const [name, key] of Object.entries(keys)) {
    const problem = describeKey(key);
    if (problem !== undefined) return `${name} ${problem}.`;
  }
  const header = invalidHeader(headers, "langfuse");
  return header === undefined ? undefined : `langfuse.headers cannot be sent: ${header}.`;
}

function toHost(host: string): string | undefined {
  try {
    const url = new URL(host.trim());
    if (url.protocol !== "http:" && url.protocol !== "https:") return undefined;
    return toLangfuseBase(`${url.origin}${url.pathname}`);
  } catch {
    return undefined;
  }
}

function toRate(rate: number | undefined, notes: string[]): number {
  if (rate === undefined) return 1;
  if (rate >= 0 && rate <= 1) return rate;
  notes.push(`The sample rate ${rate} is not between 0 and 1; every run is traced.`);
  return 1;
}

function toEnvironment(environment: string | undefined, notes: string[]): string {
  if (environment === undefined || environment === "") return "default";
  const fixed = environment
    .toLowerCase()
    .replaceAll(/[^a-z0-9-_]/g, "-")
    .slice(0, 40);
  // The server reserves this prefix for itself.
  const usable = fixed.startsWith("langfuse") ? "default" : fixed;
  if (usable !== environment) {
    notes.push(
      `The tracing environment "${environment}" is sent as "${usable}": Langfuse takes at most 40 characters of a-z, 0-9, - and _, not starting with "langfuse".`,
    );
  }
  return usable;
}

function positive(value: number | undefined, otherwise: number): number {
  return value !== undefined && Number.isFinite(value) && value > 0 ? value : otherwise;
}
