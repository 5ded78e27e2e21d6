import { describe, expect, it } from "vitest";
import { DatabaseAway, isUnreachable, patiently, persistently } from "./persistence.ts";

const failure = (code: string | undefined, message = ""): Error =>
  Object.assign(new Error(message), code !== undefined && { code });

describe("an error after which the same statement may succeed", () => {
  it.each([
    ["ECONNREFUSED", ""],
    ["ETIMEDOUT", ""],
    ["ENOTFOUND", ""],
    // A name server that does not answer.
    ["EAI_AGAIN", ""],
    ["08006", ""],
    ["57P03", ""],
    ["53300", ""],
    ["40P01", ""],
    [undefined, "Connection terminated unexpectedly"],
    [undefined, "timeout exceeded when trying to connect"],
  ])("is %s %s, and stays it where it is told as the database's absence", (code, message) => {
    const error = failure(code, message);
    expect(isUnreachable(error)).toBe(true);
    const away = new DatabaseAway(error);
    expect(isUnreachable(away)).toBe(true);
    expect(away.message).toBe(message || code);
  });

  it.each([
    ["23505", "duplicate key"],
    ["ERR_INVALID_ARG_TYPE", ""],
    [undefined, "Something else"],
  ])("is not %s %s", (code, message) => {
    expect(isUnreachable(failure(code, message))).toBe(false);
  });
});

describe("trying again", () => {
  it("ends with what was got, with a failure of another kind, or after a second", async () => {
    const answers = [failure("ECONNREFUSED"), "there"];
    const work = async () => {
      const answer = answers.shift();
      if (typeof answer === "string") return answer;
      throw answer ?? failure("23505");
    };
    expect(await persistently(work)).toBe("there");
    await expect(persistently(work)).rejects.toMatchObject({ code: "23505" });
    await expect(patiently(work)).rejects.toMatchObject({ code: "23505" });
  });

  it("has no other end than that who waits has left", async () => {
    const leaving = new AbortController();
    let tries = 0;
    const waiting = patiently(async () => {
      tries += 1;
      if (tries === 3) leaving.abort();
      throw failure("ECONNREFUSED");
    }, leaving.signal);
    expect(await waiting).toBeUndefined();
    expect(tries).toBe(3);
  });
});
