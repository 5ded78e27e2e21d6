import { isWrongUsage } from "../config/problems.ts";
import { ServerError } from "../errors.ts";

/** The exit code of a command line that was wrong; a command that failed ends with 1. */
export const WRONG_USAGE = 2;

/**
 * Tells a person why a command failed. An expected refusal is its message alone; anything else is a bug and
 * comes with its stack. Gives the exit code to end with.
 */
export function reportFailure(error: unknown): number {
  const text =
    error instanceof ServerError
      ? error.message
      : `This is a bug in aegra.\n${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
  process.stderr.write(`${text}\n`);
  return isWrongUsage(error) ? WRONG_USAGE : 1;
}
