import { readdirSync, watch } from "node:fs";
import type { FSWatcher } from "node:fs";
import { join } from "node:path";

/** Folders that hold no source: packages, this server's data, build output, and everything hidden. */
const IGNORED = /^(\..+|node_modules|dist|build|out|coverage)$/u;

export interface TreeWatcher {
  /** Watches one more folder, without the folders in it. Does nothing for a folder that is watched already. */
  add(dir: string): void;
  close(): void;
}

/**
 * Calls `onChange` with the absolute paths that changed in `root` and below, once they have been quiet for
 * `quietMs`. A watcher per folder rather than Node's recursive one, which on Linux would also watch every file
 * in `node_modules`.
 */
export function watchTree(
  root: string,
  options: { quietMs: number; onChange: (paths: string[]) => void },
): TreeWatcher {
  const watchers = new Map<string, FSWatcher>();
  const changed = new Set<string>();
  let timer: NodeJS.Timeout | undefined;

  const report = (path: string): void => {
    changed.add(path);
    clearTimeout(timer);
    timer = setTimeout(() => {
      const paths = [...changed];
      changed.clear();
      options.onChange(paths);
    }, options.quietMs);
  };

  const add = (dir: string, deep: boolean): void => {
    if (watchers.has(dir)) return;
    const names = listFolders(dir);
    if (names === undefined) return;
    const watcher = watch(dir, (_, name) => {
      if (name === null) return;
      const path = join(dir, name);
      report(path);
      if (deep && !IGNORED.test(name)) add(path, true);
    });
    // A folder that is deleted ends its watcher; if it comes back, its parent tells.
    const drop = (): void => {
      watcher.close();
      if (watchers.get(dir) === watcher) watchers.delete(dir);
    };
    watcher.on("error", drop);
    watchers.set(dir, watcher);
    if (!deep) return;
    for (const name of names) if (!IGNORED.test(name)) add(join(dir, name), true);
  };

  add(root, true);
  return {
    add: (dir) => add(dir, false),
    close() {
      clearTimeout(timer);
      for (const watcher of watchers.values()) watcher.close();
      watchers.clear();
    },
  };
}

/** `undefined` for what is not a folder. */
function listFolders(dir: string): string[] | undefined {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map(({ name }) => name);
  } catch {
    return undefined;
  }
}
