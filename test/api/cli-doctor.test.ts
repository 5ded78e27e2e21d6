import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, expect, it } from "vitest";
import { createProject } from "../support/child-server.ts";
import { openLangfuseReceiver } from "../support/langfuse-receiver.ts";

const MAIN = fileURLToPath(new URL("../../dist/cli/main.js", import.meta.url));
const GRAPH = `
import { Annotation, StateGraph } from "@langchain/langgraph";
const State = Annotation.Root({ text: Annotation<string>() });
export const graph = new StateGraph(State)
  .addNode("only", async () => ({ text: "done" }))
  .addEdge("__start__", "only")
  .compile();
`;
const cleanups: (() => Promise<unknown>)[] = [];
afterAll(async () => {
  for (const cleanup of cleanups.toReversed()) await cleanup();
});

interface Report {
  ok: boolean;
  findings: { check: string; status: string; message: string; hint?: string }[];
}

async function doctor(folder: string, env: Record<string, string>, ...args: string[]) {
  const { DATABASE_URL: _database, ...inherited } = process.env;
  try {
    const { stdout } = await promisify(execFile)(process.execPath, [MAIN, "doctor", ...args], {
      cwd: folder,
      env: { ...inherited, LANGFUSE_LOGGING: "", ...env },
    });
    return { code: 0, stdout };
  } catch (error) {
    const failed = error as { code: number; stdout: string };
    return { code: failed.code, stdout: failed.stdout };
  }
}

const ofCheck = (report: Report, check: string) =>
  report.findings.filter((finding) => finding.check === check);

it("finds a good project ready, and proves that a trace arrives", async () => {
  const langfuse = await openLangfuseReceiver({ projectName: "Shop" });
  cleanups.push(() => langfuse.close());
  const project = await createProject({
    "graph.ts": GRAPH,
    "aegra.json": JSON.stringify({ graphs: { one: "./graph.ts:graph" } }),
  });
  cleanups.push(project.remove);
  const env = {
    LANGFUSE_LOGGING: "true",
    LANGFUSE_PUBLIC_KEY: langfuse.publicKey,
    LANGFUSE_SECRET_KEY: langfuse.secretKey,
    LANGFUSE_HOST: langfuse.url,
  };
  const { code, stdout } = await doctor(project.folder, env, "--json");
  const report = JSON.parse(stdout) as Report;
  expect(report.findings.filter(({ status }) => status === "failed")).toEqual([]);
  expect(code).toBe(0);
  expect(ofCheck(report, "graphs")).toMatchObject([{ status: "ok", message: "one loads" }]);
  expect(ofCheck(report, "database")).toMatchObject([{ status: "ok" }]);
  expect(ofCheck(report, "langfuse")[0]?.message).toContain("Shop");
  expect(ofCheck(report, "clock")).toMatchObject([{ status: "ok" }]);
  expect(ofCheck(report, "trace")[0]?.message).toContain("read back");
  expect(langfuse.traceIds()).toHaveLength(1);
  expect(langfuse.violations()).toEqual([]);
});

it("says everything that is wrong, and what to do, and exits with 1", async () => {
  const project = await createProject({
    "broken.ts": 'throw new Error("no key for the model");\nexport const graph = 1;\n',
    "auth.ts": "export const nothing = 1;\n",
    "aegra.json": JSON.stringify({
      graphs: { broken: "./broken.ts:graph", absent: "./absent.ts:graph" },
      auth: { path: "./auth.ts:auth" },
      http: { app: "./auth.ts:nothing" },
      surprise: true,
    }),
  });
  cleanups.push(project.remove);
  const env = {
    DATABASE_URL: "postgres://nobody:secret-word@127.0.0.1:9/none",
    LANGFUSE_LOGGING: "true",
    LANGFUSE_PUBLIC_KEY: "pk-lf-x",
    LANGFUSE_SECRET_KEY: "sk-lf-x",
    LANGFUSE_HOST: "http://127.0.0.1:9",
    LANGFUSE_RELEASES: "1",
  };
  const { code, stdout } = await doctor(project.folder, env, "--json");
  const report = JSON.parse(stdout) as Report;
  expect(code).toBe(1);
  expect(report.ok).toBe(false);
  for (const check of ["graphs", "auth", "routes", "database", "langfuse"]) {
    const failed = ofCheck(report, check).filter(({ status }) => status === "failed");
    expect(failed.length, check).toBeGreaterThan(0);
    for (const finding of failed) expect(finding.hint, check).toBeTruthy();
  }
  expect(JSON.stringify(report)).toContain("no key for the model");
  expect(JSON.stringify(report)).toContain("surprise");
  expect(ofCheck(report, "config")).toContainEqual({
    check: "config",
    status: "warning",
    message: expect.stringContaining("LANGFUSE_RELEASES is not a known variable") as string,
    hint: "Correct or remove it; see docs/configuration.md in node_modules/aegra.",
  });
  expect(stdout).not.toContain("secret-word");
  const { stdout: text } = await doctor(project.folder, env);
  expect(text).toContain("FAIL");
  expect(text).toMatch(/things to mend\n$/u);
});
