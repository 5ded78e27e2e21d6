import { readFile } from "node:fs/promises";
import { expect, it } from "vitest";

interface Lock {
  packages: Record<string, { optionalDependencies?: Record<string, string>; resolved?: string }>;
}

const LOCKS = ["package-lock.json", "test/oracle/package-lock.json"];

it.each(LOCKS)(
  "%s holds the builds for every platform, and no address of a registry",
  async (lock) => {
    const text = await readFile(new URL(`../../${lock}`, import.meta.url), "utf8");
    const { packages } = JSON.parse(text) as Lock;
    const names = new Set(
      Object.keys(packages).map((path) => path.replace(/^.*node_modules\//u, "")),
    );
    const missing = Object.entries(packages).flatMap(([path, { optionalDependencies = {} }]) =>
      Object.keys(optionalDependencies)
        .filter((name) => !names.has(name))
        .map((name) => `${path} wants ${name}`),
    );
    // `npm ci` refuses a lock file without them, on whatever platform it runs.
    expect(missing).toEqual([]);
    expect(Object.values(packages).filter(({ resolved }) => resolved?.startsWith("http"))).toEqual(
      [],
    );
  },
);
