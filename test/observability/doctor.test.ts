import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { Config, OtlpTarget } from "../../src/config/schema.ts";
import { checkLangfuse } from "../../src/doctor/langfuse.ts";
import { checkTargets } from "../../src/doctor/targets.ts";
import { openLangfuseReceiver, type LangfuseReceiver } from "../support/langfuse-receiver.ts";
import { openOtlpReceiver, type OtlpReceiver } from "../support/otlp-receiver.ts";
import { testConfig } from "../support/server.ts";

let langfuse: LangfuseReceiver;
let backend: OtlpReceiver;
beforeEach(async () => {
  langfuse = await openLangfuseReceiver({ projectName: "Acme" });
  backend = await openOtlpReceiver();
});
afterEach(() => Promise.all([langfuse.close(), backend.close()]));

const base = testConfig({ databaseUrl: undefined, dataDir: "memory://" });

function target(overrides: Partial<OtlpTarget> = {}): OtlpTarget {
  return {
    url: `${backend.url}/v1/traces`,
    protocol: "http/protobuf",
    headers: { "x-key": "secret" },
    resource: {},
    timeoutMs: 60_000,
    ...overrides,
  };
}

function config(overrides: Partial<Config>): Config {
  return { ...base, ...overrides };
}

test("without further targets there is nothing to say", async () => {
  expect(await checkTargets(base)).toEqual([]);
});

test("targets that take traces, and a project whose keys are right", async () => {
  const { publicKey, secretKey, url: host } = langfuse;
  const projects = { acme: { publicKey, secretKey, host } };
  const found = await checkTargets(
    config({
      otlp: target(),
      phoenix: target({ protocol: "http/json" }),
      langfuse: { ...base.langfuse, enabled: true, projects },
    }),
  );
  expect(found.map(({ check, status }) => [check, status])).toEqual([
    ["langfuse:acme", "ok"],
    ["otlp", "ok"],
    ["phoenix", "ok"],
  ]);
  expect(found[0]?.message).toContain('"Acme"');
  expect(backend.requests).toHaveLength(2);
  expect(backend.spans).toEqual([]);
});

test.each([
  [401, "refuses the keys"],
  [404, "does not take traces"],
  [503, "does not take traces"],
])("a backend that answers %i", async (status, words) => {
  backend.status = status;
  const [found] = await checkTargets(config({ otlp: target() }));
  expect(found).toMatchObject({ check: "otlp", status: "failed" });
  expect(found?.message).toContain(words);
  expect(JSON.stringify(found)).toContain("OTEL_EXPORTER_OTLP_");
  expect(JSON.stringify(found)).not.toContain("secret");
});

test("a backend that is not there, and a project with wrong keys", async () => {
  const projects = { acme: { publicKey: "pk", secretKey: "wrong", host: langfuse.url } };
  const found = await checkTargets(
    config({
      phoenix: target({ url: "http://127.0.0.1:1/v1/traces" }),
      langfuse: { ...base.langfuse, enabled: true, projects },
    }),
  );
  expect(found.map(({ check, status }) => [check, status])).toEqual([
    ["langfuse:acme", "failed"],
    ["phoenix", "failed"],
  ]);
  expect(found[0]?.message).toContain("refused the keys");
  expect(found[0]?.hint).toContain("its traces wait until then");
});

test("a project whose address is none", async () => {
  const { publicKey, secretKey } = langfuse;
  const projects = { acme: { publicKey, secretKey, host: "http://" } };
  const langfuseConfig = { ...base.langfuse, enabled: true, projects };
  const [found] = await checkTargets(config({ langfuse: langfuseConfig }));
  expect(found?.hint).toContain("its runs are not traced until then");
});

describe("a Langfuse that does not work", () => {
  const check = async (
    overrides: Partial<Config["langfuse"]>,
    spool: "disk" | "memory" = "disk",
  ) => {
    const { publicKey, secretKey, url: host } = langfuse;
    const settings = { ...base.langfuse, enabled: true, publicKey, secretKey, host, ...overrides };
    const tracing = { ...base.tracing, spool };
    const [found] = await checkLangfuse(config({ langfuse: settings, tracing }));
    expect(found).toMatchObject({ check: "langfuse", status: "failed" });
    return found;
  };

  test("that is not there, or refuses the keys: traces wait", async () => {
    for (const wrong of [{ host: "http://127.0.0.1:1" }, { secretKey: "wrong" }]) {
      expect((await check(wrong))?.hint).toBe(
        "Runs go on, and their traces are sent once this is mended.",
      );
      expect((await check(wrong, "memory"))?.hint).toBe(
        "Runs go on, and their traces are sent once this is mended, if the server has not ended by then.",
      );
    }
  });

  test("whose keys are missing: nothing is traced", async () => {
    const found = await check({ secretKey: undefined });
    expect(found?.message).toContain("LANGFUSE_SECRET_KEY is not set");
    expect(found?.hint).toBe("Runs go on, untraced, until this is mended.");
  });
});
