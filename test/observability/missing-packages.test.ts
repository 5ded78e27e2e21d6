import { execFile } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, test } from "vitest";

const ROOT = fileURLToPath(new URL("../..", import.meta.url));
let folder: string;

/** The built package in a folder whose `node_modules` has everything but the optional packages. */
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "aegra-missing-"));
  await cp(join(ROOT, "dist"), join(folder, "dist"), { recursive: true });
  await writeFile(join(folder, "package.json"), JSON.stringify({ type: "module" }));
  await mkdir(join(folder, "node_modules"));
  for (const name of await readdir(join(ROOT, "node_modules"))) {
    if (name.startsWith(".") || name === "@langfuse" || name === "@opentelemetry") continue;
    await symlink(join(ROOT, "node_modules", name), join(folder, "node_modules", name));
  }
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const SCRIPT = `
import { pino } from "pino";
import { Annotation, StateGraph } from "@langchain/langgraph";
import { openTracing } from "./dist/observability/index.js";
const lines = [];
const log = pino({ level: "debug" }, { write: (text) => lines.push(JSON.parse(text).msg) });
const env = { OTEL_TARGETS: "otlp,phoenix,langfuse", LANGFUSE_PUBLIC_KEY: "pk", LANGFUSE_SECRET_KEY: "sk" };
const tracing = await openTracing({ env, log });
const graph = new StateGraph(Annotation.Root({ a: Annotation() }))
  .addNode("n", () => ({ a: 2 })).addEdge("__start__", "n").compile();
const result = await tracing.trace(graph).invoke({ a: 1 });
const status = tracing.status().map(({ name, state }) => [name, state]);
await tracing.close();
console.log(JSON.stringify({ lines, result, status }));
`;

test("without the packages each target says once what to type, and graphs run untraced", async () => {
  await writeFile(join(folder, "script.js"), SCRIPT);
  const { stdout } = await promisify(execFile)(process.execPath, ["script.js"], { cwd: folder });
  const answer = JSON.parse(stdout) as { lines: string[]; result: unknown; status: string[][] };
  expect(answer.result).toEqual({ a: 2 });
  expect(answer.lines).toHaveLength(3);
  for (const line of answer.lines) expect(line).toMatch(/npm install (@langfuse|@opentelemetry)/);
  expect(answer.status).toEqual([
    ["langfuse", "misconfigured"],
    ["otlp", "misconfigured"],
    ["phoenix", "misconfigured"],
  ]);
});
