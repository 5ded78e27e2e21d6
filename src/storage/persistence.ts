import { setTimeout as delay } from "node:timers/promises";
import { ServerError } from "../errors.ts";
import type { Queryable } from "./database.ts";

/** Waits between attempts while the database cannot be reached; the last failure is final. */
const RETRY_DELAYS_MS = [50, 250, 1_000];
/** Between attempts that have no end. */
const LONGEST_DELAY_MS = 1_000;

/** There is no connection to the database, or a statement has lost its own: it may have been carried out. */
export class DatabaseAway extends Error {
  override readonly name = "DatabaseAway";
  /** The SQLSTATE or the socket's error, if there is one. */
  readonly code: unknown;

  constructor(cause: Error) {
    const code: unknown = "code" in cause ? cause.code : undefined;
    // Node reports a name with several addresses as one error without a message.
    super(cause.message || String(code), { cause });
    this.code = code;
  }
}

/** The database was closed here, by its owner. */
export class DatabaseClosed extends Error {
  override readonly name = "DatabaseClosed";

  constructor() {
    super("The database is closed.");
  }
}

/** Whether the same statement may succeed later: connection, resource and serialisation failures. */
export function isUnreachable(error: unknown): error is Error {
  if (!(error instanceof Error)) return false;
  const code: unknown = "code" in error ? error.code : undefined;
  if (typeof code !== "string")
    return /Connection terminated|Client has encountered a connection error|timeout exceeded when trying/i.test(
      error.message,
    );
  return /^(?:08|53|57P|40)/.test(code) || /^(?:E[A-Z]{3,}|EAI_AGAIN)$/.test(code);
}

/** Tries again, for about a second, what may be done twice and finds no database. */
export async function persistently<T>(work: () => Promise<T>): Promise<T> {
  for (const waitMs of RETRY_DELAYS_MS) {
    try {
      return await work();
    } catch (error) {
      if (!isUnreachable(error)) throw error;
    }
    await delay(waitMs);
  }
  return work();
}

/**
 * Tries again for as long as there is no database, for those whose answer has begun and can only go on. Gives
 * `undefined` if `signal` aborts first, or the database is closed.
 */
export async function patiently<T>(
  work: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T | undefined> {
  for (let tries = 0; ; tries += 1) {
    try {
      return await work();
    } catch (error) {
      // Who has left does not care why, and where the server ends everybody has to leave.
      if (signal?.aborted || error instanceof DatabaseClosed) return undefined;
      if (!isUnreachable(error)) throw error;
    }
    await delay(RETRY_DELAYS_MS[tries] ?? LONGEST_DELAY_MS, undefined, { signal }).catch(() => {});
    if (signal?.aborted) return undefined;
  }
}

/** A database for reading that waits for connections to come back; rejects with `unavailable` if they do not. */
export function createPersistentReader(database: Queryable): Queryable {
  return {
    async query(text, params) {
      try {
        return await persistently(() => database.query(text, params));
      } catch (cause) {
        if (!isUnreachable(cause)) throw cause;
        throw new ServerError("unavailable", "The database could not be reached.", { cause });
      }
    },
  };
}
