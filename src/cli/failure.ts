import { ServerError } from "../errors.ts";

/**
 * Tells a person why a command failed. An expected refusal is its message alone; anything else is a bug and
 * comes with its stack.
 */
export function reportFailure(error: unknown): void {
  const text =
    error instanceof ServerError
      ? error.message
      : `This is a bug in aegra.\n${error instanceof Error ? (error.stack ?? error.message) : String(error)}`;
  process.stderr.write(`${text}\n`);
}
