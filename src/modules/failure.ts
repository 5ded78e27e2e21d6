import { readFileSync } from "node:fs";
import { relative } from "node:path";
import { fileURLToPath } from "node:url";

/** Why a module of the user's could not be loaded, in terms of the user's own source. */
export interface ModuleError {
  message: string;
  /** Absolute path of the user's file. */
  file: string;
  /** From 1. */
  line: number | undefined;
  /** From 1; unknown for what TypeScript throws, because transpiling keeps the lines but not the columns. */
  column: number | undefined;
  /** The line at fault with its neighbours, for a terminal. */
  excerpt: string | undefined;
}

interface Position {
  file: string;
  line: number;
  column: number | undefined;
}

/** Where this package's own code is: frames in it are never the user's. */
const OWN_CODE = fileURLToPath(new URL("..", import.meta.url));

/**
 * What was thrown while a module was loaded, with the place in the user's own source: the position a parse
 * error names, else the innermost stack frame that belongs neither to a package nor to this server.
 */
export function toModuleError(thrown: unknown, path: string): ModuleError {
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const parsed = parseSyntaxError(message);
  const position =
    parsed?.position ?? (thrown instanceof Error ? findUserFrame(thrown) : undefined);
  const name = thrown instanceof Error && thrown.name !== "Error" ? `${thrown.name}: ` : "";
  return describeFailure(parsed?.message ?? `${name}${toFirstParagraph(message)}`, path, position);
}

/** A failure at `position`; without one it is about the file as a whole. */
export function describeFailure(
  message: string,
  path: string,
  position: Position | undefined,
): ModuleError {
  return {
    message,
    file: position?.file ?? path,
    line: position?.line,
    column: position?.column,
    excerpt: position && cutExcerpt(position),
  };
}

/** `src/agent.ts:3:7`, relative to `cwd` where the file is inside it. */
export function formatPosition(error: ModuleError, cwd: string): string {
  const inside = relative(cwd, error.file);
  const file = inside.startsWith("..") ? error.file : inside;
  return [file, error.line, error.column].filter((part) => part !== undefined).join(":");
}

/** Where `exportName` is exported in the module's text, if that can be seen without parsing it. */
export function findExport(path: string, exportName: string): Position | undefined {
  const escaped = exportName.replaceAll("$", String.raw`\$`);
  const pattern =
    exportName === "default"
      ? /^\s*export\s+default\b/u
      : new RegExp(
          String.raw`^\s*export\s+(declare\s+)?(async\s+)?(const|let|var|function\*?|class)\s+${escaped}\b`,
          "u",
        );
  const line = readLines(path).findIndex((text) => pattern.test(text));
  return line === -1 ? undefined : { file: path, line: line + 1, column: undefined };
}

/** The loader's form: `ParseError: <reason> \n <file>:<line>:<column>`, where only columns count from 0. */
function parseSyntaxError(message: string): { message: string; position: Position } | undefined {
  const match = /^ParseError: ([^]*?)\s+(\S[^\n]*):(\d+):(\d+)\s*$/u.exec(message);
  if (!match?.[1] || !match[2]) return undefined;
  return {
    message: `SyntaxError: ${match[1].trim()}`,
    position: { file: match[2], line: Number(match[3]), column: Number(match[4]) + 1 },
  };
}

function findUserFrame(error: Error): Position | undefined {
  for (const frame of (error.stack ?? "").split("\n")) {
    const match = /^\s+at (?:.*\()?(.+?):(\d+):(\d+)\)?$/u.exec(frame);
    if (!match?.[1]) continue;
    const place = match[1].replace(/^async /u, "");
    const file = place.startsWith("file:") ? fileURLToPath(place) : place;
    const foreign =
      /^node:|[/\\]node_modules[/\\]|^<|^data:/u.test(file) || file.startsWith(OWN_CODE);
    if (foreign) continue;
    const transpiled = /\.[cm]?tsx?$/u.test(file);
    return { file, line: Number(match[2]), column: transpiled ? undefined : Number(match[3]) };
  }
  return undefined;
}

/** "Cannot find module" goes on with a list of requiring files, which the position says better. */
function toFirstParagraph(message: string): string {
  return message.replace(/\n+Require stack:[^]*$/u, "").trim();
}

function cutExcerpt({ file, line, column }: Position): string | undefined {
  const lines = readLines(file);
  if (line > lines.length) return undefined;
  const first = Math.max(1, line - 1);
  const last = Math.min(lines.length, line + 1);
  const width = String(last).length;
  const rows: string[] = [];
  for (let number = first; number <= last; number++) {
    const gutter = `${number === line ? ">" : " "} ${String(number).padStart(width)} | `;
    const text = (lines[number - 1] ?? "").slice(0, 200);
    rows.push(`${gutter}${text}`.trimEnd());
    if (number === line && column !== undefined && column <= text.length) {
      rows.push(
        `  ${" ".repeat(width)} | ${text.slice(0, column - 1).replaceAll(/[^\t]/gu, " ")}^`,
      );
    }
  }
  return rows.join("\n");
}

function readLines(path: string): string[] {
  try {
    return readFileSync(path, "utf8").split(/\r?\n/u);
  } catch {
    return [];
  }
}
