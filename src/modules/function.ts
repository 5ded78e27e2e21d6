import { relative } from "node:path";

import type { ModuleReference } from "../config/schema.ts";
import { ServerError } from "../errors.ts";
import { formatPosition } from "./failure.ts";
import { loadExport } from "./load.ts";

/**
 * A function that the configuration names, such as a mask. `option` is its key in the config file. Rejects
 * with `startup_failed`, which names the option, the file and the reason.
 */
export async function loadFunction(
  reference: ModuleReference,
  options: { cwd: string; option: string },
): Promise<(...args: never[]) => unknown> {
  const value = await loadConfigured(reference, options);
  if (typeof value === "function") return value as (...args: never[]) => unknown;
  const place = `${relative(options.cwd, reference.path)}:${reference.exportName}`;
  throw new ServerError("startup_failed", `${options.option}: ${place} is not a function.`);
}

/** Whatever export the configuration names. Rejects with `startup_failed` if it cannot be loaded. */
export async function loadConfigured(
  reference: ModuleReference,
  options: { cwd: string; option: string },
): Promise<unknown> {
  const found = await loadExport(reference, options);
  if ("value" in found) return found.value;
  const place = formatPosition(found.error, options.cwd);
  throw new ServerError("startup_failed", `${options.option}: ${place}: ${found.error.message}`);
}
