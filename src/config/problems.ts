import { ServerError } from "../errors.ts";

/** One thing a person has to change before the server can start. */
export interface Problem {
  /** Where it is written: a file, or the environment. */
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
