import type { Flags } from "../config/schema.ts";

/** What the commands that serve take from the command line. */
export interface ServeOptions {
  /** The project's folder. */
  cwd: string;
  configPath: string | undefined;
  flags: Flags;
}

/** The options as the parser leaves them: a value may be a number, or missing. */
export interface RawOptions {
  cwd?: unknown;
  config?: unknown;
  host?: unknown;
  port?: unknown;
  logLevel?: unknown;
  role?: unknown;
  workers?: unknown;
  processes?: unknown;
}

/** The command line as the rest of the code wants it. A number that is none is refused with the config. */
export function parseServeOptions(raw: RawOptions): ServeOptions {
  return {
    cwd: toText(raw.cwd) ?? process.cwd(),
    configPath: toText(raw.config),
    flags: {
      host: toText(raw.host),
      port: toNumber(raw.port),
      logLevel: toText(raw.logLevel),
      role: toText(raw.role),
      workers: toNumber(raw.workers),
      processes: toNumber(raw.processes),
    },
  };
}

function toText(value: unknown): string | undefined {
  return typeof value === "string" || typeof value === "number" ? String(value) : undefined;
}

function toNumber(value: unknown): number | undefined {
  return value === undefined ? undefined : Number(value);
}
