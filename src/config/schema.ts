import { z } from "zod";
import type { RunnableConfig } from "../protocol/common.ts";

import { headerProblem } from "./headers.ts";

/**
 * The configuration: what `aegra.json` (or `langgraph.json`) may say, and what the server works with after
 * file, environment and flags have been merged. Each option is described here once.
 */

const text = z.string().trim().min(1, { error: "must not be empty", abort: true });
const texts = z.array(z.string());
const portNumber = z.int("must be a whole number").min(0).max(65_535, "must be at most 65535");

/** `"./agent.ts:graph"`: a file, and after the last colon the export to use. */
const moduleReference = text
  .regex(/[^:]/u, { error: 'must look like "./file.ts:export"', abort: true })
  .regex(/[^:]$/u, 'names no export after the colon: it must look like "./file.ts:export"');

/** A shorthand string stands for an object with only a path. */
const graphEntry = z.preprocess(
  (value) => (typeof value === "string" ? { path: value } : value),
  z.strictObject(
    { path: moduleReference, description: z.string().optional() },
    {
      error: ({ code }) =>
        code === "invalid_type"
          ? 'must be "./file.ts:export", or an object with it as "path"'
          : undefined,
    },
  ),
);

/** CORS of the API, with the names of the langgraph.json format. `max_age` is in seconds. */
export const corsSchema = z.strictObject({
  allow_origins: texts.optional(),
  allow_origin_regex: z.string().refine(isRegExp, "is not a regular expression").optional(),
  allow_methods: texts.optional(),
  allow_headers: texts.optional(),
  allow_credentials: z.boolean().optional(),
  expose_headers: texts.optional(),
  max_age: z.number().min(0).optional(),
});

/** Names of headers, in which `*` stands for anything: `x-*`. */
const headerPatterns = z.strictObject({ includes: texts.optional(), excludes: texts.optional() });

/** The HTTP API, with the names of the langgraph.json format. */
const httpSchema = z.strictObject({
  cors: corsSchema.optional(),
  app: moduleReference.optional(),
  enable_custom_route_auth: z.boolean().optional(),
  middleware_order: z.enum(["auth_first", "middleware_first"]).optional(),
  mount_prefix: z
    .string()
    .regex(/^(?:\/[\w.-]+)+$/u, 'must look like "/prefix", without a slash at the end')
    .optional(),
  configurable_headers: headerPatterns.optional(),
  disable_assistants: z.boolean().optional(),
  disable_threads: z.boolean().optional(),
  disable_runs: z.boolean().optional(),
  disable_store: z.boolean().optional(),
  disable_meta: z.boolean().optional(),
  disable_mcp: z.boolean().optional(),
  disable_a2a: z.boolean().optional(),
  disable_webhooks: z.boolean().optional(),
});

/** TTL numbers are minutes, as in the langgraph.json format. */
const storeSchema = z.strictObject({
  index: z
    .strictObject({
      dims: z.int().min(1),
      embed: text,
      fields: texts.optional(),
    })
    .optional(),
  ttl: z
    .strictObject({
      default_ttl: z.number().min(0).optional(),
      refresh_on_read: z.boolean().optional(),
      sweep_interval_minutes: z.number().positive().optional(),
    })
    .optional(),
});

/** TTL numbers are minutes, as in the langgraph.json format. */
const checkpointerSchema = z.strictObject({
  ttl: z
    .strictObject({
      strategy: z.enum(["delete", "keep_latest"]).optional(),
      default_ttl: z.number().positive().optional(),
      sweep_interval_minutes: z.number().positive().optional(),
      sweep_limit: z.int().min(1).optional(),
    })
    .optional(),
});

/** `"${NAME}"`: the value of an environment variable. */
const variableReference = z
  .string()
  .regex(
    /^\$\{[A-Za-z_]\w*\}$/u,
    'must be "${NAME}", a variable of the environment: no secrets in this file',
  );

