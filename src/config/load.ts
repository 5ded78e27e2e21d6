import { dirname, resolve } from "node:path";

import { toLangfuseBase } from "./addresses.ts";
import { addVariables, processEnvironment, readEnvFile, readEnvironment } from "./env.ts";
import type { EnvironmentValues, Variables } from "./env.ts";
import { CONFIG_FILES, checkFolder, readConfigFile } from "./file.ts";
import type { ReadConfigFile } from "./file.ts";
import { toGraphSpecs } from "./graphs.ts";
import { toProjects } from "./langfuse.ts";
import { toModuleReference } from "./module-reference.ts";
import { COMMAND_LINE, toStartupError } from "./problems.ts";
import type { Problem } from "./problems.ts";
import { logLevelSchema, roleSchema } from "./schema.ts";
import { describeUnknownVariables } from "./unknown-variables.ts";
import { toWebhooks } from "./webhooks.ts";
import type {
  Config,
  ConfigFile,
  Flags,
  HttpConfig,
  LangfuseConfig,
  LogLevel,
  Role,
  TracingConfig,
} from "./schema.ts";

export interface LoadConfigOptions {
  /** The project's folder. */
  cwd: string;
  /** The config file, relative to `cwd`; without it `aegra.json`, else `langgraph.json`. */
  configPath?: string | undefined;
  flags?: Flags;
  mode: "dev" | "start";
  /** Whether a config file with graphs must exist. A migration only needs to know the database. */
  needsGraphs?: boolean;
  /** Default: the environment of this process. Variables from env files are added to it. */
  env?: Variables;
  /** Whether logs go to a terminal, where they are made readable. */
  terminal?: boolean;
}

const DEFAULT_PORT = 2024;
const DEFAULT_GRACE_SECONDS = { dev: 2, start: 20 } as const;
const DEFAULT_LANGFUSE_HOST = "https://cloud.langfuse.com";

/**
 * The configuration of the project in `cwd`: defaults < config file < environment < flags. The variables of
 * the env file the config names, of `.env` in `cwd`, and of the config's `env` object are added to the
 * environment, in this order, where they are not set already.
 *
 * Rejects with one `startup_failed` that lists every problem with its file and key.
 */
export async function loadConfig(options: LoadConfigOptions): Promise<Config> {
  const cwd = resolve(options.cwd);
  const env = options.env ?? processEnvironment();
  const problems: Problem[] = [];
  const isThere = await checkFolder(cwd, problems);
  const file = isThere ? await readConfigFile(cwd, options.configPath, problems) : undefined;
  const envFiles = isThere ? await loadVariables({ cwd, file, env, problems }) : [];
  const environment = readEnvironment(env, problems);
  const graphs = toGraphSpecs(file, environment.graphConfigs, problems);
  if (options.needsGraphs !== false && problems.length === 0 && Object.keys(graphs).length === 0) {
    problems.push(
      file
        ? {
            source: file.path,
            key: "graphs",
            message: 'must name at least one graph, such as { "agent": "./agent.ts:graph" }',
          }
        : {
            source: cwd,
            key: "",
            message: `has no ${CONFIG_FILES.join(" or ")}; create one such as { "graphs": { "agent": "./agent.ts:graph" } }`,
          },
    );
  }
  checkHttp(file, problems);
  const flags = readFlags(options.flags ?? {}, problems);
  const databaseUrl = environment.databaseUrl ?? readDatabaseUrl(file, "url", problems);
  const directUrl = environment.directUrl ?? readDatabaseUrl(file, "direct_url", problems);
  const role = flags.role ?? environment.role ?? "all";
  if (role !== "all" && databaseUrl === undefined) {
    const asked = flags.role === undefined ? `AEGRA_ROLE=${role}` : `--role ${role}`;
    problems.push({
      source: "environment",
      key: "DATABASE_URL",
      message: `must be set: ${asked} needs PostgreSQL, which several processes share`,
    });
  }
  const langfuse = toLangfuse(environment.langfuse, file, { env, problems });
  const webhooks = toWebhooks(file, { env, problems });
  if (problems.length > 0) throw toStartupError(problems);

  const values = file?.values ?? {};
  const base = file ? dirname(file.path) : cwd;
  const dataDir =
    toDataDir(environment.dataDir, cwd) ??
    toDataDir(values.database?.data_dir, base) ??
    resolve(cwd, ".aegra");
  const port = flags.port ?? environment.port ?? values.port;
  const runTimeoutSeconds = environment.runTimeoutSeconds ?? values.workers?.run_timeout_seconds;
  return {
    cwd,
    configPath: file?.path,
    watched: [
      ...(options.configPath === undefined ? CONFIG_FILES : [options.configPath]).map((name) =>
        resolve(cwd, name),
      ),
      ...envFiles,
    ],
    mode: options.mode,
    host:
      flags.host ??
      environment.host ??
      values.host ??
      (options.mode === "dev" ? "127.0.0.1" : "0.0.0.0"),
    port: { value: port ?? DEFAULT_PORT, explicit: port !== undefined },
    graphs,
    auth: {
      module:
        values.auth?.path === undefined ? undefined : toModuleReference(values.auth.path, base),
      disable_studio_auth: values.auth?.disable_studio_auth ?? true,
    },
    http: toHttp(values.http, base),
    store: values.store ?? {},
    checkpointer: values.checkpointer ?? {},
    database: {
      url: databaseUrl,
      dataDir,
      directUrl,
      poolSize: environment.poolSize ?? values.database?.pool_size,
      listen: environment.listen ?? values.database?.listen,
      preparedStatements: environment.preparedStatements ?? values.database?.prepared_statements,
    },
    role,
    events: {
      retentionMs: (values.events?.retention_minutes ?? 60) * 60_000,
      maxBytes: (values.events?.max_megabytes ?? 64) * MEGABYTE,
    },
    langfuse,
    otlp: environment.otlp,
    phoenix: environment.phoenix,
    schemas: { types: toTypeReading(values.schemas?.types, options.mode) },
    metrics: { enabled: values.metrics?.enabled ?? true },
    tracing: {
      ...toTracing(environment.traces, values.tracing, { cwd, base, dataDir }),
      traceparent: values.tracing?.traceparent ?? "link",
    },
    webhooks,
    log: {
      level: flags.logLevel ?? environment.logLevel ?? values.log?.level ?? "info",
      pretty: environment.logPretty ?? values.log?.pretty ?? options.terminal ?? false,
    },
    workers: {
      concurrency: flags.workers ?? environment.concurrency ?? values.workers?.concurrency ?? 10,
      perUser: values.workers?.per_user,
      perAssistant: values.workers?.per_assistant,
      maxWaiting: values.workers?.max_waiting,
      leaseMs: (values.workers?.lease_seconds ?? 10) * 1000,
      graceMs:
        1000 *
        (environment.graceSeconds ??
          values.workers?.grace_seconds ??
          DEFAULT_GRACE_SECONDS[options.mode]),
      ...(runTimeoutSeconds !== undefined && { runTimeoutMs: 1000 * runTimeoutSeconds }),
    },
    warnings: [
      ...(file?.warnings ?? []),
      ...describeUnknownVariables(env, JSON.stringify(values)).map(
        (warning) => `environment: ${warning}`,
      ),
    ],
  };
}

