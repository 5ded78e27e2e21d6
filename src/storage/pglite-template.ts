import { existsSync, readFileSync } from "node:fs";
import { mkdir, rename, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { homedir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { PgliteThread } from "./pglite-thread.ts";

/** The template's name carries PGlite's version, so that another version makes its own. */
function templateName(): string {
  // PGlite exports no package.json; it is one folder above the entry point.
  const entry = createRequire(import.meta.url).resolve("@electric-sql/pglite");
  const manifest = readFileSync(join(dirname(entry), "..", "package.json"), "utf8");
  const { version } = JSON.parse(manifest) as { version: string };
  return `pglite-${version}.tar.gz`;
}

/** Beside this module, in a package that ships one; `createTemplate` writes it there when it is packed. */
export function shippedTemplatePath(): string {
  return fileURLToPath(new URL(templateName(), import.meta.url));
}

/**
 * The template to begin an empty database with: the package's, else the user's, which is made first if there
 * is none. `undefined` when it cannot be made: PGlite then runs its own `initdb`, for some seconds each time.
 */
export async function findTemplate(): Promise<string | undefined> {
  const shipped = shippedTemplatePath();
  if (existsSync(shipped)) return shipped;
  const path = join(cacheFolder(), templateName());
  if (existsSync(path)) return path;
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
