import { readFile } from "node:fs/promises";
import { parseEnv } from "node:util";

import { describeNoUrl } from "./addresses.ts";
import { describeKey, invalidHeader } from "./headers.ts";
import type { Problem } from "./problems.ts";
import { logLevelSchema, roleSchema, spoolSchema } from "./schema.ts";
import type { LogLevel, OtlpTarget, Role } from "./schema.ts";

/** Variables by name, as in `process.env`. */
export type Variables = Record<string, string | undefined>;

/** What the environment says of tracing; `undefined` where it says nothing. */
export interface TracingEnvironment {
  langfuse: {
    enabled: boolean;
    publicKey: string | undefined;
    secretKey: string | undefined;
    host: string | undefined;
    sampleRate: number | undefined;
    environment: string | undefined;
    release: string | undefined;
    timeoutMs: number | undefined;
    flushAt: number | undefined;
    flushIntervalMs: number | undefined;
  };
  /** Set where OTEL_TARGETS names it. */
  otlp: OtlpTarget | undefined;
  phoenix: OtlpTarget | undefined;
}

/** What the environment says; `undefined` where it says nothing. */
export interface EnvironmentValues extends TracingEnvironment {
  port: number | undefined;
  host: string | undefined;
  databaseUrl: string | undefined;
  directUrl: string | undefined;
  poolSize: number | undefined;
  listen: boolean | undefined;
  preparedStatements: boolean | undefined;
  role: Role | undefined;
  dataDir: string | undefined;
  logLevel: LogLevel | undefined;
  logPretty: boolean | undefined;
  concurrency: number | undefined;
  graceSeconds: number | undefined;
  /** JSON: what the graphs' own assistants are configured with. */
  graphConfigs: string | undefined;
  runTimeoutSeconds: number | undefined;
  traces: {
    spool: "disk" | "database" | "memory" | undefined;
    directory: string | undefined;
    maxMegabytes: number | undefined;
  };
}

const POSTGRES = ["postgres:", "postgresql:"];
const LANGFUSE_HOSTS = ["LANGFUSE_HOST", "LANGFUSE_BASE_URL", "LANGFUSE_BASEURL"];

/** The environment of this process. No other file reads `process.env`. */
export function processEnvironment(): Variables {
  return process.env;
}

/** Whether text for `stream` may be coloured: a terminal whose user has not set `NO_COLOR`. */
export function allowsColor(stream: { isTTY?: boolean }, env: Variables = process.env): boolean {
  return stream.isTTY === true && !env["NO_COLOR"];
}

/**
 * The variables in an env file; `undefined` if there is no such file. Rejects with what the file system says
 * of a file that cannot be read.
 */
