import { ServerError } from "../errors.ts";

/** The source of a problem that is in a flag. */
export const COMMAND_LINE = "command line";

/** One thing a person has to change before the server can start. */
export interface Problem {
  /** Where it is written: a file, the environment, or `COMMAND_LINE`. */
  source: string;
  /** The key or variable; empty where the whole file is meant. */
  key: string;
  message: string;
}

/** All `problems` as one refusal to start, readable in a terminal. */
export function toStartupError(problems: readonly Problem[]): ServerError {
  const lines = problems.map(
    ({ source, key, message }) => `  ${source}: ${key === "" ? "" : `${key} `}${message}`,
  );
  const title =
    problems.length === 1
      ? "The configuration has a problem:"
      : `The configuration has ${problems.length} problems:`;
  return new ServerError("startup_failed", [title, ...lines].join("\n"), { details: { problems } });
}

/** Whether a refusal is about a flag that no project could have taken, whatever else is wrong. */
export function isWrongUsage(error: unknown): boolean {
  if (!(error instanceof ServerError)) return false;
  const { problems } = Object(error.details) as { problems?: Problem[] };
  return problems?.some(({ source }) => source === COMMAND_LINE) ?? false;
}
