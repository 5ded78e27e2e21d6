import { afterEach, beforeEach, expect, test } from "vitest";

import { openProject } from "../../test/fixtures/project.ts";
import type { Project } from "../../test/fixtures/project.ts";
import { ServerError } from "../errors.ts";
import { forgetModules } from "../modules/load.ts";
import { loadAuth } from "./load.ts";

let project: Project;

beforeEach(async () => {
  project = await openProject();
});

afterEach(async () => {
  await project.close();
});

const HEAD = 'import { Auth, HTTPException } from "@langchain/langgraph-sdk/auth";\n';

function load(exportName = "auth") {
  return loadAuth({ path: project.path("src/auth.ts"), exportName }, { cwd: project.dir });
}

function request(authorization: string): Request {
  return new Request("http://localhost/", { headers: { authorization } });
}

async function refusal(source: string | undefined, exportName?: string): Promise<string> {
  if (source !== undefined) await project.write("src/auth.ts", source);
  forgetModules();
  const error: unknown = await load(exportName).catch((thrown: unknown) => thrown);
  if (!(error instanceof ServerError)) throw new Error("expected a refusal");
  expect(error.code).toBe("startup_failed");
  expect(error.message).toContain("The authentication handler cannot be loaded");
  return error.message;
}

test("an Auth instance authenticates requests", async () => {
  await project.write(
    "src/auth.ts",
    `${HEAD}
export const auth = new Auth()
  .authenticate(async (request: Request) => {
    const token = request.headers.get("authorization");
    if (token !== "Bearer good") throw new HTTPException(401, { message: "who are you?" });
    return { identity: "ada", permissions: ["all"] };
  })
  .on("threads", () => true)
  .on("*", () => false);
export default auth;
`,
  );
  const authenticator = await load();
  expect([...authenticator.handlers.keys()]).toEqual(["threads", "*"]);
  expect((await authenticator.authenticate(request("Bearer good"))).identity).toBe("ada");
  await expect(authenticator.authenticate(request("Bearer bad"))).rejects.toMatchObject({
    status: 401,
    message: "who are you?",
  });
  expect((await load("default")).handlers.size).toBe(2);
});

test("whatever is wrong with the module, the server does not start", async () => {
  expect(await refusal(undefined)).toContain("src/auth.ts: file does not exist");
  expect(await refusal(`${HEAD}export const other = 1;`)).toContain(
    'src/auth.ts: has no export "auth"; it exports other',
  );
  expect(await refusal("export const auth = {};")).toContain('export "auth" is not an Auth');
  expect(await refusal(`${HEAD}export const auth = new Auth().on("*", () => true);`)).toContain(
    "the Auth has no authenticate handler",
  );
  const thrown = await refusal(`${HEAD}\nconst a: number = 1;\nthrow new Error("no secret");\n`);
  expect(thrown).toContain("src/auth.ts:4: no secret");
  expect(thrown).toContain('> 4 | throw new Error("no secret");');
  expect(await refusal(`${HEAD}export const auth = new Auth(;`)).toContain("src/auth.ts:2:");
});