/** The whole app runs before authentication where its middleware does: its routes cannot be behind it. */
function checkHttp(file: ReadConfigFile | undefined, problems: Problem[]): void {
  const http = file?.values.http;
  if (!file || http?.middleware_order !== "middleware_first") return;
  if (http.enable_custom_route_auth === false) return;
  problems.push({
    source: file.path,
    key: "http.middleware_order",
    message:
      '"middleware_first" runs your app before authentication, so it needs "enable_custom_route_auth": false',
  });
}

function toHttp(http: ConfigFile["http"], base: string): HttpConfig {
  if (!http) return { cors: undefined };
  const disabled = (
    ["assistants", "threads", "runs", "store", "meta", "mcp", "a2a"] as const
  ).filter((group) => http[`disable_${group}`]);
  return {
    cors: http.cors,
    app: http.app === undefined ? undefined : toModuleReference(http.app, base),
    authenticateApp: http.enable_custom_route_auth ?? true,
    middlewareFirst: http.middleware_order === "middleware_first",
    mountPrefix: http.mount_prefix,
    configurableHeaders: http.configurable_headers,
    disabled,
  };
}

/** Adds the variables of the project to `env`; returns the env files, existing or not. */
async function loadVariables(context: {
  cwd: string;
  file: ReadConfigFile | undefined;
  env: Variables;
  problems: Problem[];
}): Promise<string[]> {
  const { cwd, file, env, problems } = context;
  const configured = file?.values.env;
  const dotenv = resolve(cwd, ".env");
  const named =
    typeof configured === "string" && file ? resolve(dirname(file.path), configured) : undefined;
  const paths = [...new Set([...(named === undefined ? [] : [named]), dotenv])];
  for (const path of paths) {
    try {
      const variables = await readEnvFile(path);
      if (variables) addVariables(env, variables);
      else if (path === named && path !== dotenv && file) {
        problems.push({
          source: file.path,
          key: "env",
          message: `names ${path}, which does not exist`,
        });
      }
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      problems.push({ source: path, key: "", message: `cannot be read: ${message}` });
    }
  }
  if (file && typeof configured === "object")
    addVariables(env, toVariables(file, configured, problems));
  return paths;
}

