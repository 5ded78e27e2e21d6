import { expect, test } from "vitest";

import { readEnvironment } from "./env.ts";
import { describeUnknownVariables, KNOWN_VARIABLES } from "./unknown-variables.ts";

function describe(names: string[], references = ""): string[] {
  return describeUnknownVariables(Object.fromEntries(names.map((name) => [name, "x"])), references);
}

test("the known variables are those that are read", () => {
  const read = new Set<string>();
  const env = new Proxy<Record<string, string>>(
    { LANGFUSE_LOGGING: "true" },
    {
      get(target, name) {
        read.add(String(name));
        return Reflect.get(target, name);
      },
    },
  );
  readEnvironment(env, []);
  const ours = [...read].filter((name) => /^(AEGRA|LANGFUSE)_/u.test(name));
  expect(ours.toSorted()).toEqual(KNOWN_VARIABLES.toSorted());
  expect(describe(KNOWN_VARIABLES)).toEqual([]);
});

test.each([
  ["LANGFUSE_LOGING", "LANGFUSE_LOGGING"],
  ["LANGFUSE_LOGGIGN", "LANGFUSE_LOGGING"],
  ["LANGFUSE_HOSTS", "LANGFUSE_HOST"],
  ["LANGFUSE_BASE_URI", "LANGFUSE_BASE_URL"],
  ["LANGFUSE_PUBLICKEY", "LANGFUSE_PUBLIC_KEY"],
  ["LANGFUSE_SECRETE_KEYS", "LANGFUSE_SECRET_KEY"],
  ["LANGFUSE_TRACING_ENVIROMENT", "LANGFUSE_TRACING_ENVIRONMENT"],
  ["AEGRA_TRACE_SPOOL", "AEGRA_TRACES_SPOOL"],
  ["AEGRA_TRACES_DIRECTORY", "AEGRA_TRACES_DIR"],
  ["AEGRA_DATADIR", "AEGRA_DATA_DIR"],
])("%s is a slip for %s", (name, meant) => {
  expect(describe([name])).toEqual([
    `${name} is not a known variable and has no effect on the server; did you mean ${meant}?`,
  ]);
});

test("a name of ours that is like no other is told without a guess", () => {
  expect(describe(["AEGRA_WORKERS", "AEGRA_PORT"])).toEqual([
    "AEGRA_PORT is not a known variable and has no effect on the server",
    "AEGRA_WORKERS is not a known variable and has no effect on the server",
  ]);
});

test("nothing is said of names that others read, and of what is empty", () => {
  expect(
    describe([
      // The SDKs
      "LANGFUSE_DEBUG",
      "LANGFUSE_LOG_LEVEL",
      "LANGFUSE_MEDIA_UPLOAD_ENABLED",
      "LANGFUSE_MEDIA_UPLOAD_THREAD_COUNT",
      "LANGFUSE_OBSERVE_DECORATOR_IO_CAPTURE_ENABLED",
      "LANGFUSE_OTEL_TRACES_EXPORT_PATH",
      "LANGFUSE_PROMPT_CACHE_DEFAULT_TTL_SECONDS",
      // Langfuse's server, and deploy/langfuse
      "LANGFUSE_AI_FEATURES_HOST",
      "LANGFUSE_AI_FEATURES_PUBLIC_KEY",
      "LANGFUSE_INIT_PROJECT_PUBLIC_KEY",
      "LANGFUSE_INIT_PROJECT_SECRET_KEY",
      "LANGFUSE_LOG_FORMAT",
      "LANGFUSE_S3_EVENT_UPLOAD_BUCKET",
      "LANGFUSE_SALT",
      "LANGFUSE_URL",
      "LANGFUSE_USER_PASSWORD",
      "LANGFUSE_WORKER_HOST",
      // A project's own
      "LANGFUSE_HOST_EU",
      "LANGFUSE_PORT",
      "LANGFUSE_PUBLIC_KEY_2",
      "LANGFUSE_PUBLIC_KEY_B",
      "LANGFUSE_PUBLIC_KEY2",
      "MY_AEGRA_ROLE",
    ]),
  ).toEqual([]);
  expect(describeUnknownVariables({ AEGRA_ROLLE: " ", LANGFUSE_LOGING: undefined }, "")).toEqual(
    [],
  );
});

test("nor of names that the config uses", () => {
  const config =
    '{"secret":"${AEGRA_SECRET}","a":"${{ env.AEGRA_TOKEN }}","b":"${LANGFUSE_HOSTB}"}';
  expect(describe(["AEGRA_SECRET", "AEGRA_TOKEN", "LANGFUSE_HOSTB"], config)).toEqual([]);
});

test("nor of what Kubernetes says of a Service", () => {
  const links = [
    "AEGRA_PORT",
    "AEGRA_PORT_2024_TCP",
    "AEGRA_PORT_2024_TCP_ADDR",
    "AEGRA_SERVICE_HOST",
    "AEGRA_SERVICE_PORT",
    "AEGRA_SERVICE_PORT_HTTP",
    "AEGRA_WEB_PORT",
    "AEGRA_WEB_SERVICE_HOST",
  ];
  expect(describe(links)).toEqual([]);
});