export async function readEnvFile(path: string): Promise<Variables | undefined> {
  try {
    const text = await readFile(path, "utf8");
    return parseEnv(text.replace(/^\uFEFF/u, ""));
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Adds `variables` to `env` for the graphs' own code. A variable that is set stays as it is; one that is
 * empty counts as unset.
 */
export function addVariables(env: Variables, variables: Variables): void {
  for (const [name, value] of Object.entries(variables)) {
    if (value !== undefined && value !== "" && !env[name]) env[name] = value;
  }
}

/**
 * Reads every variable the server knows. What is wrong goes to `problems`; its value is then `undefined`.
 */
export function readEnvironment(env: Variables, problems: Problem[]): EnvironmentValues {
  const reader = createReader(env, problems);
  const { text, number, choice } = reader;
  const logFormat = choice("LOG_FORMAT", ["pretty", "json"]);
  return {
    port: number("PORT", { min: 0, max: 65_535, whole: true }),
    host: text("HOST"),
    databaseUrl: reader.url("DATABASE_URL", POSTGRES),
    directUrl: reader.url("DATABASE_DIRECT_URL", POSTGRES),
    poolSize: number("DATABASE_POOL_SIZE", { min: 2, max: 1000, whole: true }),
    listen: reader.truth("DATABASE_LISTEN"),
    preparedStatements: reader.truth("DATABASE_PREPARED_STATEMENTS"),
    role: choice("AEGRA_ROLE", roleSchema.options),
    dataDir: text("AEGRA_DATA_DIR"),
    logLevel: choice("LOG_LEVEL", logLevelSchema.options),
    logPretty: logFormat === undefined ? undefined : logFormat === "pretty",
    graphConfigs: text("LANGGRAPH_CONFIG"),
    concurrency: number("N_JOBS_PER_WORKER", { min: 1, max: 1000, whole: true }),
    graceSeconds: number("BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS", { min: 0, max: 3600 }),
    runTimeoutSeconds: number("BG_JOB_TIMEOUT_SECS", { min: 0.001, max: 2_000_000 }),
    traces: {
      spool: choice("AEGRA_TRACES_SPOOL", spoolSchema.options),
      directory: text("AEGRA_TRACES_DIR"),
      maxMegabytes: number("AEGRA_TRACES_MAX_MB", { min: 1, max: 1_000_000 }),
    },
    ...readTracingEnvironment(env, problems),
  };
}

/**
 * Reads the variables about tracing. Those of a target count only where it is asked for: other software shares
 * the names.
 */
export function readTracingEnvironment(env: Variables, problems: Problem[]): TracingEnvironment {
  const reader = createReader(env, problems);
  const { text, truth } = reader;
  const targets = readTargets(reader);
  const logging = truth("LANGFUSE_LOGGING") ?? targets.has("langfuse");
  const enabled = logging && (truth("LANGFUSE_TRACING_ENABLED") ?? true);
  const tracing = enabled ? reader : createReader(env, []);
  return {
    langfuse: {
      enabled,
      publicKey: tracing.key("LANGFUSE_PUBLIC_KEY"),
      secretKey: tracing.key("LANGFUSE_SECRET_KEY"),
      host: first(LANGFUSE_HOSTS, (name) => tracing.url(name, ["http:", "https:"])),
      sampleRate: tracing.number("LANGFUSE_SAMPLE_RATE", { min: 0, max: 1 }),
      environment: text("LANGFUSE_TRACING_ENVIRONMENT"),
      release: text("LANGFUSE_RELEASE"),
      timeoutMs: toMs(tracing.number("LANGFUSE_TIMEOUT", { min: 0.001, max: 3600 })),
      flushAt: tracing.number("LANGFUSE_FLUSH_AT", { min: 1, max: 100_000, whole: true }),
      flushIntervalMs: toMs(tracing.number("LANGFUSE_FLUSH_INTERVAL", { min: 0.001, max: 3600 })),
    },
    otlp: targets.has("otlp") ? readOtlpTarget(reader) : undefined,
    phoenix: targets.has("phoenix") ? readPhoenixTarget(reader) : undefined,
  };
}

const TARGETS = ["langfuse", "otlp", "phoenix"] as const;

/** The targets of OTEL_TARGETS. */
function readTargets(reader: Reader): Set<string> {
  const names = (reader.text("OTEL_TARGETS") ?? "")
    .split(",")
    .map((name) => name.trim().toLowerCase())
    .filter((name) => name !== "");
  const unknown = names.filter((name) => !TARGETS.some((target) => target === name));
  if (unknown.length > 0) {
    reader.refuse(
      "OTEL_TARGETS",
      `names ${unknown.map((name) => `"${name}"`).join(", ")}, which is no target; there are ${TARGETS.join(", ")}`,
    );
  }
  return new Set(names);
}

const OTLP = "OTEL_EXPORTER_OTLP";

/** The variables of OpenTelemetry's specification; those for traces outrank those for all signals. */
function readOtlpTarget(reader: Reader): OtlpTarget {
  const { text, url } = reader;
  const endpoint = url(`${OTLP}_ENDPOINT`, ["http:", "https:"]) ?? "http://localhost:4318";
  const name = text(`${OTLP}_TRACES_PROTOCOL`) ? `${OTLP}_TRACES_PROTOCOL` : `${OTLP}_PROTOCOL`;
  const protocol = text(name)?.toLowerCase() ?? "http/protobuf";
  if (protocol === "grpc") {
    reader.refuse(name, "is grpc, which is not spoken here; use http/protobuf or http/json");
  } else if (protocol !== "http/protobuf" && protocol !== "http/json") {
    reader.refuse(name, `must be http/protobuf or http/json, not "${protocol}"`);
  }
  const timeout = { min: 1, max: 3_600_000, whole: true };
  return {
    url:
      url(`${OTLP}_TRACES_ENDPOINT`, ["http:", "https:"]) ??
      `${endpoint.replace(/\/+$/u, "")}/v1/traces`,
    protocol: protocol === "http/json" ? "http/json" : "http/protobuf",
    headers: {
      ...reader.headers(`${OTLP}_HEADERS`),
      ...reader.headers(`${OTLP}_TRACES_HEADERS`),
    },
    resource: readResource(reader),
    timeoutMs:
      reader.number(`${OTLP}_TRACES_TIMEOUT`, timeout) ??
      reader.number(`${OTLP}_TIMEOUT`, timeout) ??
      10_000,
  };
}

/** The variables of Phoenix's own clients. */
function readPhoenixTarget(reader: Reader): OtlpTarget {
  const endpoint =
    reader.url("PHOENIX_COLLECTOR_ENDPOINT", ["http:", "https:"]) ?? "http://localhost:6006";
  const key = reader.key("PHOENIX_API_KEY");
  const project = reader.text("PHOENIX_PROJECT_NAME");
  const base = endpoint.replace(/\/+$/u, "");
  return {
    url: base.endsWith("/v1/traces") ? base : `${base}/v1/traces`,
    protocol: "http/protobuf",
    headers: key === undefined ? {} : { authorization: `Bearer ${key}` },
    resource: {
      ...readResource(reader),
      ...(project === undefined ? {} : { "openinference.project.name": project }),
    },
    timeoutMs: 10_000,
  };
}

function readResource(reader: Reader): Record<string, string> {
  const attributes = reader.pairs("OTEL_RESOURCE_ATTRIBUTES");
  const name = reader.text("OTEL_SERVICE_NAME") ?? attributes["service.name"] ?? "aegra";
  return { ...attributes, "service.name": name };
}

type Reader = ReturnType<typeof createReader>;

/** Readers of single variables: `undefined` for an unset or empty one, a problem for a wrong one. */
function createReader(env: Variables, problems: Problem[]) {
  const text = (name: string): string | undefined => {
    const value = env[name]?.trim() ?? "";
    return (name.startsWith("LANGFUSE_") ? unquote(value) : value) || undefined;
  };
  const refuse = (name: string, message: string): undefined => {
    problems.push({ source: "environment", key: name, message });
  };
  /** `a=1,b=2`, percent-encoded. The values are not repeated in the problem: they may be credentials. */
  const pairs = (name: string): Record<string, string> => {
    const found: Record<string, string> = {};
    for (const pair of (text(name) ?? "").split(",")) {
      if (pair.trim() === "") continue;
      const [key = "", ...rest] = pair.split("=");
      try {
        const value = decodeURIComponent(rest.join("=").trim());
        if (key.trim() === "" || rest.length === 0) throw new URIError("no value");
        found[decodeURIComponent(key.trim())] = value;
      } catch {
        refuse(name, "must look like name=value,other=value, with percent-encoded values");
      }
    }
    return found;
  };
  return {
    text,
    refuse,
    pairs,
    /** Pairs that are headers; one that cannot be sent is named, and its value is not. */
    headers: (name: string): Record<string, string> => {
      const headers = pairs(name);
      const problem = invalidHeader(headers);
      if (problem !== undefined) refuse(name, `cannot be sent: ${problem}`);
      return headers;
    },
    key: (name: string): string | undefined => {
      const value = text(name);
      const problem = value === undefined ? undefined : describeKey(value);
      return problem === undefined ? value : refuse(name, problem);
    },
    truth: (name: string): boolean | undefined => {
      const value = text(name)?.toLowerCase();
      if (value === undefined || value === "true" || value === "false")
        return value && value === "true";
      return refuse(name, `must be true or false, not "${env[name]}"`);
    },
    number: (
      name: string,
      range: { min: number; max: number; whole?: boolean },
    ): number | undefined => {
      const value = text(name);
      if (value === undefined) return undefined;
      const number = Number(value);
      const fits = number >= range.min && number <= range.max;
      if (fits && (!range.whole || Number.isInteger(number))) return number;
      const kind = range.whole ? "a whole number" : "a number";
      return refuse(name, `must be ${kind} from ${range.min} to ${range.max}, not "${value}"`);
    },
    choice: <T extends string>(name: string, choices: readonly T[]): T | undefined => {
      const value = text(name)?.toLowerCase();
      if (value === undefined) return undefined;
      const found = choices.find((choice) => choice === value);
      return found ?? refuse(name, `must be one of ${choices.join(", ")}, not "${value}"`);
    },
    /** The value is not repeated in the problem, where it may hold a password. */
    url: (name: string, schemes: string[]): string | undefined => {
      const value = text(name);
      if (value === undefined) return undefined;
      if (URL.canParse(value) && schemes.includes(new URL(value).protocol)) return value;
      if (schemes.includes("https:")) return refuse(name, describeNoUrl(value));
      return refuse(
        name,
        `must be a URL that begins with ${schemes.map((s) => `${s}//`).join(" or ")}`,
      );
    },
  };
}

/** A value without the quotes around it: `docker run --env-file` leaves them, other readers of such files do not. */
export function unquote(value: string): string {
  const [quote = ""] = value;
  const quoted = /["']/u.test(quote) && value.length > 1 && value.endsWith(quote);
  return quoted ? value.slice(1, -1).trim() : value;
}

function first<T>(names: string[], read: (name: string) => T | undefined): T | undefined {
  for (const name of names) {
    const value = read(name);
    if (value !== undefined) return value;
  }
  return undefined;
}

function toMs(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : Math.round(seconds * 1000);
}
