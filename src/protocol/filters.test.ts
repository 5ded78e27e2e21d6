import { expect, test } from "vitest";

import { conflictingKey, matches, type Filter } from "./filters.ts";

test("metadata passes a filter by holding all it asks for", () => {
  const metadata = { owner: "ada", level: 1, users: ["ada", "bob"], gone: null };
  const passing: Filter[] = [
    {},
    { owner: "ada" },
    { owner: "ada", level: 1 },
    { users: ["bob"] },
    { users: ["bob", "ada"] },
    { users: [] },
    { gone: null },
  ];
  for (const filter of passing) {
    expect({ filter, passes: matches(metadata, filter) }).toEqual({ filter, passes: true });
  }
  const failing: Filter[] = [
    { owner: "bob" },
    { owner: ["ada"] },
    { owner: "ada", level: 2 },
    { level: "1" },
    { users: "ada" },
    { users: ["ada", "eve"] },
    { absent: null },
    { absent: [] },
    { constructor: "x" },
  ];
  for (const filter of failing) {
    expect({ filter, passes: matches(metadata, filter) }).toEqual({ filter, passes: false });
  }
});

test("values conflict with a filter where they name its key and do not pass", () => {
  const filter = { owner: "ada", users: ["ada"] };
  expect(conflictingKey({}, filter)).toBeUndefined();
  expect(conflictingKey({ title: "x" }, filter)).toBeUndefined();
  expect(conflictingKey({ owner: "ada", users: ["ada", "bob"] }, filter)).toBeUndefined();
  expect(conflictingKey({ owner: "bob" }, filter)).toBe("owner");
  expect(conflictingKey({ owner: null }, filter)).toBe("owner");
  expect(conflictingKey({ users: ["bob"] }, filter)).toBe("users");
});
