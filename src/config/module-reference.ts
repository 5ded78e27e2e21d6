import { resolve } from "node:path";
import type { ModuleReference } from "./schema.ts";

/** `"./agent.ts:graph"` as an absolute path and an export; the export is `default` where none is named. */
export function toModuleReference(reference: string, base: string): ModuleReference {
  const colon = reference.lastIndexOf(":");
  // A colon before a slash belongs to the path, such as a drive letter.
  const named = colon > 0 && !/[/\\]/u.test(reference.slice(colon));
  return {
    path: resolve(base, named ? reference.slice(0, colon) : reference),
    exportName: (named && reference.slice(colon + 1)) || "default",
  };
}
