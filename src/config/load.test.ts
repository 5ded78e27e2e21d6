import { mkdtemp, mkdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";

import { ServerError } from "../errors.ts";
import type { Variables } from "./env.ts";
import { loadConfig } from "./load.ts";
import { toModuleReference } from "./module-reference.ts";
import type { LoadConfigOptions } from "./load.ts";
import type { Config } from "./schema.ts";

let cwd: string;

beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), "aegra-config-"));
});

afterEach(async () => {
  await rm(cwd, { recursive: true, force: true });
});

const graphs = { agent: "./agent.ts:graph" };

async function write(name: string, content: unknown): Promise<void> {
  const path = join(cwd, name);
  await mkdir(join(path, ".."), { recursive: true });
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
}

function load(env: Variables = {}, options: Partial<LoadConfigOptions> = {}) {
  return loadConfig({ cwd, mode: "dev", env, ...options });
}

async function refusal(env: Variables = {}, options: Partial<LoadConfigOptions> = {}) {
  const error: unknown = await load(env, options).catch((thrown: unknown) => thrown);
  if (!(error instanceof ServerError)) throw new Error("expected a refusal to start");
  expect(error.code).toBe("startup_failed");
  return error.message;
}

describe("the config file", () => {
  test("aegra.json is found before langgraph.json", async () => {
    await write("langgraph.json", { graphs: { old: "./old.ts:graph" } });
    expect(Object.keys((await load()).graphs)).toEqual(["old"]);
    await write("aegra.json", { graphs });
    const config = await load();
    expect(config.configPath).toBe(join(cwd, "aegra.json"));
    expect(config.graphs).toEqual({
      agent: { id: "agent", path: join(cwd, "agent.ts"), exportName: "graph" },
    });
  });

  test("paths are relative to the config file, the project's folder stays", async () => {
    await write("deploy/aegra.json", {
      graphs: { a: { path: "../src/a.ts:graph", description: "A" } },
      auth: { path: "./auth.ts" },
    });
    const config = await load({}, { configPath: "deploy/aegra.json" });
    expect(config.graphs["a"]).toEqual({
      id: "a",
      path: join(cwd, "src/a.ts"),
      exportName: "graph",
      description: "A",
    });
    expect(config.auth.module).toEqual({
      path: join(cwd, "deploy/auth.ts"),
      exportName: "default",
    });
    expect(config.cwd).toBe(cwd);
    expect(config.database.dataDir).toBe(join(cwd, ".aegra"));
  });

  test("a missing file says what to write", async () => {
    expect(await refusal()).toContain("has no aegra.json or langgraph.json");
    expect(await refusal({}, { configPath: "other.json" })).toContain(
      `${join(cwd, "other.json")}: does not exist`,
    );
    const config = await load({}, { needsGraphs: false });
    expect(config.configPath).toBeUndefined();
  });

  test("a folder that is none is told as such, not as a missing file", async () => {
    const absent = join(cwd, "absent");
    expect(await refusal({}, { cwd: absent })).toBe(
      `The configuration has a problem:\n  ${absent}: does not exist`,
    );
    expect(await refusal({}, { cwd: absent, configPath: "a.json", needsGraphs: false })).toBe(
      `The configuration has a problem:\n  ${absent}: does not exist`,
    );
    await write("file", "");
    expect(await refusal({}, { cwd: join(cwd, "file") })).toContain("file: is not a folder");
  });

  test("graphs that are none say what a graph looks like", async () => {
    const path = join(cwd, "aegra.json");
    await write("aegra.json", {
      graphs: {
        number: 4,
        list: ["./agent.ts:graph"],
        nothing: { description: "x" },
        unnamed: "./agent.ts:",
        spaces: { path: "./agent.ts: " },
        empty: "",
      },
      http: { app: "./app.ts:" },
    });
    const message = await refusal();
    const form = 'must be "./file.ts:export", or an object with it as "path"';
    for (const line of [
      "The configuration has 7 problems:",
      `${path}: graphs.number ${form}`,
      `${path}: graphs.list ${form}`,
      `${path}: graphs.nothing.path expected string, received undefined`,
      `${path}: graphs.unnamed.path names no export after the colon: it must look like "./file.ts:export"`,
      `${path}: graphs.spaces.path names no export after the colon`,
      `${path}: graphs.empty.path must not be empty`,
      `${path}: http.app names no export after the colon`,
    ]) {
      expect(message).toContain(line);
    }
  });

  test("invalid JSON is named with its line", async () => {
    await write("aegra.json", '{\n  "graphs": {\n    "a": nope\n  }\n}');
    expect(await refusal()).toContain(
      `${join(cwd, "aegra.json")}:3:11: is not valid JSON: Unexpected token 'o'`,
    );
    await write("aegra.json", '{\n  "graphs": {},\n}');
    expect(await refusal()).toContain(`${join(cwd, "aegra.json")}:3:1: is not valid JSON`);
    await write("aegra.json", '{\n  "graphs": {');
    expect(await refusal()).toContain(`${join(cwd, "aegra.json")}:2:14: is not valid JSON`);
    await write("aegra.json", "[]");
    expect(await refusal()).toContain("must contain a JSON object");
  });

  test("a file without graphs is refused", async () => {
    await write("aegra.json", { graphs: {} });
    expect(await refusal()).toContain("graphs must name at least one graph");
  });

  test("keys that are not obeyed are named, keys without meaning are not", async () => {
    await write("langgraph.json", {
      $schema: "x",
      dependencies: ["."],
      dockerfile_lines: ["RUN true"],
      pip_config_file: "x",
      _INTERNAL_docker_tag: "x",
      env: ["OPENAI_API_KEY"],
      graphs: { a: { path: "./a.ts:graph", colour: "red" } },
      http: { app: "./app.ts:app", cors: { allow_origins: ["https://a.example"], foo: 1 } },
      store: { index: { dims: 3, embed: "openai:x" } },
      checkpointer: { ttl: { strategy: "delete" } },
      ui: { a: "./ui.tsx" },
      grpahs: {},
    });
    const config = await load();
    const path = join(cwd, "langgraph.json");
    expect(config.warnings.toSorted()).toEqual(
      [
        `${path}: "grpahs" is not a known option and has no effect`,
        `${path}: "graphs.a.colour" is not a known option and has no effect`,
        `${path}: "http.cors.foo" is not a known option and has no effect`,
        `${path}: "ui" has no effect: generative UI bundles are not supported yet`,
        `${path}: "checkpointer.ttl.strategy" has no effect without "checkpointer.ttl.default_ttl"`,
      ].toSorted(),
    );
    expect(config.http.cors).toEqual({ allow_origins: ["https://a.example"] });
    expect(config.graphs["a"]?.exportName).toBe("graph");
  });

  test("what is served, and how", async () => {
    await write("sub/aegra.json", {
      graphs,
      http: {
        app: "./app.ts:app",
        mount_prefix: "/a/b",
        disable_store: true,
        disable_mcp: false,
        configurable_headers: { includes: ["a*"] },
        enable_custom_route_auth: false,
        middleware_order: "middleware_first",
      },
    });
    expect((await load({}, { configPath: "sub/aegra.json" })).http).toEqual({
      app: { path: join(cwd, "sub/app.ts"), exportName: "app" },
      authenticateApp: false,
      middlewareFirst: true,
      mountPrefix: "/a/b",
      configurableHeaders: { includes: ["a*"] },
      disabled: ["store"],
    });
    await write("aegra.json", { graphs, http: { middleware_order: "middleware_first" } });
    expect(await refusal()).toContain('it needs "enable_custom_route_auth": false');
    for (const mount_prefix of ["a", "/", "/a/", "/a//b", "/a?b"]) {
      await write("aegra.json", { graphs, http: { mount_prefix } });
      expect(await refusal()).toContain("without a slash at the end");
    }
    await write("aegra.json", { graphs, http: {} });
    expect((await load()).http).toMatchObject({ authenticateApp: true, disabled: [] });
  });

  test("another Node than the configured one is a warning", async () => {
    await write("aegra.json", { graphs, node_version: "18" });
    expect((await load()).warnings).toEqual([
      `${join(cwd, "aegra.json")}: "node_version" asks for Node 18, but this is Node ${process.versions.node}`,
    ]);
    await write("aegra.json", { graphs, node_version: process.versions.node.split(".")[0] });
    expect((await load()).warnings).toEqual([]);
  });
});

