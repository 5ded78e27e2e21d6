import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";

import type { Variables } from "./env.ts";
import { loadConfig } from "./load.ts";

let cwd: string;
beforeEach(async () => {
  cwd = await mkdtemp(join(tmpdir(), "aegra-targets-"));
});
afterEach(async () => {
  await rm(cwd, { recursive: true, force: true });
});

async function load(env: Variables, langfuse: object = {}) {
  const file = { graphs: { agent: "./agent.ts:graph" }, langfuse };
  await writeFile(join(cwd, "aegra.json"), JSON.stringify(file));
  return loadConfig({ cwd, mode: "dev", env });
}

/** What is said instead of a start; empty if nothing is wrong. */
async function refusal(env: Variables, langfuse: object = {}): Promise<string> {
  return load(env, langfuse).then(
    () => "",
    (error: unknown) => String(error),
  );
}

test.each([
  ["x-proxy", "HDRSECRET\nnext", "line break"],
  ["x-proxy", "HDRSECRET…", "no header can have"],
  ["x proxy", "HDRSECRET", "not the name of a header"],
  ["Content-Length", "HDRSECRET", "set by the server itself"],
  ["host", "HDRSECRET", "set by the server itself"],
  ["transfer-encoding", "HDRSECRET", "set by the server itself"],
  ["connection", "HDRSECRET", "set by the server itself"],
  ["content-type", "HDRSECRET", "set by the server itself"],
  ["content-encoding", "HDRSECRET", "set by the server itself"],
  ["x-langfuse-ingestion-version", "HDRSECRET", "set by the server itself"],
  ["Authorization", "HDRSECRET", "LANGFUSE_PUBLIC_KEY"],
])("langfuse.headers refuses %s, and tells no value", async (name, value, words) => {
  const failure = await refusal({}, { headers: { [name]: value } });
  expect(failure).toContain(`langfuse.headers.${name} `);
  expect(failure).toContain(words);
  expect(failure).not.toContain("HDRSECRET");
});

test.each([
  [{ OTEL_EXPORTER_OTLP_HEADERS: "a=HDRSECRET\r\nc: d" }, '"a" has a value'],
  [{ OTEL_EXPORTER_OTLP_HEADERS: "a=HDRSECRET%0Anext" }, '"a" has a value'],
  [{ OTEL_EXPORTER_OTLP_TRACES_HEADERS: "a b=HDRSECRET" }, '"a b" is not the name'],
  [{ OTEL_EXPORTER_OTLP_HEADERS: "content-length=1" }, "set by the server itself"],
  [{ PHOENIX_API_KEY: "HDRSECRET\nnext" }, "PHOENIX_API_KEY"],
])("OTLP refuses %j, and tells no value", async (variables, words) => {
  const failure = await refusal({ OTEL_TARGETS: "otlp,phoenix", ...variables });
  expect(failure).toContain(words);
  expect(failure).not.toContain("HDRSECRET");
});

test("OTLP has no other place for authorization", async () => {
  const variables = {
    OTEL_TARGETS: "otlp",
    OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20x",
  };
  expect(await refusal(variables)).toBe("");
});

test("a key with a line break in it is refused", async () => {
  const on = { LANGFUSE_LOGGING: "true", LANGFUSE_SECRET_KEY: "sk-lf-1" };
  const failure = await refusal({ ...on, LANGFUSE_PUBLIC_KEY: "pk-lf\nHDRSECRET" });
  expect(failure).toContain("LANGFUSE_PUBLIC_KEY");
  expect(failure).not.toContain("HDRSECRET");
  const project = { acme: { public_key: "${PK}", secret_key: "${SK}" } };
  const keys = { ...on, LANGFUSE_PUBLIC_KEY: "pk-lf-1", PK: "p", SK: "s\nHDRSECRET" };
  const further = await refusal(keys, { projects: project });
  expect(further).toContain("langfuse.projects.acme.secret_key");
  expect(further).not.toContain("HDRSECRET");
});

test("quotes around a value are those of an env file", async () => {
  const { langfuse } = await load({
    LANGFUSE_LOGGING: '"true"',
    LANGFUSE_HOST: '"https://lf.example"',
    LANGFUSE_PUBLIC_KEY: "'pk-lf-1'",
    LANGFUSE_SECRET_KEY: '"sk-lf-1"',
    LANGFUSE_SAMPLE_RATE: '"0.5"',
    LANGFUSE_RELEASE: 'v"1"',
  });
  expect(langfuse).toMatchObject({
    enabled: true,
    host: "https://lf.example",
    publicKey: "pk-lf-1",
    secretKey: "sk-lf-1",
    sampleRate: 0.5,
    release: 'v"1"',
  });
});

test.each([
  ["lf.example", "https://lf.example"],
  ["lf.example/base", "https://lf.example/base"],
  ["localhost:3000", "http://localhost:3000"],
  ["10.0.0.7:3000", "http://10.0.0.7:3000"],
  ["langfuse-web:3000", "http://langfuse-web:3000"],
])("a host without a scheme, %s, is probably %s", async (host, likely) => {
  const failure = await refusal({ LANGFUSE_LOGGING: "true", LANGFUSE_HOST: host });
  expect(failure).toContain(`http:// or https://, such as ${likely}`);
});

test.each(["user:HDRSECRET@lf.example", "sk-lf-HDRSECRET", "postgres://a:HDRSECRET@b.example"])(
  "what may be a secret is not repeated: %s",
  async (host) => {
    const failure = await refusal({ LANGFUSE_LOGGING: "true", LANGFUSE_HOST: host });
    expect(failure).toContain("http:// or https://");
    expect(failure).not.toContain("HDRSECRET");
  },
);

test.each([
  "https://lf.example/base/api/public/otel/v1/traces",
  "https://lf.example/base/api/public/otel/",
  "https://lf.example/base/api/public",
])("a host with the path of an API is taken without it: %s", async (host) => {
  const project = { acme: { public_key: "${PK}", secret_key: "${PK}", host } };
  const env = { LANGFUSE_LOGGING: "true", LANGFUSE_HOST: host, PK: "k" };
  const { langfuse } = await load(env, { projects: project });
  expect(langfuse.host).toBe("https://lf.example/base");
  expect(langfuse.projects?.["acme"]?.host).toBe("https://lf.example/base");
});
