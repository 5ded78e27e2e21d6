import { describeNoUrl, toLangfuseBase } from "./addresses.ts";
import { unquote, type Variables } from "./env.ts";
import type { ReadConfigFile } from "./file.ts";
import { describeKey } from "./headers.ts";
import type { Problem } from "./problems.ts";
import type { LangfuseProject } from "./schema.ts";

/** The further projects, with their keys looked up. A variable that is not set is a problem. */
export function toProjects(
  file: ReadConfigFile,
  defaultHost: string,
  { env, problems }: { env: Variables; problems: Problem[] },
): Record<string, LangfuseProject> {
  const projects: Record<string, LangfuseProject> = {};
  for (const [name, project] of Object.entries(file.values.langfuse?.projects ?? {})) {
    const refuse = (key: string, message: string): void => {
      problems.push({ source: file.path, key: `langfuse.projects.${name}.${key}`, message });
    };
    const resolve = (key: "public_key" | "secret_key" | "host"): string => {
      const value = project[key] ?? "";
      const [, variable] = /^\$\{([A-Za-z_]\w*)\}$/u.exec(value) ?? [];
      if (variable === undefined) return value;
      const found = unquote(env[variable]?.trim() ?? "");
      if (found === "") refuse(key, `names the variable ${variable}, which is not set`);
      return found;
    };
    const resolveKey = (key: "public_key" | "secret_key"): string => {
      const value = resolve(key);
      const problem = value === "" ? undefined : describeKey(value);
      if (problem !== undefined) refuse(key, problem);
      return value;
    };
    const host = project.host === undefined ? defaultHost : resolve("host");
    if (host !== "" && !/^https?:\/\//u.test(host)) refuse("host", describeNoUrl(host));
    projects[name] = {
      publicKey: resolveKey("public_key"),
      secretKey: resolveKey("secret_key"),
      host: toLangfuseBase(host),
    };
  }
  return projects;
}
