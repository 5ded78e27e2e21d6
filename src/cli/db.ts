import { loadConfig } from "../config/load.ts";
import { migrate } from "../storage/migrate.ts";
import { openDatabase, toOpenOptions } from "../storage/open.ts";
import type { ServeOptions } from "./options.ts";

/** `aegra db migrate`: brings the database up to this version, which every start does too. */
export async function migrateDatabase(options: ServeOptions): Promise<void> {
  const config = await loadConfig({ ...options, mode: "start", needsGraphs: false });
  const database = await openDatabase(toOpenOptions(config.database));
  try {
    const { applied } = await migrate(database);
    const what = applied.length === 0 ? "is up to date" : `was migrated: ${applied.join(", ")}`;
    process.stdout.write(`The database at ${database.location} ${what}.\n`);
  } finally {
    await database.close();
  }
}
