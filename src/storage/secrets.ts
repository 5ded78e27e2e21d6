import { randomBytes } from "node:crypto";
import type { Queryable } from "./database.ts";

/**
 * A secret of 32 bytes, in hex, that every process on this database gets the same. Made when it is first
 * asked for, by whichever process asks.
 */
export async function sharedSecret(database: Queryable, name: string): Promise<string> {
  await database.query(
    "INSERT INTO server_secrets (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING",
    [name, randomBytes(32).toString("hex")],
  );
  const { rows } = await database.query<{ value: string }>(
    "SELECT value FROM server_secrets WHERE name = $1",
    [name],
  );
  return rows[0]!.value;
}
