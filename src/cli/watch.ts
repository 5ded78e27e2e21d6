import { readdirSync, statSync, watch } from "node:fs";
import type { FSWatcher } from "node:fs";
import { join, sep } from "node:path";

/** Folders that hold no source: packages, this server's data, build output, and everything hidden. */
const IGNORED = /^(\..+|node_modules|dist|build|out|coverage)$/u;

export interface TreeWatcher {
  /** Watches one more folder, without the folders in it. Does nothing for a folder that is watched already. */
  add(dir: string): void;
  close(): void;
}

/** A file that never stops changing, such as a log, delays a report by this many times the quiet time. */
const MAX_QUIETS = 10;

/**
 * Calls `onChange` with the absolute paths that changed in `root` and below, once they have been quiet for
 * `quietMs`; and `onProblem` with a folder that cannot be watched, such as where the system's limit of
 * watchers is reached. A watcher per folder rather than Node's recursive one, which on Linux would also watch every file
 * in `node_modules`.
 */
export function watchTree(
  root: string,
  options: {
    quietMs: number;
    onChange: (paths: string[]) => void;
    onProblem: (dir: string, error: unknown) => void;
  },
): TreeWatcher {
  const watchers = new Map<string, FSWatcher>();
  const changed = new Set<string>();
  let timer: NodeJS.Timeout | undefined;

  let firstAt = 0;
  const report = (path: string): void => {
    const now = performance.now();
    if (changed.size === 0) firstAt = now;
    changed.add(path);
    clearTimeout(timer);
    const leftMs = firstAt + options.quietMs * MAX_QUIETS - now;
    timer = setTimeout(
      () => {
        const paths = [...changed];
        changed.clear();
        options.onChange(paths);
      },
      Math.min(options.quietMs, leftMs),
    );
  };

  const add = (dir: string, how: { deep: boolean; fresh?: boolean }): void => {
    if (watchers.has(dir) || !isFolder(dir)) return;
    try {
      open(dir, how);
    } catch (error) {
      // It may be gone already.
      if (isFolder(dir)) options.onProblem(dir, error);
    }
  };
  const open = (dir: string, how: { deep: boolean; fresh?: boolean }): void => {
    const watcher = watch(dir, (event, name) => {
      if (name === null) return;
      const path = join(dir, name);
      report(path);
      // Made, moved or deleted: if it was a folder, its watcher is of no use any more.
      if (event === "rename") drop(path);
      if (how.deep && !IGNORED.test(name)) add(path, { deep: true, fresh: true });
    });
    watcher.on("error", () => drop(dir));
    watchers.set(dir, watcher);
    if (!how.deep) return;
    // Listed after the watcher is there, so that nothing is made in between unseen; and what is already in a
    // new folder was made before it could be watched, so it is reported too.
    for (const entry of readdirSync(dir, { withFileTypes: true })) {
      if (IGNORED.test(entry.name)) continue;
      const path = join(dir, entry.name);
      if (entry.isDirectory()) add(path, how);
      else if (how.fresh) report(path);
    }
  };
  const drop = (dir: string): void => {
    for (const [path, watcher] of watchers) {
      if (path !== dir && !path.startsWith(`${dir}${sep}`)) continue;
      watcher.close();
      watchers.delete(path);
    }
  };

  add(root, { deep: true });
  return {
    add: (dir) => add(dir, { deep: false }),
    close() {
      clearTimeout(timer);
      for (const watcher of watchers.values()) watcher.close();
      watchers.clear();
    },
  };
}

function isFolder(path: string): boolean {
  return statSync(path, { throwIfNoEntry: false })?.isDirectory() === true;
}
