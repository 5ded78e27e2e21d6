import { existsSync, readFileSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { PgliteThread } from "./pglite-thread.ts";

/**
 * Where the template of an empty database is: beside this module in a package that ships one, else in the
 * user's cache. Its name carries PGlite's version, so that another version makes its own.
 */
function templatePaths(): string[] {
  // PGlite exports no package.json; it is one folder above the entry point.
  const entry = createRequire(import.meta.url).resolve("@electric-sql/pglite");
  const manifest = readFileSync(join(dirname(entry), "..", "package.json"), "utf8");
  const { version } = JSON.parse(manifest) as { version: string };
  const name = `pglite-${version}.tar.gz`;
  return [fileURLToPath(new URL(name, import.meta.url)), join(cacheFolder(), name)];
}

/**
 * The template to begin an empty database with; it is made first if there is none. `undefined` when the
 * cache cannot be written: PGlite then runs its own `initdb`, which takes some seconds each time.
 */
export async function findTemplate(): Promise<string | undefined> {
  const paths = templatePaths();
  const existing = paths.find((path) => existsSync(path));
  if (existing !== undefined) return existing;
  const path = paths.at(-1) ?? "";
  try {
    await createTemplate(path);
    return path;
  } catch {
    return undefined;
  }
}

/** Writes a template. Safe when several processes do it at once: each renames a whole file into place. */
export async function createTemplate(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  const unfinished = `${path}.${process.pid}.${Date.now()}`;
  const thread = await PgliteThread.start({ dataDir: "memory://", template: undefined });
  try {
    await thread.dump(unfinished);
    await rename(unfinished, path);
  } finally {
    await thread.close();
    await rm(unfinished, { force: true });
  }
}

function cacheFolder(): string {
  const base =
    process.platform === "darwin"
      ? join(homedir(), "Library", "Caches")
      : process.platform === "win32"
        ? join(homedir(), "AppData", "Local")
        : join(homedir(), ".cache");
  return join(base, "aegra");
}
