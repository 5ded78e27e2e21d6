import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createHttpTransport, retryAfterMs, type Delivery } from "./transport.ts";

let answer: {
  status: number;
  type: string | undefined;
  body: Buffer | string;
  retryAfter?: string;
} = {
  status: 200,
  type: "application/json",
  body: "{}",
};
const server = createServer((request, response) => {
  request.resume();
  request.on("end", () => {
    response.writeHead(answer.status, {
      ...(answer.type === undefined ? {} : { "content-type": answer.type }),
      ...(answer.retryAfter === undefined ? {} : { "retry-after": answer.retryAfter }),
    });
    response.end(answer.body);
  });
});
beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
});
afterAll(() => server.close());

function send(given: typeof answer): Promise<Delivery> {
  answer = given;
  const transport = createHttpTransport({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/`,
    headers: {},
    timeoutMs: 60_000,
    contentType: "application/x-protobuf",
  });
  return transport(Buffer.from("x"), new AbortController().signal);
}

describe("an answer", () => {
  it.each([
    [200, "{}", { kind: "delivered", rejected: 0 }],
    [202, "", { kind: "delivered", rejected: 0 }],
    [200, "not JSON", { kind: "delivered", rejected: 0 }],
    [400, "bad", { kind: "unacceptable", message: "HTTP 400: bad" }],
    [413, "", { kind: "unacceptable" }],
    [422, "", { kind: "unacceptable" }],
    [301, "", { kind: "retry", refused: false }],
    [401, "", { kind: "retry", refused: true }],
    [403, "", { kind: "retry", refused: true }],
    [404, "", { kind: "retry", refused: false }],
    [500, "<html>", { kind: "retry", message: "HTTP 500" }],
  ])("of %i is judged", async (status, body, expected) => {
    expect(await send({ status, type: "application/json", body })).toMatchObject(expected);
  });

  it("that is a page is nobody's yes", async () => {
    expect(
      await send({ status: 200, type: "text/html", body: "<html>Log in</html>" }),
    ).toMatchObject({ kind: "retry", message: "HTTP 200 with a page instead of an answer" });
  });

  it("may refuse a part, in JSON and in protobuf", async () => {
    const json = JSON.stringify({
      partialSuccess: { rejectedSpans: "3", errorMessage: "too old" },
    });
    // Field 1 of 12 bytes: field 1 = 300, field 2 = "too old".
    const protobuf = Buffer.from("0a0c08ac021207746f6f206f6c64", "hex");
    expect(await send({ status: 200, type: "application/json", body: json })).toEqual({
      kind: "delivered",
      rejected: 3,
      message: "too old",
    });
    expect(await send({ status: 200, type: "application/x-protobuf", body: protobuf })).toEqual({
      kind: "delivered",
      rejected: 300,
      message: "too old",
    });
    const broken = protobuf.subarray(0, 3);
    expect(await send({ status: 200, type: "application/x-protobuf", body: broken })).toMatchObject(
      { kind: "delivered", rejected: 0 },
    );
  });
});

describe("a partial success is known by its content", () => {
  const json = JSON.stringify({ partialSuccess: { rejectedSpans: 3, errorMessage: "too old" } });
  // Field 1 of 12 bytes: field 1 = 300, field 2 = "too old".
  const protobuf = Buffer.from("0a0c08ac021207746f6f206f6c64", "hex");
  const types = [undefined, "application/octet-stream", "text/plain", "application/json"];

  it.each(types)("of the type %s", async (type) => {
    expect(await send({ status: 200, type, body: ` \r\n${json}` })).toEqual({
      kind: "delivered",
      rejected: 3,
      message: "too old",
    });
    expect(await send({ status: 200, type, body: protobuf })).toEqual({
      kind: "delivered",
      rejected: 300,
      message: "too old",
    });
  });

  it("of which the reason may be anything", async () => {
    const body = JSON.stringify({
      partialSuccess: { rejectedSpans: 3, errorMessage: { code: 1 } },
    });
    expect(await send({ status: 200, type: undefined, body })).toMatchObject({ rejected: 3 });
  });

  it.each([
    ["a word", "accepted"],
    ["lines", "\n\n\n"],
    ["an empty object", "{}"],
    ["half of one", protobuf.subarray(0, 9)],
    ["a field that is longer than the answer", Buffer.from("0aff7f0805", "hex")],
    ["a number of some other message", Buffer.from("0805", "hex")],
    ["a text where the number should be", Buffer.from("0a050a03313233", "hex")],
    ["a varint without an end", Buffer.from("0a0c08ffffffffffffffffffff01", "hex")],
  ])("and %s is none", async (_what, body) => {
    expect(await send({ status: 200, type: undefined, body })).toEqual({
      kind: "delivered",
      rejected: 0,
      message: "",
    });
  });
});

describe("no answer", () => {
  const silent = createServer(() => {});
  beforeAll(async () => {
    await new Promise<void>((resolve) => silent.listen(0, "127.0.0.1", resolve));
  });
  afterAll(() => {
    silent.closeAllConnections();
    silent.close();
  });
  const post = (timeoutMs: number, signal: AbortSignal): Promise<Delivery> =>
    createHttpTransport({
      url: `http://127.0.0.1:${(silent.address() as AddressInfo).port}/`,
      headers: {},
      timeoutMs,
      contentType: "application/json",
    })(Buffer.from("x"), signal);

  it("is waited for as long as it may take, even while garbage is collected", async () => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    const collecting = setInterval(collect, 20);
    const stop = new AbortController();
    const answers = await Promise.all([1, 2, 3].map(() => post(300, stop.signal)));
    clearInterval(collecting);
    for (const answer of answers)
      expect(answer).toMatchObject({ kind: "retry", message: "no answer within 300 ms" });
  });

  it("is not waited for when the sender stops", async () => {
    const stop = new AbortController();
    const answer = post(60_000, stop.signal);
    stop.abort();
    expect(await answer).toMatchObject({ kind: "retry" });
  });
});

describe("Retry-After", () => {
  it.each([401, 403, 404, 408, 429, 500, 503])("of a %i is obeyed", async (status) => {
    const answer = await send({ status, type: undefined, body: "", retryAfter: "7" });
    expect(answer).toMatchObject({ kind: "retry", afterMs: 7_000 });
  });

  const now = Date.parse("2026-11-23T12:00:00Z");
  it.each([
    [null, undefined],
    ["", undefined],
    ["soon", undefined],
    ["0", 0],
    ["2", 2_000],
    ["-5", 0],
    ["Mon, 23 Nov 2026 12:00:30 GMT", 30_000],
    ["Mon, 23 Nov 2026 11:00:00 GMT", 0],
    ["999999999", 3_600_000],
  ])("%j", (header, expected) => {
    expect(retryAfterMs(header, now)).toBe(expected);
  });
});
