import { createHash } from "node:crypto";
import { mkdir, open, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join, relative, resolve, sep } from "node:path";
import { z } from "zod";

import type { Extraction } from "./type-extractor.ts";

/** A graph as a file of the cache knows it. */
export interface CachedGraph {
  path: string;
  exportName: string;
}

/** Schemas that types tell, in files; each holds as long as the files it was read from are the same. */
export interface TypeSchemaCache {
  /** `undefined` where there are none, where a file they come from has changed, or where `versions` differ. */
  load(graph: CachedGraph, versions?: string): Promise<Extraction["schemas"] | undefined>;
  save(graph: CachedGraph, versions: string, extraction: Extraction): Promise<void>;
  /**
   * The right to extract this graph, for `maxMs` at the most, with the function that gives it back; `undefined`
   * while another process that shares the folder has it.
   */
  claim(graph: CachedGraph, maxMs: number): Promise<(() => Promise<void>) | undefined>;
}

const fileSchema = z.object({
  versions: z.string(),
  inputs: z.record(z.string(), z.string()),
  schemas: z.record(z.string(), z.record(z.string(), z.looseObject({}))),
});

/** A cache in `folder`, which the first write makes. Paths are kept relative to `cwd`, so that a project can move. */
export function createTypeSchemaCache(folder: string, cwd: string): TypeSchemaCache {
  const toFile = (graph: CachedGraph): string => join(folder, `${toCacheKey(graph, cwd)}.json`);
  return {
    async load(graph, versions) {
      try {
        const entry = fileSchema.parse(JSON.parse(await readFile(toFile(graph), "utf8")));
        if (versions !== undefined && entry.versions !== versions) return undefined;
        for (const [path, hash] of Object.entries(entry.inputs)) {
          if (toHash(await readFile(resolve(cwd, path))) !== hash) return undefined;
        }
        return entry.schemas;
      } catch {
        return undefined;
      }
    },
    async save(graph, versions, { schemas, inputs }) {
      const entry = {
        versions,
        inputs: Object.fromEntries(
          Object.entries(inputs).map(([path, hash]) => [toPortable(path, cwd), hash]),
        ),
        schemas,
      };
      const temporary = `${toFile(graph)}.${process.pid}`;
      await mkdir(folder, { recursive: true, mode: 0o700 });
      await writeFile(temporary, JSON.stringify(entry), { mode: 0o600 });
      await rename(temporary, toFile(graph));
    },
    async claim(graph, maxMs) {
      const path = `${toFile(graph)}.claim`;
      // A process that was killed gave nothing back.
      const { mtimeMs } = await stat(path).catch(() => ({ mtimeMs: Date.now() }));
      if (Date.now() - mtimeMs > maxMs) await rm(path, { force: true });
      try {
        await mkdir(folder, { recursive: true, mode: 0o700 });
        await (await open(path, "wx", 0o600)).close();
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === "EEXIST") return undefined;
        // A folder that cannot be written to is shared with nobody.
        return async () => {};
      }
      return () => rm(path, { force: true });
    },
  };
}

/** The name a graph has in the cache: the same wherever its project is. */
export function toCacheKey({ path, exportName }: CachedGraph, cwd: string): string {
  return toHash(`${toPortable(path, cwd)}:${exportName}`).slice(0, 32);
}

/** SHA-256, as hexadecimal digits. */
export function toHash(content: string | Uint8Array): string {
  return createHash("sha256").update(content).digest("hex");
}

function toPortable(path: string, cwd: string): string {
  return relative(cwd, path).split(sep).join("/");
}
