import { HTTPException } from "@langchain/langgraph-sdk/auth";
import { describe, expect, test } from "vitest";

import { ServerError } from "../errors.ts";
import { createAuthenticator, type AuthorizationHandler } from "./authenticate.ts";
import { createAuthorize } from "./authorize.ts";

const user = { identity: "ada", permissions: ["p"], display_name: "ada", is_authenticated: true };
const principal = { identity: "ada", permissions: ["p"], user };

function authorizeWith(handlers: Record<string, AuthorizationHandler>) {
  const callbacks = new Map(Object.entries(handlers));
  return createAuthorize(createAuthenticator({ authenticate: () => "ada", callbacks }), principal);
}

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => {
      throw new Error("expected a refusal");
    },
    (error: unknown) => error,
  );
}

describe("which handler is asked", () => {
  const named =
    (name: string): AuthorizationHandler =>
    () => ({ handler: name });
  const all = ["threads:create", "threads", "*:create", "*"];

  test("the most specific one, and no other", async () => {
    for (let first = 0; first < all.length; first += 1) {
      const authorize = authorizeWith(
        Object.fromEntries(all.slice(first).map((name) => [name, named(name)])),
      );
      expect((await authorize("threads:create", {})).filter).toEqual({ handler: all[first] });
    }
  });

  test("none where none is meant", async () => {
    const value = { thread_id: "t" };
    const authorize = authorizeWith({ "threads:create": named("x"), "*:create": named("y") });
    expect(await authorize("threads:read", value)).toEqual({ filter: undefined, value });
    expect((await authorize("assistants:create", {})).filter).toEqual({ handler: "y" });
  });

  test("with the event, the value and the user", async () => {
    let seen: unknown;
    const authorize = authorizeWith({ "*": (request) => void (seen = request) });
    await authorize("store:put", { key: "k" });
    expect(seen).toEqual({
      event: "store:put",
      resource: "store",
      action: "put",
      value: { key: "k" },
      user,
      permissions: ["p"],
    });
  });
});

describe("what a handler answers", () => {
  const answering = (answer: unknown) =>
    authorizeWith({ "*": () => answer })("threads:read", { thread_id: "t" });

  test.each([[undefined], [null], [true]])("%j allows", async (answer) => {
    expect(await answering(answer)).toEqual({ filter: undefined, value: { thread_id: "t" } });
  });

  test("false is a 403", async () => {
    expect(await failure(answering(false))).toMatchObject({ code: "forbidden", status: 403 });
  });

  test.each([
    [{ owner: "ada" }, { owner: "ada" }],
    [{ owner: { $eq: "ada" } }, { owner: "ada" }],
    [
      { level: 3, open: true, gone: null },
      { level: 3, open: true, gone: null },
    ],
    [{ users: { $contains: "ada" } }, { users: ["ada"] }],
    [{ users: { $contains: ["ada", "bob"] } }, { users: ["ada", "bob"] }],
    [{}, {}],
  ])("%j is a filter", async (answer, filter) => {
    expect((await answering(Promise.resolve(answer))).filter).toEqual(filter);
  });

  test.each([
    [{ owner: undefined }],
    [{ owner: { $in: ["ada"] } }],
    [{ owner: { $eq: "ada", $contains: "ada" } }],
    [{ owner: {} }],
    [{ owner: { $eq: undefined } }],
    [{ owner: { $eq: { id: 1 } } }],
    [{ owner: { $contains: [["ada"]] } }],
    [{ owner: ["ada"] }],
    [{ owner: Number.NaN }],
    ["ada"],
    [1],
    [[]],
    [() => true],
  ])("%j is a mistake, and allows nothing", async (answer) => {
    const error = await failure(answering(answer));
    expect(error).toBeInstanceOf(TypeError);
    expect((error as Error).message).toContain("The on handler for threads:read returned");
  });

  test("what it throws keeps its status; what has none is a 403", async () => {
    const throwing = (thrown: unknown) =>
      failure(authorizeWith({ "*": () => Promise.reject(thrown as Error) })("threads:read", {}));
    expect(await throwing(new HTTPException(402, { message: "pay" }))).toMatchObject({
      status: 402,
      message: "pay",
    });
    expect(await throwing(new HTTPException(422))).toMatchObject({
      status: 422,
      code: "forbidden",
      message: "Unprocessable Entity",
    });
    expect(await throwing({ status: 409 })).toMatchObject({ status: 409, message: "Forbidden" });
    const error = await throwing(new Error("secret"));
    expect(error).toBeInstanceOf(ServerError);
    expect(error).toMatchObject({ status: 403, message: "Forbidden" });
  });
});

test("a handler changes a copy of the value", async () => {
  const given = { metadata: { a: 1 } };
  const authorize = authorizeWith({
    "*": ({ value }) => {
      (value as typeof given).metadata.a = 2;
    },
  });
  expect((await authorize("threads:create", given)).value).toEqual({ metadata: { a: 2 } });
  expect(given).toEqual({ metadata: { a: 1 } });
});
