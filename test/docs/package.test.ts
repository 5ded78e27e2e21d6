import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { posix } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, expect, it } from "vitest";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));

let packed: Set<string>;
const read = (path: string) => readFile(new URL(path, `file://${ROOT}`), "utf8");

/** What `npm publish` would put into the package. */
beforeAll(async () => {
  const args = ["pack", "--dry-run", "--json", "--ignore-scripts"];
  const { stdout } = await promisify(execFile)("npm", args, { cwd: ROOT });
  const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }];
  packed = new Set(files.map(({ path }) => path));
});

it("links in the package's pages lead to pages of the package", async () => {
  const pages = [...packed].filter((path) => path.endsWith(".md"));
  expect(pages).toEqual(expect.arrayContaining(["README.md", "docs/configuration.md"]));
  for (const page of pages) {
    for (const [, target] of (await read(page)).matchAll(/\]\((?!https?:)([^)#]+)[^)]*\)/gu)) {
      expect(packed, page).toContain(posix.join(posix.dirname(page), target!));
    }
  }
});

it("pages that messages name are in the package, and said to be there", async () => {
  const modules = [...packed].filter((path) => path.endsWith(".js"));
  for (const module of modules) {
    // Comments are for those who have the repository.
    const code = (await read(module)).replaceAll(/^\s*(\/?\*|\/\/).*$/gmu, "");
    for (const [text, page] of code.matchAll(/(docs\/[\w-]+\.md)[^"`\n]*/gu)) {
      expect(packed, module).toContain(page);
      expect(text, module).toContain(`${page} in node_modules/aegra`);
    }
  }
});

it("modules name no source maps, whose sources are not in the package", async () => {
  const modules = [...packed].filter((path) => path.endsWith(".js"));
  expect(modules).toContain("dist/index.js");
  for (const module of modules)
    expect(await read(module), module).not.toContain("sourceMappingURL");
});