/** Name and value of an HTTP header, as Node's client takes them. */
const headersSchema = z.record(
  z.string().regex(/^[\w!#$%&'*+.^`|~-]+$/u, "is not the name of a header"),
  z.string().regex(/^[\t\u{20}-\u{7e}\u{80}-\u{ff}]*$/u, "is not the value of a header"),
);

/** Sent to Langfuse beside the server's own. The problem names a header and does not tell its value. */
const langfuseHeaders = z.record(z.string(), z.string()).superRefine((headers, context) => {
  for (const [name, value] of Object.entries(headers)) {
    const message = headerProblem(name, value, "langfuse");
    if (message !== undefined) context.addIssue({ code: "custom", path: [name], message });
  }
});

/** Webhooks, with the names of the langgraph.json format; `secret` and `allow_private_networks` are ours. */
const webhooksSchema = z.strictObject({
  env_prefix: z.string().optional(),
  headers: headersSchema.optional(),
  url: z
    .strictObject({
      require_https: z.boolean().optional(),
      allowed_domains: texts.optional(),
      allowed_ports: z.array(portNumber).optional(),
      max_url_length: z.int().min(1).optional(),
      disable_loopback: z.boolean().optional(),
    })
    .optional(),
  secret: variableReference.optional(),
  allow_private_networks: z.boolean().optional(),
});

/** Part of a folder's name, where the project's traces wait. */
const projectName = z.string().regex(/^[\w.-]{1,64}$/u, "must be letters, digits, -, _ and . only");

/** Keys of one more Langfuse project. `host` may be written out; it is no secret. */
const langfuseProject = z.strictObject({
  public_key: variableReference,
  secret_key: variableReference,
  host: text.optional(),
});

/** pino's levels. */
export const logLevelSchema = z.enum([
  "trace",
  "debug",
  "info",
  "warn",
  "error",
  "fatal",
  "silent",
]);

/** Where traces wait until their target has them. */
export const spoolSchema = z.enum(["disk", "database", "memory"]);

/** What a process does: it answers requests and executes runs, or one of the two. */
export const roleSchema = z.enum(["all", "api", "worker"]);
export type Role = z.infer<typeof roleSchema>;

/** The keys of the config file that are read. Keys of the format that are not are in `unsupported.ts`. */
export const fileSchema = z.strictObject({
  graphs: z.record(text, graphEntry).optional(),
  env: z.preprocess(
    // A list names variables a container should be given; here the environment is always passed on.
    (value) => (Array.isArray(value) ? undefined : value),
    z
      .custom<string | Record<string, unknown>>(
        (value) => typeof value === "string" || (typeof value === "object" && value !== null),
        "must be the path of an env file, or an object of variables",
      )
      .optional(),
  ),
  auth: z
    .strictObject({
      path: moduleReference.optional(),
      disable_studio_auth: z.boolean().optional(),
    })
    .optional(),
  http: httpSchema.optional(),
  store: storeSchema.optional(),
  checkpointer: checkpointerSchema.optional(),
  host: text.optional(),
  port: portNumber.optional(),
  database: z
    .strictObject({
      url: text.optional(),
      direct_url: text.optional(),
      data_dir: text.optional(),
      pool_size: z.int().min(2).max(1000).optional(),
      listen: z.boolean().optional(),
      prepared_statements: z.boolean().optional(),
    })
    .optional(),
  log: z
    .strictObject({ level: logLevelSchema.optional(), pretty: z.boolean().optional() })
    .optional(),
  workers: z
    .strictObject({
      concurrency: z.int().min(1).max(1000).optional(),
      per_user: z.int().min(1).optional(),
      per_assistant: z.int().min(1).optional(),
      max_waiting: z.int().min(1).optional(),
      lease_seconds: z.number().min(2).max(600).optional(),
      grace_seconds: z.number().min(0).max(3600).optional(),
      run_timeout_seconds: z.number().positive().max(2_000_000).optional(),
    })
    .optional(),
  tracing: z
    .strictObject({
      traceparent: z.enum(["link", "parent"]).optional(),
      spool: spoolSchema.optional(),
      directory: text.optional(),
      max_megabytes: z.number().min(1).optional(),
      max_age_hours: z.number().positive().optional(),
      max_record_megabytes: z.number().positive().max(512).optional(),
      fsync: z.boolean().optional(),
    })
    .optional(),
  langfuse: z
    .strictObject({
      mask: moduleReference.optional(),
      headers: langfuseHeaders.optional(),
      capture: z
        .strictObject({
          input: z.boolean().optional(),
          output: z.boolean().optional(),
          max_chars: z.int().min(100).max(4_000_000).optional(),
        })
        .optional(),
      route: moduleReference.optional(),
      projects: z.record(projectName, langfuseProject).optional(),
    })
    .optional(),
  events: z
    .strictObject({
      retention_minutes: z.number().positive().optional(),
      max_megabytes: z.number().min(1).max(1024).optional(),
    })
    .optional(),
  metrics: z.strictObject({ enabled: z.boolean().optional() }).optional(),
  schemas: z.strictObject({ types: z.boolean().optional() }).optional(),
  webhooks: webhooksSchema.optional(),
});

/** A config file after validation. */
export type ConfigFile = z.infer<typeof fileSchema>;
export type CorsConfig = z.infer<typeof corsSchema>;
export type HeaderPatterns = z.infer<typeof headerPatterns>;
export type StoreConfig = z.infer<typeof storeSchema>;
/** What a webhook's URL must be like. */
export type WebhookRules = NonNullable<z.infer<typeof webhooksSchema>["url"]>;
export type CheckpointerConfig = z.infer<typeof checkpointerSchema>;
export type LogLevel = z.infer<typeof logLevelSchema>;

/** Where one graph comes from. */
export interface GraphSpec {
  id: string;
  /** Absolute path of the module. */
  path: string;
  /** The export that holds the graph. */
  exportName: string;
  description?: string;
  defaults?: GraphDefaults;
}

/** What a graph's own assistant is configured with, where the environment says so. */
export interface GraphDefaults {
  config: RunnableConfig;
  context: unknown;
}

/** An absolute module path and the export to use. */
export interface ModuleReference {
  path: string;
  exportName: string;
}

/** Where Langfuse is and how to talk to it. Says nothing about whether the keys are right. */
export interface LangfuseConfig {
  /** `LANGFUSE_LOGGING`. */
  enabled: boolean;
  publicKey: string | undefined;
  secretKey: string | undefined;
  /** Without a trailing slash. */
  host: string;
  /** 0 to 1. */
  sampleRate: number;
  environment: string | undefined;
  release: string | undefined;
  /** One request; where this and the next two are not set, the observer knows best. */
  timeoutMs: number | undefined;
  /** Spans that make a request worth sending. */
  flushAt: number | undefined;
  flushIntervalMs: number | undefined;
  /** Sent with every request to Langfuse, such as those a proxy wants. */
  headers: Record<string, string>;
  mask: ModuleReference | undefined;
  /** What content is sent; both unless switched off. */
  capture?: { input: boolean; output: boolean; maxChars?: number | undefined } | undefined;
  /** Chooses one of `projects` for a run. */
  route?: ModuleReference | undefined;
  /** Further projects, by name. */
  projects?: Record<string, LangfuseProject> | undefined;
}

/** Where one further Langfuse project is. */
export interface LangfuseProject {
  publicKey: string;
  secretKey: string;
  /** Without a trailing slash. */
  host: string;
}

/** An OTLP backend that gets every trace too. */
export interface OtlpTarget {
  /** Where traces are posted, path included. */
  url: string;
  protocol: "http/protobuf" | "http/json";
  /** Sent with every request to this target, and to no other. */
  headers: Record<string, string>;
  /** Attributes of the OpenTelemetry resource, `service.name` among them. */
  resource: Record<string, string>;
  timeoutMs: number;
}

/** Where traces wait until their target has them, and how much may wait. */
export interface TracingConfig {
  /** What an incoming `traceparent` does: it is noted (the default), or the run joins that trace. */
  traceparent?: "link" | "parent" | undefined;
  /** `database`: in a table all processes share. `memory`: what waits is lost when the process ends. */
  spool: "disk" | "database" | "memory";
  /** The folder of the spool, absolute. */
  directory: string;
  /** What may wait, on disk per process and target, in the database per target; past it the oldest traces go. */
  maxBytes: number;
  maxAgeMs: number;
  /** A larger span is cut; what is too large even so is given up. */
  maxRecordBytes: number;
  /** Waits for the disk after every write: safe against power loss, and slower. */
  fsync: boolean;
}

/** Where webhooks may go, and what they carry. */
export interface WebhooksConfig {
  /** Whether runs may have one. */
  enabled: boolean;
  /** Sent with each. */
  headers: Record<string, string>;
  /** What they are signed with; `undefined`: a secret that the database keeps. */
  secret: string | undefined;
  url: WebhookRules;
  /** Whether they may go to addresses that are not on the public internet. */
  allowPrivateNetworks: boolean;
}

/** What the HTTP server serves, and how. */
export interface HttpConfig {
  cors: CorsConfig | undefined;
  /** The project's own routes. */
  app?: ModuleReference | undefined;
  /** Whether these are behind authentication too. */
  authenticateApp?: boolean | undefined;
  /** Whether the project's middleware runs before the API authenticates. */
  middlewareFirst?: boolean | undefined;
  /** Without a slash at the end. */
  mountPrefix?: string | undefined;
  /** The headers of a request that graphs find in their config, beside `x-*` and `user-agent`, and not among them. */
  configurableHeaders?: HeaderPatterns | undefined;
  /** The groups of routes that are not there. */
  disabled?: readonly DisabledRoutes[] | undefined;
}

export type DisabledRoutes = "assistants" | "threads" | "runs" | "store" | "meta" | "mcp" | "a2a";

/** Everything the server needs to know, resolved: defaults < file < environment < flags. */
export interface Config {
  /** The project's folder, absolute. */
  cwd: string;
  /** The config file, absolute; `undefined` where there is none. */
  configPath: string | undefined;
  /** Every file whose change means a restart: the config file and the env files, absolute, existing or not. */
  watched: string[];
  mode: "dev" | "start";
  host: string;
  /** `explicit` if somebody asked for this port; a default one may step to the next free port. */
  port: { value: number; explicit: boolean };
  graphs: Record<string, GraphSpec>;
  auth: { module: ModuleReference | undefined; disable_studio_auth: boolean };
  http: HttpConfig;
  store: StoreConfig;
  checkpointer: CheckpointerConfig;
  database: {
    /** PostgreSQL, or `undefined` for PGlite in `dataDir`. */
    url: string | undefined;
    /** The folder of PGlite and other local files, absolute; `memory://` keeps nothing. */
    dataDir: string;
    /** PostgreSQL without a pooler in between, for LISTEN; `undefined` listens at `url`. */
    directUrl?: string | undefined;
    /** Connections of the pool; default 10. */
    poolSize?: number | undefined;
    /** Whether processes hear each other over LISTEN, or look for themselves; default true. */
    listen?: boolean | undefined;
    /** Whether statements are prepared once for each connection; default true. */
    preparedStatements?: boolean | undefined;
  };
  /** What this process does; default `all`. */
  role?: Role | undefined;
  /** What the database keeps of the events of runs. */
  events?: { retentionMs: number; maxBytes: number } | undefined;
  langfuse: LangfuseConfig;
  /** Any OTLP backend; `undefined` where there is no such target. */
  otlp?: OtlpTarget | undefined;
  /** Arize Phoenix; `undefined` where it is no target. */
  phoenix?: OtlpTarget | undefined;
  tracing: TracingConfig;
  /** Whether `GET /metrics` is served. */
  metrics?: { enabled: boolean } | undefined;
  /** Whether schemas are read from the types of graphs, or only taken from the cache; default `off`. */
  schemas?: { types: "extract" | "cached" | "off" } | undefined;
  webhooks: WebhooksConfig;
  log: { level: LogLevel; pretty: boolean };
  workers: {
    /** Runs executed at the same time by this process. */
    concurrency: number;
    /** Runs of one user that all processes execute at the same time; `undefined` is no limit. */
    perUser?: number | undefined;
    /** The same for an assistant. */
    perAssistant?: number | undefined;
    /** Runs that may wait before more are refused; `undefined` is no limit. */
    maxWaiting?: number | undefined;
    /** How long a process may be silent before its runs go to others; default 10,000. */
    leaseMs?: number | undefined;
    /** How long runs may take to finish when the server is asked to stop. */
    graceMs: number;
    /** How long an attempt of a run may take; `undefined` is as long as it likes. */
    runTimeoutMs?: number | undefined;
  };
  /** Sentences for a person: options and variables that have no effect. */
  warnings: string[];
}

/** What the command line may say; it outranks everything else. */
export interface Flags {
  host?: string | undefined;
  port?: number | undefined;
  logLevel?: string | undefined;
  role?: string | undefined;
  /** Runs executed at the same time. */
  workers?: number | undefined;
  /** Processes that share the port. Only checked here, with everything else; the command starts them. */
  processes?: number | undefined;
}

function isRegExp(source: string): boolean {
  try {
    return new RegExp(source, "u") instanceof RegExp;
  } catch {
    return false;
  }
}
