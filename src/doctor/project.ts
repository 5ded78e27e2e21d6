import { loadAuth } from "../auth/load.ts";
import type { Config } from "../config/schema.ts";
import { ServerError } from "../errors.ts";
import { loadGraphs } from "../graphs/load.ts";
import { loadCustomApp } from "../http/custom-app.ts";
import { formatPosition } from "../modules/failure.ts";
import { migrate } from "../storage/migrate.ts";
import { openDatabase, toOpenOptions } from "../storage/open.ts";
import { reportOn, type Finding } from "./check.ts";

/** What a person should know of what was thrown: a refusal's own words, or the error's message. */
export function reasonOf(error: unknown): string {
  if (error instanceof ServerError) return error.message.replaceAll(/\s*\n\s*/gu, " ");
  return error instanceof Error ? error.message : String(error);
}

/** Whether every graph of the config loads. */
export async function checkGraphs(config: Config): Promise<Finding[]> {
  const report = reportOn("graphs");
  const specs = Object.values(config.graphs);
  if (specs.length === 0) {
    return [
      report.failed(
        "no graphs are configured",
        'Add one to aegra.json: { "graphs": { "agent": "./agent.ts:graph" } }',
      ),
    ];
  }
  const loaded = await loadGraphs(specs, { cwd: config.cwd });
  return loaded.map((graph) =>
    graph.kind === "failed"
      ? report.failed(
          `${graph.id}: ${graph.error.message}`,
          `Look at ${formatPosition(graph.error, config.cwd)}.`,
        )
      : report.ok(`${graph.id} loads`),
  );
}

/** Whether the authentication handler loads. */
export async function checkAuth(config: Config): Promise<Finding> {
  const report = reportOn("auth");
  if (!config.auth.module) {
    return config.mode === "start"
      ? report.warning(
          "no authentication: everybody who can reach the server can use it",
          "Set auth.path in aegra.json, unless something in front of the server authenticates.",
        )
      : report.skipped("no authentication is configured");
  }
  try {
    await loadAuth(config.auth.module, { cwd: config.cwd });
    return config.auth.disable_studio_auth
      ? report.ok("the authentication handler loads")
      : report.warning(
          'the authentication handler loads, and whoever sends "x-auth-scheme: langsmith" is let in as Studio',
          "Remove auth.disable_studio_auth, unless nobody else can reach the server.",
        );
  } catch (error) {
    return report.failed(reasonOf(error), "The server does not start until the handler loads.");
  }
}

/** Whether the project's own routes load. */
export async function checkRoutes(config: Config): Promise<Finding> {
  const report = reportOn("routes");
  const { app } = config.http;
  if (!app) return report.skipped("no routes of your own are configured");
  try {
    const { routes } = await loadCustomApp(app, { cwd: config.cwd });
    return report.ok(`your own routes load (${routes.length} handlers)`);
  } catch (error) {
    return report.failed(reasonOf(error), "The server does not start until http.app loads.");
  }
}

/** Whether the database opens, and its schema is this version's. Migrates nothing that is not empty. */
export async function checkDatabase(config: Config): Promise<Finding> {
  const report = reportOn("database");
  const { url: databaseUrl } = config.database;
  let database;
  try {
    database = await openDatabase(toOpenOptions(config.database));
  } catch (error) {
    const reason = reasonOf(error);
    const isInUse = databaseUrl === undefined && /\bprocess \d+|\bpid \d+/iu.test(reason);
    return isInUse
      ? report.ok("PGlite is in use by a running server of this project, so it works")
      : report.failed(
          reason,
          databaseUrl === undefined
            ? "Check that the folder can be written, or set DATABASE_URL to use PostgreSQL."
            : "Check DATABASE_URL, that PostgreSQL runs, and that this machine may reach it.",
        );
  }
  try {
    const { applied } = await migrate(database);
    const { rows } = await database.query<{ version: string }>("SHOW server_version");
    const done = applied.length > 0 ? `, migrated now: ${applied.join(", ")}` : "";
    const kind = database.kind === "pglite" ? "PGlite" : "PostgreSQL";
    return report.ok(`${kind} ${rows[0]?.version ?? ""} at ${database.location}${done}`);
  } catch (error) {
    return report.failed(reasonOf(error), "The server does not start with this database.");
  } finally {
    await database.close();
  }
}