describe("precedence", () => {
  test("defaults differ between dev and start", async () => {
    await write("aegra.json", { graphs });
    const dev = await load();
    expect(dev).toMatchObject({
      host: "127.0.0.1",
      port: { value: 2024, explicit: false },
      database: { url: undefined, dataDir: join(cwd, ".aegra") },
      log: { level: "info", pretty: false },
      workers: { concurrency: 10 },
      langfuse: {
        enabled: false,
        host: "https://cloud.langfuse.com",
        sampleRate: 1,
        timeoutMs: undefined,
      },
    });
    expect((await load({}, { mode: "start" })).host).toBe("0.0.0.0");
  });

  test("types are read in dev, taken from the cache in start, or as asked", async () => {
    const reading = async () => [
      (await load()).schemas?.types,
      (await load({}, { mode: "start" })).schemas?.types,
    ];
    await write("aegra.json", { graphs });
    expect(await reading()).toEqual(["extract", "cached"]);
    await write("aegra.json", { graphs, schemas: { types: true } });
    expect(await reading()).toEqual(["extract", "extract"]);
    await write("aegra.json", { graphs, schemas: { types: false } });
    expect(await reading()).toEqual(["off", "off"]);
  });

  test("file < environment < flags", async () => {
    await write("aegra.json", {
      graphs,
      port: 3000,
      host: "file.example",
      log: { level: "warn", pretty: false },
      workers: { concurrency: 3 },
      database: { url: "postgres://file/db", data_dir: "./data" },
    });
    const fromFile = await load({}, { terminal: true });
    expect(fromFile).toMatchObject({
      port: { value: 3000, explicit: true },
      host: "file.example",
      log: { level: "warn", pretty: false },
      workers: { concurrency: 3 },
      database: { url: "postgres://file/db", dataDir: join(cwd, "data") },
    });
    const env = {
      PORT: "4000",
      HOST: "env.example",
      LOG_LEVEL: "DEBUG",
      LOG_FORMAT: "pretty",
      N_JOBS_PER_WORKER: "5",
      DATABASE_URL: "postgresql://env/db",
      AEGRA_DATA_DIR: "./other",
    };
    expect(await load({ ...env })).toMatchObject({
      port: { value: 4000, explicit: true },
      host: "env.example",
      log: { level: "debug", pretty: true },
      workers: { concurrency: 5 },
      database: { url: "postgresql://env/db", dataDir: join(cwd, "other") },
    });
    const flags = { port: 5000, host: "flag.example", logLevel: "error" };
    expect(await load({ ...env }, { flags })).toMatchObject({
      port: { value: 5000, explicit: true },
      host: "flag.example",
      log: { level: "error" },
    });
  });

  test("the environment wins over every env file, a named file over .env, .env over the object", async () => {
    await write("aegra.json", { graphs, env: "./named.env" });
    await write("named.env", "A=named\nB=named\nC=named\n");
    await write(".env", "\uFEFFA=dot\nB=dot\nD='dot'\n# E=no\n");
    const env: Variables = { A: "real" };
    const config = await load(env);
    expect(env).toEqual({ A: "real", B: "named", C: "named", D: "dot" });
    expect(config.watched).toEqual([
      join(cwd, "aegra.json"),
      join(cwd, "langgraph.json"),
      join(cwd, "named.env"),
      join(cwd, ".env"),
    ]);

    await write("aegra.json", { graphs, env: { A: "object", B: "object", N: 1, Z: true } });
    const other: Variables = { A: "real" };
    await load(other);
    expect(other).toEqual({ A: "real", B: "dot", D: "dot", N: "1", Z: "true" });
  });

  test("an empty variable counts as unset", async () => {
    await write("aegra.json", { graphs, env: { LOG_LEVEL: "debug" } });
    await write(".env", "PORT=\nLANGFUSE_HOST=\nDATABASE_URL=\nLANGFUSE_LOGGING=\nEXTRA=\n");
    const env: Variables = { LOG_LEVEL: "", PORT: "  " };
    const config = await load(env);
    expect(config).toMatchObject({
      port: { value: 2024, explicit: false },
      log: { level: "debug" },
      database: { url: undefined },
      langfuse: { enabled: false, host: "https://cloud.langfuse.com" },
    });
    expect(env["EXTRA"]).toBeUndefined();
  });
});

