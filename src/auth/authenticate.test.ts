import { Auth, HTTPException } from "@langchain/langgraph-sdk/auth";
import { describe, expect, test } from "vitest";

import { ServerError } from "../errors.ts";
import { createAuthenticator } from "./authenticate.ts";

function authenticate(
  handler: (request: Request) => unknown,
  headers: Record<string, string> = {},
) {
  const authenticator = createAuthenticator({ authenticate: handler, callbacks: new Map() });
  return authenticator.authenticate(new Request("http://localhost/threads", { headers }));
}

async function refusal(handler: (request: Request) => unknown): Promise<ServerError> {
  const error: unknown = await authenticate(handler).catch((thrown: unknown) => thrown);
  if (error instanceof ServerError) return error;
  throw new Error("expected a refusal");
}

describe("what a handler returns", () => {
  test("a string is the identity", async () => {
    expect(
      await authenticate((request) => request.headers.get("x-user"), { "x-user": "ada" }),
    ).toEqual({
      identity: "ada",
      permissions: [],
      user: { identity: "ada", permissions: [], display_name: "ada", is_authenticated: true },
    });
  });

  test("an object keeps all it has, and is completed", async () => {
    expect(
      await authenticate(async () => ({ identity: "ada", permissions: ["read", 7], org: "o" })),
    ).toEqual({
      identity: "ada",
      permissions: ["read"],
      user: {
        identity: "ada",
        permissions: ["read"],
        org: "o",
        display_name: "ada",
        is_authenticated: true,
      },
    });
    const named = await authenticate(() => ({
      identity: "a",
      display_name: "Ada",
      is_authenticated: false,
    }));
    expect(named.user).toMatchObject({ display_name: "Ada", is_authenticated: false });
  });

  test.each([[undefined], [null], [""], [{}], [{ identity: 7 }], [{ identity: "" }], [true]])(
    "%j is no identity",
    async (answer) => {
      const error = await refusal(() => answer);
      expect(error).toMatchObject({
        code: "unauthenticated",
        status: 401,
        message: "Authentication failed",
      });
    },
  );
});

describe("what a handler throws", () => {
  test("an HTTPException keeps status, message and headers", async () => {
    const error = await refusal(() => {
      throw new HTTPException(401, {
        message: "token expired",
        headers: { "WWW-Authenticate": 'Bearer realm="x"' },
      });
    });
    expect(error).toMatchObject({
      code: "unauthenticated",
      status: 401,
      message: "token expired",
      headers: { "www-authenticate": 'Bearer realm="x"' },
    });
    expect(await refusal(() => Promise.reject(new HTTPException(403)))).toMatchObject({
      code: "forbidden",
      status: 403,
      message: "Forbidden",
    });
    expect(
      await refusal(() =>
        Promise.reject(new HTTPException(503, { headers: [["retry-after", "5"]] })),
      ),
    ).toMatchObject({ code: "unavailable", status: 503, headers: { "retry-after": "5" } });
    expect(await refusal(() => Promise.reject(new HTTPException(418)))).toMatchObject({
      status: 418,
    });
  });

  test("anything else is a 401 that does not tell what it was", async () => {
    const cause = new Error("jwks at http://internal failed");
    expect(await refusal(() => Promise.reject(cause))).toMatchObject({
      code: "unauthenticated",
      status: 401,
      message: "Authentication failed",
      cause,
    });
    expect((await refusal(() => Promise.reject(new HTTPException(200)))).status).toBe(401);
    const nothing: unknown = undefined;
    expect(
      (
        await refusal(() => {
          throw nothing;
        })
      ).status,
    ).toBe(401);
  });
});

const handler = (): string => "ada";

test("the SDK keeps its handlers where the loader looks for them", () => {
  const auth = new Auth().authenticate(handler).on("threads:create", () => true);
  expect(auth["~handlerCache"].authenticate).toBe(handler);
  expect(Object.keys(auth["~handlerCache"].callbacks ?? {})).toEqual(["threads:create"]);
});
