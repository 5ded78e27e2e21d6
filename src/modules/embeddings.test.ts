import { afterAll, beforeAll, expect, it } from "vitest";
import { mkdir, readlink, symlink, unlink } from "node:fs/promises";
import { openProject, type Project } from "../../test/fixtures/project.ts";
import { toModuleReference } from "../config/module-reference.ts";
import { loadEmbeddings } from "./embeddings.ts";

let project: Project;
beforeAll(async () => {
  project = await openProject({
    "embed.ts":
      "export const embed = (texts: string[]) => texts.map(() => [1]); export const not = 1;",
  });
  // A folder of packages of its own, with one provider in it.
  const installed = await readlink(project.path("node_modules"));
  await unlink(project.path("node_modules"));
  await mkdir(project.path("node_modules/@langchain"), { recursive: true });
  await symlink(`${installed}/@langchain/core`, project.path("node_modules/@langchain/core"));
  await project.write("node_modules/@langchain/openai/package.json", {
    name: "@langchain/openai",
    version: "1.0.0",
    type: "module",
    exports: { ".": { import: "./index.js" } },
  });
  await project.write(
    "node_modules/@langchain/openai/index.js",
    `import { Embeddings } from "@langchain/core/embeddings";
     export class OpenAIEmbeddings extends Embeddings {
       constructor(fields) { super({}); this.model = fields.model; }
       async embedQuery(text) { return [this.model.length, text.length]; }
       async embedDocuments(texts) { return Promise.all(texts.map((text) => this.embedQuery(text))); }
     }`,
  );
  await project.write("node_modules/@langchain/cohere/package.json", {
    name: "@langchain/cohere",
    version: "1.0.0",
    type: "module",
    exports: "./index.js",
  });
  await project.write("node_modules/@langchain/cohere/index.js", `throw new Error("no key");`);
});
afterAll(() => project.close());

const load = (embed: string) =>
  loadEmbeddings(embed, {
    cwd: project.dir,
    toReference: (reference) => toModuleReference(reference, project.dir),
  });

it("loads a function of the project", async () => {
  const embed = await load("./embed.ts:embed");
  expect(embed).toBeInstanceOf(Function);
  await expect(load("./embed.ts:not")).rejects.toMatchObject({
    code: "startup_failed",
    message: expect.stringContaining("neither a function"),
  });
});

it("makes the embeddings of a provider with the project's own package", async () => {
  const embed = await load("openai:text-embedding-3-small");
  expect(
    await (embed as { embedQuery(text: string): Promise<number[]> }).embedQuery("four"),
  ).toEqual(["text-embedding-3-small".length, 4]);
});

const refusal = (embed: string) =>
  load(embed).then(
    () => "none",
    (error: Error) => error.message,
  );

it("says what to install, what is wrong, and what there is", async () => {
  expect(await refusal("mistralai:mistral-embed")).toContain("npm install @langchain/mistralai");
  expect(await refusal("cohere:embed-english-v3.0")).toContain("cannot be loaded: no key");
  expect(await refusal("azure_openai:x")).toContain("has no AzureOpenAIEmbeddings");
  for (const unknown of ["nobody:model", "openai", "openai:"])
    expect(await refusal(unknown)).toContain("The providers are: openai");
});