test("variables that look like the server's are named, wherever they come from", async () => {
  await write("aegra.json", {
    graphs,
    env: { LANGFUSE_LOGING: "true" },
    webhooks: { secret: "${AEGRA_WEBHOOK_SECRET}" },
  });
  await write(
    ".env",
    "AEGRA_TRACE_SPOOL=memory\nAEGRA_WEBHOOK_SECRET=a-secret-of-32-characters-or-more\n",
  );
  expect((await load({ LANGFUSE_HOSTT: "x" })).warnings).toEqual([
    "environment: AEGRA_TRACE_SPOOL is not a known variable and has no effect on the server; did you mean AEGRA_TRACES_SPOOL?",
    "environment: LANGFUSE_HOSTT is not a known variable and has no effect on the server; did you mean LANGFUSE_HOST?",
    "environment: LANGFUSE_LOGING is not a known variable and has no effect on the server; did you mean LANGFUSE_LOGGING?",
  ]);
});

describe("Langfuse", () => {
  test("is read from the environment, seconds become milliseconds", async () => {
    await write("aegra.json", {
      graphs,
      langfuse: { mask: "./mask.ts:mask", headers: { "x-proxy": "1" } },
    });
    await write(
      ".env",
      [
        "LANGFUSE_LOGGING=True",
        "LANGFUSE_PUBLIC_KEY=pk-lf-1",
        "LANGFUSE_SECRET_KEY=sk-lf-1",
        "LANGFUSE_BASE_URL=https://lf.example///",
        "LANGFUSE_SAMPLE_RATE=0.25",
        "LANGFUSE_TRACING_ENVIRONMENT=staging",
        "LANGFUSE_RELEASE=v1",
        "LANGFUSE_TIMEOUT=2.5",
        "LANGFUSE_FLUSH_AT=10",
        "LANGFUSE_FLUSH_INTERVAL=0.5",
      ].join("\n"),
    );
    expect((await load()).langfuse).toEqual({
      enabled: true,
      publicKey: "pk-lf-1",
      secretKey: "sk-lf-1",
      host: "https://lf.example",
      sampleRate: 0.25,
      environment: "staging",
      release: "v1",
      timeoutMs: 2500,
      flushAt: 10,
      flushIntervalMs: 500,
      headers: { "x-proxy": "1" },
      mask: { path: join(cwd, "mask.ts"), exportName: "mask" },
      capture: { input: true, output: true },
      route: undefined,
      projects: {},
    });
  });

  test("LANGFUSE_HOST wins over the other names", async () => {
    await write("aegra.json", { graphs });
    const base = { LANGFUSE_BASEURL: "https://c.example", LANGFUSE_LOGGING: "true" };
    expect((await load({ ...base })).langfuse.host).toBe("https://c.example");
    const env = {
      ...base,
      LANGFUSE_HOST: "https://a.example",
      LANGFUSE_BASE_URL: "https://b.example",
    };
    expect((await load(env)).langfuse.host).toBe("https://a.example");
  });

  test("LANGFUSE_TRACING_ENABLED=false turns it off", async () => {
    await write("aegra.json", { graphs });
    const env = { LANGFUSE_LOGGING: "true", LANGFUSE_TRACING_ENABLED: "false" };
    expect((await load(env)).langfuse.enabled).toBe(false);
  });

  test("wrong values count only where it is on", async () => {
    await write("aegra.json", { graphs });
    const wrong = { LANGFUSE_SAMPLE_RATE: "2", LANGFUSE_HOST: "nope" };
    expect((await load({ ...wrong })).langfuse.sampleRate).toBe(1);
    const message = await refusal({ ...wrong, LANGFUSE_LOGGING: "true" });
    expect(message).toContain("LANGFUSE_SAMPLE_RATE must be a number from 0 to 1");
    expect(message).toContain("LANGFUSE_HOST must be a URL that begins with http:// or https://");
  });
});

