import { Hono } from "hono";
import { describe, expect, it } from "vitest";
import { z } from "zod";
import { ServerError } from "../errors.ts";
import { readBody, validate } from "./body.ts";

const Schema = z.strictObject({
  name: z.string().max(10).optional(),
  place: z.strictObject({ x: z.number() }).optional(),
  modes: z.union([z.enum(["a", "b"]), z.array(z.enum(["a", "b"]))]).optional(),
  free: z.unknown().optional(),
});

/** What `readBody` makes of a body of at most 64 bytes: the value, or the refusal's code and message. */
async function read(
  body: string | Uint8Array | ReadableStream | undefined,
  headers: Record<string, string> = {},
) {
  const app = new Hono();
  let outcome: unknown;
  app.post("/", async (c) => {
    outcome = await readBody(c, Schema, 64).catch((error: unknown) =>
      error instanceof ServerError
        ? { code: error.code, message: error.message, details: error.details }
        : error,
    );
    return c.text("");
  });
  await app.request("/", {
    method: "POST",
    headers,
    ...(body !== undefined && { body, duplex: "half" }),
  });
  return outcome;
}

const bytes = (count: number) => new Uint8Array(count).fill(0x20);

describe("reading a body", () => {
  it("gives the value, without the options a client left out as null", async () => {
    expect(await read('{"name": "x", "place": null}')).toEqual({ name: "x" });
    expect(await read('{"free": {"a": null}}')).toEqual({ free: { a: null } });
    expect(await read(undefined)).toEqual({});
    expect(await read(" \n ")).toEqual({});
    expect(await read('\u{FEFF}{"name": "x"}')).toEqual({ name: "x" });
  });

  it("refuses what is no JSON and no UTF-8", async () => {
    expect(await read("{")).toMatchObject({ code: "invalid_json" });
    expect(await read(new Uint8Array([0x22, 0xff, 0x22]))).toMatchObject({
      code: "invalid_json",
      message: "The body is not valid UTF-8.",
    });
  });

  it("refuses what is too large, by the length it announces or has", async () => {
    const refusal = { code: "payload_too_large", message: "The body is larger than 64 bytes." };
    expect(await read("{}", { "content-length": "65" })).toMatchObject(refusal);
    expect(await read(bytes(64))).toEqual({});
    expect(await read(bytes(65))).toMatchObject(refusal);
    let pulled = 0;
    const endless = new ReadableStream<Uint8Array>({
      pull(controller) {
        pulled += 1;
        controller.enqueue(bytes(32));
      },
    });
    expect(await read(endless)).toMatchObject(refusal);
    expect(pulled).toBeLessThan(10);
  });

  it("refuses NUL characters where they stand, not the text of their escape", async () => {
    expect(await read(String.raw`{"free": {"a": ["b\u0000"]}}`)).toMatchObject({
      message: "free.a.0: contains a NUL character, which cannot be stored.",
    });
    expect(await read(String.raw`{"free": {"a\u0000": 1}}`)).toMatchObject({
      code: "invalid_request",
    });
    expect(await read(String.raw`{"free": "\\u0000"}`)).toEqual({ free: String.raw`\u0000` });
  });
});

describe("validating", () => {
  const refusal = (value: unknown, where: "body" | "query" | "path" = "body") => {
    try {
      validate(Schema, value, where);
    } catch (error) {
      const { code, message, details } = error as ServerError;
      return { code, message, details };
    }
    return undefined;
  };

  it("says for each field what is wrong, and where", () => {
    expect(refusal({ name: 5, place: { x: "y" } })).toEqual({
      code: "invalid_request",
      message:
        "name: Invalid input: expected string, received number; place.x: Invalid input: expected number, received string",
      details: [
        { path: "name", message: "name: Invalid input: expected string, received number" },
        { path: "place.x", message: "place.x: Invalid input: expected number, received string" },
      ],
    });
    expect(refusal(5)?.message).toBe("value: Invalid input: expected object, received number");
    expect(refusal({ name: 5 }, "query")?.message).toMatch(/\(in the query\)$/);
  });

  it("names what it does not support", () => {
    expect(refusal({ a: 1, b: 2 })).toMatchObject({
      code: "unsupported_field",
      message: 'Unsupported fields "a", "b"',
    });
    expect(refusal({ place: { x: 1, y: 2 } })).toMatchObject({
      code: "unsupported_field",
      message: 'Unsupported field "place.y"',
      details: [{ path: "place.y" }],
    });
    expect(refusal({ name: 5, a: 1 })?.code).toBe("invalid_request");
  });

  it("says what forms a value may have, or what is wrong with the form that was meant", () => {
    expect(refusal({ modes: "c" })?.message).toBe(
      'modes: Invalid option: expected one of "a"|"b", or Invalid input: expected array, received string',
    );
    expect(refusal({ modes: ["a", "c"] })).toMatchObject({
      message: 'modes.1: Invalid option: expected one of "a"|"b"',
      details: [{ path: "modes.1" }],
    });
  });

  it("refuses NUL characters in an address", () => {
    expect(refusal({ name: "\0" }, "query")?.message).toContain("NUL");
    expect(refusal({ name: ["a", "\0"] }, "path")?.message).toContain("NUL");
  });
});
