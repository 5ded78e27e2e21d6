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
import { loadLangfuseObserver } from "./dist/observability/langfuse/observer.js";
const lines = [];
const log = pino({ level: "debug" }, { write: (text) => lines.push(JSON.parse(text)) });
const config = { enabled: true, publicKey: "pk", secretKey: "sk", host: "http://127.0.0.1:1" };
const observer = await loadLangfuseObserver(config, { log });
await observer.ready();
const now = new Date();
const observation = observer.startRun({ run_id: "r", tags: [], metadata: {}, created_at: now, started_at: now });
const result = observation.within(() => 42);
observation.end({ status: "success" });
const { checkLangfuse } = await import("./dist/doctor/langfuse.js");
const findings = await checkLangfuse({ langfuse: config, tracing: { spool: "disk" } });
console.log(JSON.stringify({ findings, lines, result, traceId: observation.traceId ?? null, status: observer.status() }));
`;

test("packages that are not installed: one warning with the line to type, and runs go on untraced", async () => {
  await writeFile(join(folder, "script.js"), SCRIPT);
  const { stdout } = await promisify(execFile)(process.execPath, ["script.js"], { cwd: folder });
  const answer = JSON.parse(stdout) as {
    lines: Array<{ level: number; msg: string }>;
    result: number;
    traceId: string | null;
    status: Array<{ state: string; message: string }>;
    findings: Array<{ message: string; hint: string }>;
  };
  expect(answer.lines).toHaveLength(1);
  expect(answer.lines[0]).toMatchObject({ level: 40 });
  expect(answer.lines[0]?.msg).toContain("npm install @langfuse/tracing@");
  expect(answer).toMatchObject({ result: 42, traceId: null });
  expect(answer.status).toMatchObject([{ state: "misconfigured" }]);
  expect(answer.status[0]?.message).toContain("npm install");
  expect(answer.findings).toHaveLength(1);
  expect(answer.findings[0]?.message).toContain("npm install");
  expect(answer.findings[0]?.hint).toBe("Runs go on, untraced, until this is mended.");
});