test("all problems are told at once, with file and key", async () => {
  await write("aegra.json", {
    graphs: { a: 5 },
    env: "missing.env",
    http: { cors: { allow_origins: "*" } },
    port: "x",
  });
  const message = await refusal(
    {
      PORT: "70000",
      LANGFUSE_LOGGING: "yes",
      DATABASE_URL: "mysql://user:secret@host/db",
      LOG_LEVEL: "loud",
    },
    { flags: { port: Number.NaN, logLevel: "quiet" } },
  );
  const path = join(cwd, "aegra.json");
  for (const line of [
    "The configuration has 10 problems:",
    `  ${path}: graphs.a `,
    `  ${path}: http.cors.allow_origins expected array, received string`,
    `  ${path}: port must be a whole number`,
    `  ${path}: env names ${join(cwd, "missing.env")}, which does not exist`,
    '  environment: PORT must be a whole number from 0 to 65535, not "70000"',
    '  environment: LANGFUSE_LOGGING must be true or false, not "yes"',
    "  environment: DATABASE_URL must be a URL that begins with postgres:// or postgresql://",
    '  environment: LOG_LEVEL must be one of trace, debug, info, warn, error, fatal, silent, not "loud"',
    "  command line: --port must be a whole number from 0 to 65535",
    "  command line: --log-level must be one of trace, debug",
  ]) {
    expect(message).toContain(line);
  }
  expect(message).not.toContain("secret");
});

