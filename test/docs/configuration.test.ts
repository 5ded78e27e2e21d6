import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { z } from "zod";

import { readEnvironment } from "../../src/config/env.ts";
import { fileSchema } from "../../src/config/schema.ts";

const page = await readFile(new URL("../../docs/configuration.md", import.meta.url), "utf8");

/** `database.url`, ...: the keys of the schema; those of `graphs`, `env` and CORS have their own words. */
function listKeys(schema: z.ZodObject, prefix = ""): string[] {
  return Object.entries(schema.shape).flatMap(([key, value]) => {
    const inner = value instanceof z.ZodOptional ? value.unwrap() : value;
    const path = `${prefix}${key}`;
    const isGroup =
      inner instanceof z.ZodObject && path !== "http.cors" && !/\.(index|ttl)$/u.test(path);
    return isGroup ? listKeys(inner, `${path}.`) : [path];
  });
}

test("every key of the config file is documented, and no other", () => {
  const documented = page
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .flatMap((line) => [...(line.split("|")[1] ?? "").matchAll(/`([^`]+)`/gu)])
    .map(([, key = ""]) => key)
    .filter((key) => !/^[A-Z_]+$/u.test(key));
  expect(documented.toSorted()).toEqual(listKeys(fileSchema).toSorted());
});

test("every variable that is read is documented, and no other", () => {
  const read = new Set<string>();
  const env = new Proxy<Record<string, string>>(
    { LANGFUSE_LOGGING: "true", OTEL_TARGETS: "otlp,phoenix" },
    {
      get(target, name) {
        read.add(String(name));
        return Reflect.get(target, name);
      },
    },
  );
  readEnvironment(env, []);
  const table = page.split("## Variables")[1]?.split("## ")[0] ?? "";
  const documented = new Set(
    [...table.matchAll(/`([A-Z][A-Z_]{3,})`/gu)].map(([, name = ""]) => name),
  );
  expect([...documented].toSorted()).toEqual([...read].toSorted());
});
