import { describe, expect, it } from "vitest";
import { toLoggedError } from "./errors.ts";

class Unreadable extends Error {
  override get message(): string {
    throw new Error("Do not look at me");
  }
}

const circle = new Error("left");
circle.cause = new Error("right", { cause: circle });

describe("what the log tells of what was thrown", () => {
  it.each([
    ["a text", "just a text", { type: "Error", message: "just a text" }],
    ["nothing", undefined, { type: "Error", message: expect.stringContaining("not an error") }],
    ["what throws when it is read", new Unreadable(), { message: expect.any(String) }],
    ["what cannot be changed", Object.freeze(new TypeError("cold")), { type: "TypeError" }],
    ["what is behind itself", circle, { message: "left", stack: expect.stringContaining("right") }],
  ])("is told of %s", (_what, thrown, told) => {
    expect(toLoggedError(thrown)).toMatchObject(told);
  });
});
