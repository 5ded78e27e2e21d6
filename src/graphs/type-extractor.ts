import { fork } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { z } from "zod";

import type { ExtractionRequest } from "./type-extraction.ts";

/** The JSON schemas that types tell of one graph, with the extractor's names; what they do not tell is absent. */
export interface TypedSchemas {
  input?: object;
  output?: object;
  state?: object;
  config?: object;
}

/** What one extraction found. */
export interface Extraction {
  /** By export, and for the graphs in it by `export|node|node`. */
  schemas: Record<string, TypedSchemas>;
  /** The files it has read, absolute, each with the SHA-256 of its content. Packages are not among them. */
  inputs: Record<string, string>;
}

const PACKAGE = "@langchain/langgraph-api";
/** A graph of two nodes takes 5 s of an idle processor and 170 MB of heap. */
const HEAP_MB = 1_024;

/**
 * The official extractor, as the project has it: its version, and those of the packages its answer depends on. Or
 * that there is none, or why it is not used.
 */
export function findExtractor(
  cwd: string,
): { versions: string } | { missing: true } | { refused: string } {
  const project = createRequire(join(cwd, "_"));
  const version = versionOf(project, PACKAGE);
  if (version === undefined) return { missing: true };
  const [major = 0, minor = 0] = version.split(".").map(Number);
  if (major !== 1 || minor < 5) {
    return { refused: `${PACKAGE} is ${version}; 1.5 or a newer 1.x is needed` };
  }
  const typescript = versionOf(
    createRequire(project.resolve(`${PACKAGE}/package.json`)),
    "typescript",
  );
  if (!/^[56]\./u.test(typescript ?? "")) {
    return {
      refused: `${PACKAGE} needs typescript 5 or 6 and finds ${typescript ?? "none"}`,
    };
  }
  const langgraph = versionOf(project, "@langchain/langgraph") ?? "unknown";
  return { versions: `extractor ${version}, typescript ${typescript}, langgraph ${langgraph}` };
}

/**
 * The schemas that the types of a graph tell, read by a process of low priority. Rejects with a sentence where
 * that process fails, ends or takes longer than `timeoutMs`, and when `signal` aborts; then it is gone.
 */
export async function extractTypes(
  request: ExtractionRequest,
  options: { timeoutMs: number; signal: AbortSignal },
): Promise<Extraction> {
  // From source the built file is run: Node 20 loads no TypeScript.
  const built = import.meta.url.endsWith(".ts") ? "../../dist/graphs/" : "./";
  const child = fork(
    fileURLToPath(new URL(`${built}type-extraction.js`, import.meta.url)),
    [JSON.stringify(request)],
    {
      // Neither this process's loaders and inspectors, nor the keys in its environment.
      execArgv: [`--max-old-space-size=${HEAP_MB}`],
      env: {},
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    },
  );
  const ended = new AbortController();
  const kill = (): void => void child.kill("SIGKILL");
  const timer = setTimeout(kill, options.timeoutMs);
  options.signal.addEventListener("abort", kill);
  if (options.signal.aborted) kill();
  const exit = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, by) =>
      resolve(by ? `it was ended by ${by}` : `it ended with ${code}`),
    );
  });
  const startedAt = performance.now();
  try {
    const answer = await Promise.race([
      once(child, "message", { signal: ended.signal }).then(([message]: unknown[]) => message),
      exit.then((reason) => {
        const late = performance.now() - startedAt >= options.timeoutMs;
        throw new Error(late ? `it took longer than ${options.timeoutMs / 1000} s` : reason);
      }),
    ]);
    return toExtraction(answer);
  } finally {
    clearTimeout(timer);
    options.signal.removeEventListener("abort", kill);
    ended.abort();
    kill();
    await exit;
  }
}

const extractionSchema = z.union([
  z.object({ error: z.string() }),
  z.object({
    schemas: z.record(z.string(), z.record(z.string(), z.unknown())),
    inputs: z.record(z.string(), z.string()),
  }),
]);

function toExtraction(answer: unknown): Extraction {
  const parsed = extractionSchema.safeParse(answer);
  if (!parsed.success) throw new Error("the extractor's answer has an unknown form");
  if ("error" in parsed.data) throw new Error(parsed.data.error);
  const { schemas, inputs } = parsed.data;
  return {
    inputs,
    schemas: Object.fromEntries(
      Object.entries(schemas).map(([name, found]) => [name, toTypedSchemas(found)]),
    ),
  };
}

/** The schemas of one graph that say something. */
export function toTypedSchemas(found: Record<string, unknown>): TypedSchemas {
  return Object.fromEntries(
    ["input", "output", "state", "config"].flatMap((name) => {
      const schema = toUsable(found[name]);
      return schema ? [[name, schema]] : [];
    }),
  );
}

/**
 * The schema, if it has content: a type that could not be read is an object without properties. For a message
 * the extractor answers 30 KB that only allow a `RemoveMessage`; it becomes an object, as at run time.
 */
function toUsable(schema: unknown): object | undefined {
  if (!isRecord(schema)) return undefined;
  const { definitions, ...rest } = schema;
  const says = ["properties", "$ref", "anyOf", "oneOf", "allOf"].some(
    (key) => Object.keys(Object(rest[key])).length > 0,
  );
  if (!says) return undefined;
  if (!isRecord(definitions)) return rest;
  const kept: Record<string, unknown> = {};
  const keep = (node: unknown): void => {
    if (typeof node !== "object" || node === null) return;
    for (const [key, value] of Object.entries(node)) {
      if (key !== "$ref" || typeof value !== "string") {
        keep(value);
        continue;
      }
      const name = value.replace("#/definitions/", "");
      if (name in kept || !(name in definitions)) continue;
      kept[name] = /^BaseMessage\b/u.test(name) ? { type: "object" } : definitions[name];
      keep(kept[name]);
    }
  };
  keep(rest);
  return Object.keys(kept).length === 0 ? rest : { ...rest, definitions: kept };
}

/** Read anew each time: packages are installed while a dev server runs. */
function versionOf({ resolve }: NodeJS.Require, name: string): string | undefined {
  try {
    const text = readFileSync(resolve(`${name}/package.json`), "utf8");
    const { version } = JSON.parse(text) as { version?: unknown };
    return typeof version === "string" ? version : undefined;
  } catch {
    return undefined;
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