function toVariables(
  file: ReadConfigFile,
  object: Record<string, unknown>,
  problems: Problem[],
): Variables {
  const variables: Variables = {};
  for (const [name, value] of Object.entries(object)) {
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean") {
      variables[name] = String(value);
    } else {
      problems.push({ source: file.path, key: `env.${name}`, message: "must be a string" });
    }
  }
  return variables;
}

function readDatabaseUrl(
  file: ReadConfigFile | undefined,
  key: "url" | "direct_url",
  problems: Problem[],
): string | undefined {
  const url = file?.values.database?.[key];
  if (!file || url === undefined || /^postgres(ql)?:\/\//u.test(url)) return url;
  problems.push({
    source: file.path,
    key: `database.${key}`,
    message: "must be a URL that begins with postgres:// or postgresql://",
  });
  return undefined;
}

/** An absolute folder; `memory://` is PGlite without a folder, for tests. */
function toDataDir(dataDir: string | undefined, base: string): string | undefined {
  return dataDir === undefined || dataDir === "memory://" ? dataDir : resolve(base, dataDir);
}

function readFlags(
  flags: Flags,
  problems: Problem[],
): {
  host: string | undefined;
  port: number | undefined;
  logLevel: LogLevel | undefined;
  role: Role | undefined;
  workers: number | undefined;
} {
  const { host, port, workers, processes } = flags;
  const refuse = (key: string, message: string): void => {
    problems.push({ source: COMMAND_LINE, key, message });
  };
  const checkNumber = (key: string, number: number | undefined, range: [number, number]): void => {
    if (number === undefined) return;
    const [min, max] = range;
    if (Number.isInteger(number) && number >= min && number <= max) return;
    refuse(key, `must be a whole number from ${min} to ${max}`);
  };
  const role = roleSchema.options.find((known) => known === flags.role);
  if (flags.role !== undefined && role === undefined)
    refuse("--role", `must be one of ${roleSchema.options.join(", ")}`);
  checkNumber("--workers", workers, [1, 1_000]);
  checkNumber("--processes", processes, [1, 256]);
  checkNumber("--port", port, [0, 65_535]);
  const logLevel = logLevelSchema.options.find((level) => level === flags.logLevel);
  if (flags.logLevel !== undefined && logLevel === undefined)
    refuse("--log-level", `must be one of ${logLevelSchema.options.join(", ")}`);
  return { host, port, logLevel, role, workers };
}

/** Reading types costs seconds of processor time, which belongs to the runs in production. */
function toTypeReading(
  types: boolean | undefined,
  mode: Config["mode"],
): NonNullable<Config["schemas"]>["types"] {
  if (types === undefined) return mode === "dev" ? "extract" : "cached";
  return types ? "extract" : "off";
}

const MEGABYTE = 1_024 * 1_024;

/** Traces wait beside the other local files; where those are in memory, so are they. */
function toTracing(
  environment: EnvironmentValues["traces"],
  file: ConfigFile["tracing"] = {},
  folders: { cwd: string; base: string; dataDir: string },
): Omit<TracingConfig, "traceparent"> {
  const asked =
    environment.directory === undefined
      ? file.directory && resolve(folders.base, file.directory)
      : resolve(folders.cwd, environment.directory);
  const nowhere = asked === undefined && folders.dataDir === "memory://";
  return {
    spool: environment.spool ?? file.spool ?? (nowhere ? "memory" : "disk"),
    directory:
      asked ??
      resolve(nowhere ? folders.cwd : folders.dataDir, nowhere ? ".aegra/traces" : "traces"),
    maxBytes: Math.round((environment.maxMegabytes ?? file.max_megabytes ?? 2_048) * MEGABYTE),
    maxAgeMs: Math.round((file.max_age_hours ?? 7 * 24) * 3_600_000),
    maxRecordBytes: Math.round((file.max_record_megabytes ?? 16) * MEGABYTE),
    fsync: file.fsync ?? false,
  };
}

function toLangfuse(
  environment: EnvironmentValues["langfuse"],
  file: ReadConfigFile | undefined,
  context: { env: Variables; problems: Problem[] },
): LangfuseConfig {
  const values = file?.values.langfuse ?? {};
  const base = dirname(file?.path ?? "");
  const host = toLangfuseBase(environment.host ?? DEFAULT_LANGFUSE_HOST);
  return {
    ...environment,
    host,
    sampleRate: environment.sampleRate ?? 1,
    headers: values.headers ?? {},
    mask: values.mask === undefined ? undefined : toModuleReference(values.mask, base),
    capture: {
      input: values.capture?.input ?? true,
      output: values.capture?.output ?? true,
      maxChars: values.capture?.max_chars,
    },
    route: values.route === undefined ? undefined : toModuleReference(values.route, base),
    projects: environment.enabled && file ? toProjects(file, host, context) : {},
  };
}
