import { DatabaseAway } from "../storage/persistence.ts";

/**
 * The level at which something is logged that failed and is tried again and again. That the database is away is
 * told once by itself, and not by everybody who finds it so.
 */
export function gravityOf<Level extends string>(error: unknown, level: Level): Level | "debug" {
  return error instanceof DatabaseAway ? "debug" : level;
}