test("a reference is a path and an export", () => {
  const base = join("/", "base");
  expect(toModuleReference("./a.ts:graph", base)).toEqual({
    path: join(base, "a.ts"),
    exportName: "graph",
  });
  expect(toModuleReference("./a.ts", base).exportName).toBe("default");
  expect(toModuleReference("./a.ts:", base)).toEqual({
    path: join(base, "a.ts"),
    exportName: "default",
  });
  expect(toModuleReference("x:/a.ts", base).exportName).toBe("default");
});

describe("tracing targets", () => {
  const open = async (variables: Variables, file: object = {}): Promise<Config> => {
    await write("aegra.json", { graphs, ...file });
    return load(variables);
  };

  test("Langfuse is one, by either name, unless it is switched off", async () => {
    expect((await open({})).langfuse.enabled).toBe(false);
    expect((await open({ OTEL_TARGETS: "langfuse" })).langfuse.enabled).toBe(true);
    expect((await open({ OTEL_TARGETS: "otlp", LANGFUSE_LOGGING: "true" })).langfuse.enabled).toBe(
      true,
    );
    const both = { OTEL_TARGETS: "langfuse", LANGFUSE_LOGGING: "false" };
    expect((await open(both)).langfuse.enabled).toBe(false);
  });

  test("OTLP goes by the variables of OpenTelemetry", async () => {
    const plain = await open({ OTEL_TARGETS: " OTLP , " });
    expect(plain.otlp).toEqual({
      url: "http://localhost:4318/v1/traces",
      protocol: "http/protobuf",
      headers: {},
      resource: { "service.name": "aegra" },
      timeoutMs: 10_000,
    });
    expect(plain.phoenix).toBeUndefined();
    const full = await open({
      OTEL_TARGETS: "otlp",
      OTEL_EXPORTER_OTLP_ENDPOINT: "https://otel.example/base/",
      OTEL_EXPORTER_OTLP_PROTOCOL: "http/json",
      OTEL_EXPORTER_OTLP_HEADERS: "api-key=a%20b, x-tenant=1=2",
      OTEL_EXPORTER_OTLP_TIMEOUT: "500",
      OTEL_SERVICE_NAME: "shop",
      OTEL_RESOURCE_ATTRIBUTES: "service.name=other,deployment.environment.name=eu",
    });
    expect(full.otlp).toEqual({
      url: "https://otel.example/base/v1/traces",
      protocol: "http/json",
      headers: { "api-key": "a b", "x-tenant": "1=2" },
      resource: { "service.name": "shop", "deployment.environment.name": "eu" },
      timeoutMs: 500,
    });
    const traces = await open({
      OTEL_TARGETS: "otlp",
      OTEL_EXPORTER_OTLP_ENDPOINT: "https://otel.example",
      OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "https://traces.example/in",
    });
    expect(traces.otlp?.url).toBe("https://traces.example/in");
  });

  test("Phoenix has its own, and gets no headers of another target's", async () => {
    const { phoenix, otlp } = await open({
      OTEL_TARGETS: "otlp,phoenix",
      OTEL_EXPORTER_OTLP_HEADERS: "api-key=secret",
      PHOENIX_COLLECTOR_ENDPOINT: "https://app.phoenix.example/s/space/",
      PHOENIX_API_KEY: "px-1",
      PHOENIX_PROJECT_NAME: "shop",
    });
    expect(phoenix).toMatchObject({
      url: "https://app.phoenix.example/s/space/v1/traces",
      headers: { authorization: "Bearer px-1" },
      resource: { "service.name": "aegra", "openinference.project.name": "shop" },
    });
    expect(JSON.stringify(phoenix)).not.toContain("secret");
    expect(JSON.stringify(otlp)).not.toContain("px-1");
  });

  test.each([
    [{ OTEL_TARGETS: "langfuse,jaeger" }, '"jaeger"'],
    [{ OTEL_TARGETS: "otlp", OTEL_EXPORTER_OTLP_PROTOCOL: "grpc" }, "grpc"],
    [{ OTEL_TARGETS: "otlp", OTEL_EXPORTER_OTLP_PROTOCOL: "thrift" }, "thrift"],
    [{ OTEL_TARGETS: "otlp", OTEL_EXPORTER_OTLP_HEADERS: "sk-secret" }, "name=value"],
    [{ OTEL_TARGETS: "otlp", OTEL_EXPORTER_OTLP_ENDPOINT: "collector:4318" }, "http://"],
  ])("refuses %j", async (variables, words) => {
    const failure = await open(variables).catch((error: unknown) => String(error));
    expect(failure).toContain(words);
    expect(failure).not.toContain("sk-secret");
  });

  test("what is meant for a target that is off is nobody's business", async () => {
    const foreign = { OTEL_EXPORTER_OTLP_PROTOCOL: "grpc", OTEL_EXPORTER_OTLP_HEADERS: "x" };
    await expect(open(foreign)).resolves.toMatchObject({ otlp: undefined });
  });
});

