import { expect, test } from "vitest";

import { createChooseHeaders } from "./run-config.ts";

const headers = new Headers({
  "X-Tenant": "t",
  "x-api-key": "k",
  "User-Agent": "u",
  Authorization: "a",
  accept: "c",
});

test("graphs are told x-* and user-agent, but no credentials", () => {
  expect(createChooseHeaders(undefined)(headers)).toEqual({ "x-tenant": "t", "user-agent": "u" });
});

test("the configuration adds headers and takes some away, which wins", () => {
  const choose = createChooseHeaders({ includes: ["AUTH*", "x-api-key"], excludes: ["*agent"] });
  expect(choose(headers)).toEqual({ "x-tenant": "t", "x-api-key": "k", authorization: "a" });
  const none = createChooseHeaders({ includes: ["accept"], excludes: ["*"] });
  expect(none(headers)).toEqual({});
  const literal = createChooseHeaders({ includes: ["a.cept", "(accept"] });
  expect(literal(headers)).toEqual({ "x-tenant": "t", "user-agent": "u" });
});
