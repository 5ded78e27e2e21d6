import { readFile, stat } from "node:fs/promises";
import { resolve } from "node:path";

import type { Problem } from "./problems.ts";
import { fileSchema } from "./schema.ts";
import type { ConfigFile } from "./schema.ts";
import { describeIneffective, describeUnreadKey } from "./unsupported.ts";

/** The files looked for, the first one found wins. */
export const CONFIG_FILES = ["aegra.json", "langgraph.json"];

/** A config file that was read, as far as it is valid. */
export interface ReadConfigFile {
  path: string;
  values: ConfigFile;
  /** Sentences about keys without effect. */
  warnings: string[];
}

/** Whether the project's folder is there; what is wrong goes to `problems`. */
export async function checkFolder(path: string, problems: Problem[]): Promise<boolean> {
  const refuse = (message: string): boolean => {
    problems.push({ source: path, key: "", message });
    return false;
  };
  try {
    return (await stat(path)).isDirectory() || refuse("is not a folder");
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    return refuse(isAbsent(error) ? "does not exist" : `cannot be read: ${message}`);
  }
}

/**
 * Reads the config file at `path`, or the first of `CONFIG_FILES` in `cwd`. What is wrong goes to `problems`;
 * values that are wrong are left out, so that everything else can still be checked. `undefined` if there is no
 * file or no JSON object in it.
 */
export async function readConfigFile(
  cwd: string,
  path: string | undefined,
  problems: Problem[],
): Promise<ReadConfigFile | undefined> {
  const candidates = path === undefined ? CONFIG_FILES : [path];
  for (const candidate of candidates) {
    const file = resolve(cwd, candidate);
    const text = await read(file, problems);
    if (text !== undefined) return parseConfigFile(file, text, problems);
  }
  if (path !== undefined && problems.length === 0) {
    problems.push({ source: resolve(cwd, path), key: "", message: "does not exist" });
  }
  return undefined;
}

function parseConfigFile(
  path: string,
  text: string,
  problems: Problem[],
): ReadConfigFile | undefined {
  const json = parseJson(path, text, problems);
  if (json === undefined) return undefined;
  const warnings: string[] = [];
  const values = validate(path, json, { problems, warnings });
  warnings.push(...describeIneffective(json));
  return { path, values, warnings: warnings.map((warning) => `${path}: ${warning}`) };
}

/**
 * Validates until only valid keys are left. The first pass tells everything: keys the schema does not know
 * become warnings, wrong values become problems; both are then removed, which can only make the rest valid.
 */
function validate(
  path: string,
  json: Record<string, unknown>,
  into: { problems: Problem[]; warnings: string[] },
): ConfigFile {
  const rest = structuredClone(json);
  const first = fileSchema.safeParse(rest);
  if (first.success) return first.data;
  for (const issue of first.error.issues) {
    if (issue.code === "unrecognized_keys") {
      for (const key of issue.keys) {
        const warning = describeUnreadKey([...issue.path, key].join("."));
        if (warning !== undefined) into.warnings.push(warning);
        remove(rest, [...issue.path, key]);
      }
    } else {
      const message = issue.message.replace(/^Invalid input: /u, "");
      into.problems.push({ source: path, key: issue.path.join("."), message });
      remove(rest, issue.path.slice(0, 1));
    }
  }
  const second = fileSchema.safeParse(rest);
  return second.success ? second.data : {};
}

function parseJson(
  path: string,
  text: string,
  problems: Problem[],
): Record<string, unknown> | undefined {
  let json: unknown;
  try {
    json = JSON.parse(text.replace(/^\uFEFF/u, ""));
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    // Without the excerpt that V8 quotes or its offset: line and column say more.
    const reason = message
      .replace(/(, )?(\.\.\.)?"[^]*" is not valid JSON$/u, "")
      .replace(/ in JSON at position.*$/u, "");
    problems.push({
      source: `${path}${locate(text)}`,
      key: "",
      message: `is not valid JSON: ${reason}`,
    });
    return undefined;
  }
  if (typeof json === "object" && json !== null && !Array.isArray(json)) {
    return json as Record<string, unknown>;
  }
  problems.push({ source: path, key: "", message: "must contain a JSON object" });
  return undefined;
}

/**
 * `:line:column` of the mistake in `text`. V8 names the position only for some mistakes, so it is searched:
 * the shortest beginning of the text that cannot be continued to valid JSON ends with the mistake.
 */
function locate(text: string): string {
  let low = 0;
  let high = text.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (isBroken(text.slice(0, middle))) high = middle;
    else low = middle + 1;
  }
  const offset = isBroken(text) ? low - 1 : text.length;
  const before = text.slice(0, offset).split("\n");
  return `:${before.length}:${(before.at(-1)?.length ?? 0) + 1}`;
}

/** Whether no continuation could make `text` valid JSON: the parser stopped before its end. */
function isBroken(text: string): boolean {
  try {
    JSON.parse(text);
    return false;
  } catch (error) {
    const message = error instanceof Error ? error.message : "";
    if (message.includes("end of JSON input")) return false;
    const position = /at position (\d+)/u.exec(message)?.[1];
    return position === undefined || Number(position) < text.length;
  }
}

async function read(path: string, problems: Problem[]): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isAbsent(error)) return undefined;
    const message = error instanceof Error ? error.message : String(error);
    problems.push({ source: path, key: "", message: `cannot be read: ${message}` });
    return undefined;
  }
}

function isAbsent(error: unknown): boolean {
  return error instanceof Error && "code" in error && error.code === "ENOENT";
}

function remove(target: Record<string, unknown>, path: readonly PropertyKey[]): void {
  let current: unknown = target;
  for (const part of path.slice(0, -1)) {
    if (typeof current !== "object" || current === null) return;
    current = Reflect.get(current, part);
  }
  const last = path.at(-1);
  if (typeof current === "object" && current !== null && last !== undefined) {
    Reflect.deleteProperty(current, last);
  }
}
