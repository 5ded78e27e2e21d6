import { mkdir, stat } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Makes a folder for its owner only, and those above it that are missing.
 *
 * Not `mkdir(path, { recursive: true })`: where a folder that is there takes no other, such as in `/proc`, Node 20's
 * tries for ever, on a thread of its own and with all of a core.
 */
export async function makePath(path: string): Promise<void> {
  const mode = 0o700;
  try {
    await mkdir(path, { mode });
  } catch (error) {
    const code = error instanceof Error && "code" in error ? error.code : undefined;
    if (code === "EEXIST" && (await stat(path)).isDirectory()) return;
    if (code !== "ENOENT" || dirname(path) === path) throw error;
    await makePath(dirname(path));
    await mkdir(path, { mode }).catch(async (again: unknown) => {
      if (!(await stat(path).catch(() => undefined))?.isDirectory()) throw again;
    });
  }
}