describe("several Langfuse projects", () => {
  const projects = {
    acme: { public_key: "${ACME_PK}", secret_key: "${ACME_SK}" },
    other: { public_key: "${PK2}", secret_key: "${SK2}", host: "https://eu.example/" },
  };
  const on = { LANGFUSE_LOGGING: "true", LANGFUSE_HOST: "https://lf.example" };

  test("take their keys from the environment, and the host where they name none", async () => {
    await write("aegra.json", { graphs, langfuse: { projects, route: "./route.ts:choose" } });
    const { langfuse } = await load({ ...on, ACME_PK: "p", ACME_SK: "s", PK2: "p2", SK2: "s2" });
    expect(langfuse.projects).toEqual({
      acme: { publicKey: "p", secretKey: "s", host: "https://lf.example" },
      other: { publicKey: "p2", secretKey: "s2", host: "https://eu.example" },
    });
    expect(langfuse.route).toEqual({ path: join(cwd, "route.ts"), exportName: "choose" });
  });

  test("name the variable that is not set", async () => {
    await write("aegra.json", { graphs, langfuse: { projects } });
    await expect(load({ ...on, ACME_PK: "p" })).rejects.toThrow("ACME_SK, which is not set");
  });

  test("have names that can be a folder's", async () => {
    const named = { "../acme": { public_key: "${ACME_PK}", secret_key: "${ACME_SK}" } };
    await write("aegra.json", { graphs, langfuse: { projects: named } });
    await expect(load({ ...on })).rejects.toThrow("langfuse.projects");
  });

  test("refuse a key that is written out", async () => {
    const written = { acme: { public_key: "pk-lf-1", secret_key: "${ACME_SK}" } };
    await write("aegra.json", { graphs, langfuse: { projects: written } });
    await expect(load({ ...on })).rejects.toThrow("no secrets in this file");
  });
});
