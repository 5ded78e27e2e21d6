import { mkdtemp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { inject } from "vitest";
import type { Config } from "../../src/config/schema.ts";

/**
 * The config of a server whose users are whoever their bearer token says. `handlers` is TypeScript as a project
 * would write it, on an `auth` that authenticates already.
 */
export async function configureAuth(handlers: string): Promise<Partial<Config>> {
  const file = join(await mkdtemp(join(inject("scratch"), "auth-")), "auth.ts");
  // The packages are found from here, as the project's folder is a bare one.
  const source = `
import { createRequire } from "node:module";
const { Auth, HTTPException } = createRequire(${JSON.stringify(import.meta.filename)})("@langchain/langgraph-sdk/auth");
export const auth = new Auth().authenticate(async (request) => {
  const token = request.headers.get("authorization")?.replace("Bearer ", "");
  if (!token) throw new HTTPException(401, { message: "Say who you are" });
  return { identity: token, permissions: [] };
});
${handlers}
`;
  await writeFile(file, source);
  return { auth: { module: { path: file, exportName: "auth" }, disable_studio_auth: true } };
}

/** Owner scoping as the documentation shows it. */
export const OWNER_FILTER = `
auth.on("*", ({ value, user, resource }) => {
  if (resource === "store") {
    value.namespace = [user.identity, ...(value.namespace ?? [])];
    return;
  }
  value.metadata = { ...value.metadata, owner: user.identity };
  return { owner: user.identity };
});
`;

export const as = (token: string): { authorization: string } => ({
  authorization: `Bearer ${token}`,
});
