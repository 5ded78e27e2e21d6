import { readFile } from "node:fs/promises";
import { expect, it } from "vitest";
import { ERRORS } from "../../src/errors.ts";

it("docs/errors.md lists the codes of the server with their status, both ways", async () => {
  const page = await readFile(new URL("../../docs/errors.md", import.meta.url), "utf8");
  const listed = [...page.matchAll(/^\|\s*`(\w+)`\s*\|\s*(\d+)\s*\|\s*(yes|no)\s*\|/gmu)].map(
    ([, code, status, retryable]) => [
      code,
      { status: Number(status), retryable: retryable === "yes" },
    ],
  );
  expect(Object.fromEntries(listed)).toEqual(ERRORS);
});
