import { existsSync } from "node:fs";
import { readFile, readdir } from "node:fs/promises";
import { expect, it } from "vitest";
import { INSTALL_COMMAND } from "../../src/observability/langfuse/packages.ts";

const root = new URL("../../", import.meta.url);
const read = (path: string) => readFile(new URL(path, root), "utf8");

it("the README installs the optional packages with the command the server's warning gives", async () => {
  expect(await read("README.md")).toContain(INSTALL_COMMAND);
});

it("the README's commands are scripts of this package", async () => {
  const { scripts } = JSON.parse(await read("package.json")) as { scripts: Record<string, string> };
  const named = [...(await read("README.md")).matchAll(/npm (?:run )?(dev|test|demo)\b/gu)].map(
    (m) => m[1]!,
  );
  expect(new Set(named)).toEqual(new Set(["dev", "test", "demo"]));
  for (const name of named) expect(scripts).toHaveProperty(name);
});

it("links between the pages lead somewhere", async () => {
  const docs = (await readdir(new URL("docs", root))).filter((name) => name.endsWith(".md"));
  for (const page of ["README.md", ...docs.map((name) => `docs/${name}`)]) {
    const base = new URL(page, root);
    for (const [, target] of (await read(page)).matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/gu)) {
      expect(existsSync(new URL(target!, base)), `${page}: ${target}`).toBe(true);
    }
  }
});
