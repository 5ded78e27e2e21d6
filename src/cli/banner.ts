import { relative } from "node:path";

import type { Role } from "../config/schema.ts";
import type { ModuleError } from "../modules/failure.ts";
import { formatPosition } from "../modules/failure.ts";
import type { ObserverStatus } from "../observability/observer.ts";

/** What the banner tells; plain values, so that it can be rendered without a server. */
export interface BannerInput {
  version: string;
  mode: "dev" | "start";
  role: Role;
  /** How many processes share the port. */
  processes: number;
  /** The address the server listens on, such as `http://127.0.0.1:2024`. */
  url: string;
  cwd: string;
  database: { kind: string; location: string };
  graphs: { id: string; error?: ModuleError }[];
  /** The tracing targets; empty where tracing is off. */
  tracing: ObserverStatus[];
  /** Milliseconds from the start of the process. */
  readyMs: number;
  paint: Paint;
}

const LABEL_WIDTH = 11;
const INDENT = " ".repeat(2 + LABEL_WIDTH);

/** The text shown when the server is ready. */
export function renderBanner(input: BannerInput): string {
  const { paint } = input;
  const url = toBrowserUrl(input.url);
  const rows = [
    `  ${paint.bold(`aegra ${input.version}`)}  ${paint.dim(`${describeMode(input)}, ready in ${input.readyMs} ms`)}`,
    "",
    ...(input.role === "worker"
      ? [row("Probes", paint.cyan(`${url}/ready`))]
      : [
          row("API", paint.cyan(url)),
          row("Docs", paint.cyan(`${url}/docs`)),
          row("Studio", paint.cyan(`https://smith.langchain.com/studio/?baseUrl=${url}`)),
        ]),
    row("Database", describeDatabase(input)),
    ...renderGraphs(input, paint),
    ...input.tracing.flatMap((status) => renderTracing(status, paint)),
    ...(input.tracing.some(({ name }) => name === "langfuse") ? [] : renderTracingOff(paint)),
  ];
  return `\n${rows.join("\n")}\n\n`;
}

/** The lines about one tracing target: in the banner, and again when its check has answered. */
export function renderTracing(status: ObserverStatus, paint: Paint = createPaint(false)): string[] {
  const label = status.name.charAt(0).toUpperCase() + status.name.slice(1);
  if (status.state === "off") {
    return status.name === "langfuse" ? renderTracingOff(paint) : [];
  }
  const color = {
    on: paint.green,
    checking: paint.dim,
    misconfigured: paint.red,
    unreachable: paint.yellow,
  };
  const words = {
    on: "on",
    checking: "checking",
    misconfigured: "not working",
    unreachable: "unreachable",
  };
  const [first = "", ...others] = status.message.split("\n");
  const text = `${color[status.state](words[status.state])}${first === "" ? "" : `, ${first}`}`;
  return [row(label, text), ...others.map((line) => `${INDENT}${line}`)];
}

/** One graph that failed, with the place and the source line: in the banner and after a reload. */
export function renderFailure(
  id: string,
  error: ModuleError,
  options: { cwd: string; paint: Paint; indent: string },
): string[] {
  const { cwd, paint, indent } = options;
  const [first = "", ...others] = error.message.split("\n");
  return [
    `${indent}${paint.red(`${id}: ${formatPosition(error, cwd)}: ${first}`)}`,
    ...[...others, ...(error.excerpt?.split("\n") ?? [])].map(
      (line) => `${indent}  ${paint.dim(line)}`,
    ),
  ];
}

/** Text styles; each is the identity where colours are not wanted. */
export type Paint = Record<
  "bold" | "dim" | "red" | "green" | "yellow" | "cyan",
  (text: string) => string
>;

/** Styles for a terminal, or none. */
export function createPaint(color: boolean): Paint {
  const style = (open: number, close: number) => (text: string) =>
    color ? `\u001B[${open}m${text}\u001B[${close}m` : text;
  return {
    bold: style(1, 22),
    dim: style(2, 22),
    red: style(31, 39),
    green: style(32, 39),
    yellow: style(33, 39),
    cyan: style(36, 39),
  };
}

function describeMode({ mode, role, processes }: BannerInput): string {
  const parts: string[] = [mode];
  if (role !== "all") parts.push(`role ${role}`);
  if (processes > 1) parts.push(`${processes} processes`);
  return parts.join(", ");
}

function row(label: string, text: string): string {
  return `  ${label.padEnd(LABEL_WIDTH)}${text}`;
}

function renderGraphs(input: BannerInput, paint: Paint): string[] {
  const loaded = input.graphs.filter(({ error }) => error === undefined).map(({ id }) => id);
  const failed = input.graphs.flatMap(({ id, error }) => (error ? [{ id, error }] : []));
  return [
    row("Graphs", loaded.length === 0 ? paint.red("none could be loaded") : loaded.join(", ")),
    ...failed.flatMap(({ id, error }) =>
      renderFailure(id, error, { cwd: input.cwd, paint, indent: INDENT }),
    ),
  ];
}

function renderTracingOff(paint: Paint): string[] {
  return [
    row("Langfuse", "off. To trace every run, put four lines into .env:"),
    ...[
      "LANGFUSE_LOGGING=true",
      "LANGFUSE_PUBLIC_KEY=pk-lf-...",
      "LANGFUSE_SECRET_KEY=sk-lf-...",
      "LANGFUSE_HOST=https://cloud.langfuse.com",
    ].map((line) => `${INDENT}  ${paint.dim(line)}`),
  ];
}

function describeDatabase({ database, cwd }: BannerInput): string {
  if (database.kind !== "pglite") return `PostgreSQL, ${database.location}`;
  const inside = relative(cwd, database.location);
  const shown = inside.startsWith("..") || inside === "" ? database.location : inside;
  return `PGlite, ${shown}`;
}

/** An address a browser can open: "all interfaces" is not one. */
function toBrowserUrl(url: string): string {
  return url.replace(/\/+$/u, "").replace(/\/\/(0\.0\.0\.0|\[::\])/u, "//localhost");
}
