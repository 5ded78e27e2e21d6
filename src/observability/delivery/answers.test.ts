import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { gzipSync } from "node:zlib";
import { afterEach, expect, it } from "vitest";
import { reasonOf } from "./reason.ts";
import { createHttpTransport, type Delivery } from "./transport.ts";

const servers: Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

async function listen(answer: RequestListener): Promise<string> {
  const server = createServer((request, response) => {
    request.resume();
    request.on("end", () => answer(request, response));
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function send(url: string, headers: Record<string, string> = {}): Promise<Delivery> {
  const transport = createHttpTransport({
    url,
    headers,
    timeoutMs: 60_000,
    contentType: "application/x-protobuf",
  });
  return transport(Buffer.from("x"), new AbortController().signal);
}

const basic = `Basic ${Buffer.from("pk-lf-pub:sk-lf-sec").toString("base64")}`;

it("does not tell our own headers and keys when an answer repeats them", async () => {
  const headers = { authorization: basic, "x-proxy": 'proxy "secret"', "x-plain": "plain-secret" };
  const address = await listen((request, response) => {
    const sent = request.headers;
    response.writeHead(400, { "content-type": "application/json" });
    response.end(
      JSON.stringify({
        saw: [sent.authorization, sent["x-proxy"], "sk-lf-sec", "pk-lf-pub"],
        base64: Buffer.from("sk-lf-sec").toString("base64"),
        plain: sent["x-plain"],
      }),
    );
  });
  const answer = await send(`http://${address}/`, headers);
  expect(answer).toMatchObject({ kind: "unacceptable" });
  const text = JSON.stringify(answer);
  expect(text).toContain("HTTP 400: {");
  expect(text).toContain("<redacted>");
  for (const secret of [
    basic.slice(6, -2),
    "secret",
    "lf-sec",
    "pk-lf",
    Buffer.from("sk-lf-sec").toString("base64"),
  ])
    expect(text).not.toContain(secret);
});

it("does not tell the half of a key that stands at the end of an excerpt", async () => {
  const address = await listen((request, response) => {
    response.writeHead(400).end(`${"x".repeat(190)}${request.headers["x-key"] as string}`);
  });
  const answer = await send(`http://${address}/`, { "x-key": "abcdefghijklmnopqrstuvwxyz" });
  expect(JSON.stringify(answer)).not.toContain("abcd");
});

it("does not tell them in the reason of a partial success either", async () => {
  const address = await listen((request, response) => {
    const errorMessage = `no: ${request.headers.authorization}\nnext`;
    response.end(JSON.stringify({ partialSuccess: { rejectedSpans: 1, errorMessage } }));
  });
  expect(await send(`http://${address}/`, { authorization: basic })).toEqual({
    kind: "delivered",
    rejected: 1,
    message: "no: <redacted> next",
  });
});

it("tells the name of a header that cannot be sent, never its value", async () => {
  const address = await listen((_request, response) => response.end("{}"));
  const headers = { "x-proxy": "HDRSECRET\nnext" };
  const answer = await send(`http://${address}/`, headers);
  expect(answer).toMatchObject({ kind: "retry" });
  const text = JSON.stringify(answer);
  expect(text).toContain("x-proxy");
  expect(text).not.toContain("HDRSECRET");
  // Whatever fetch says, and whatever asked for it.
  for (const error of [
    new TypeError('Headers.append: "HDRSECRET\nnext" is an invalid header value.'),
    new TypeError("fetch failed", { cause: new Error('invalid header: "HDRSECRET\nnext"') }),
  ])
    expect(reasonOf(error, 1_000)).not.toContain("HDRSECRET");
});

it("tells whose header it is that cannot be read", async () => {
  const address = await listen((_request, response) => {
    response.socket?.end("HTTP/1.1 200 OK\r\nno header\r\n\r\n");
  });
  const { message } = (await send(`http://${address}/`)) as { message: string };
  expect(message).toMatch(/response/i);
  expect(message).not.toContain("of the request");
});

it("says in words, and in one line, that there is no TLS", async () => {
  const address = await listen((_request, response) => response.end("{}"));
  const answer = await send(`https://${address}/`);
  expect(answer).toMatchObject({ kind: "retry" });
  const { message } = answer as { message: string };
  expect(message).toContain("no TLS");
  expect(message).toContain("http://");
  expect(message).not.toMatch(/\n|SSL routines/);
});

it("tells of a failure in one line of at most 200 characters", () => {
  const cause = new Error(`first\n\tsecond ${"long ".repeat(100)}`);
  const reason = reasonOf(new TypeError("fetch failed", { cause }), 1_000);
  expect(reason).toMatch(/^first second long/);
  expect(reason.length).toBeLessThanOrEqual(200);
});

it("that unpacks to a thousand times its size is not unpacked", async () => {
  const megabyte = gzipSync(Buffer.alloc(1_024 * 1_024, " "));
  const bomb = Buffer.concat(Array.from({ length: 400 }, () => megabyte));
  const address = await listen((_request, response) => {
    response.writeHead(200, { "content-type": "application/json", "content-encoding": "gzip" });
    response.end(bomb);
  });
  const before = process.memoryUsage().arrayBuffers;
  let most = 0;
  const look = (): void => {
    most = Math.max(most, process.memoryUsage().arrayBuffers - before);
  };
  const looking = setInterval(look, 2);
  const answer = await send(`http://${address}/`);
  look();
  clearInterval(looking);
  expect(answer).toMatchObject({ kind: "delivered" });
  expect(most).toBeLessThan(100 * 1_024 * 1_024);
}, 60_000);

it("that never ends is not read to its end, and 200 means delivered", async () => {
  let written = 0;
  let hungUp = (): void => {};
  const closed = new Promise<void>((resolve) => (hungUp = resolve));
  const address = await listen((_request, response) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.on("close", hungUp);
    const chunk = Buffer.alloc(64 * 1_024, " ");
    const more = (): void => {
      // An end, so that a client that does read on fails the test and not the machine.
      while (!response.destroyed && written < 400 * 1_024 * 1_024) {
        written += chunk.length;
        if (response.write(chunk)) continue;
        response.once("drain", more);
        return;
      }
      response.end();
    };
    more();
  });
  const answer = await send(`http://${address}/`);
  expect(answer).toEqual({ kind: "delivered", rejected: 0, message: "" });
  await closed;
  // What the sockets' buffers hold.
  expect(written).toBeLessThan(64 * 1_024 * 1_024);
}, 60_000);
