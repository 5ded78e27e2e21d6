import type { LookupAddress } from "node:dns";
import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { AddressRefused, postWebhook } from "./webhook-request.ts";

describe("posting to a receiver", () => {
  let server: Server;
  let port: number;
  const hosts: (string | undefined)[] = [];
  beforeAll(async () => {
    server = createServer((request, response) => {
      hosts.push(request.headers.host);
      if (request.url === "/endless") {
        response.writeHead(200);
        const more = setInterval(() => response.write("x".repeat(65_536)), 1);
        response.on("close", () => clearInterval(more));
      } else response.writeHead(204).end();
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    ({ port } = server.address() as AddressInfo);
  });
  afterAll(() => server.close());

  /** Posts to a name that no name server knows, whose addresses are these, one list for each look-up. */
  const post = async (path: string, addresses: string[][], allowed: string[] = []) => {
    const asked: string[] = [];
    let lookups = 0;
    const answer = postWebhook(new URL(`http://receiver.test:${port}${path}`), {
      headers: {},
      body: "{}",
      allows(address) {
        asked.push(address);
        return allowed.includes(address);
      },
      signal: AbortSignal.timeout(60_000),
      lookup(_name, _options, callback) {
        const found = addresses[Math.min(lookups, addresses.length - 1)]!;
        lookups += 1;
        callback(
          null,
          found.map((address): LookupAddress => ({ address, family: 4 })),
        );
      },
    });
    return answer.then(
      ({ status }) => ({ status, lookups, asked }),
      (error: unknown) => ({ error, lookups, asked }),
    );
  };

  it("goes to the address that was looked up and asked about, and looks it up once", async () => {
    hosts.length = 0;
    expect(await post("/", [["127.0.0.1"], ["10.0.0.1"]], ["127.0.0.1"])).toEqual({
      status: 204,
      lookups: 1,
      asked: ["127.0.0.1"],
    });
    expect(hosts).toEqual([`receiver.test:${port}`]);
  });

  it("goes nowhere if one of the addresses is refused", async () => {
    hosts.length = 0;
    for (const addresses of [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"]]) {
      expect(await post("/", [addresses], ["8.8.8.8"])).toMatchObject({
        error: expect.any(AddressRefused) as Error,
        lookups: 1,
      });
    }
    expect(hosts).toEqual([]);
  });

  it("does not look up what is an address, and asks about it all the same", async () => {
    const refused = postWebhook(new URL(`http://127.0.0.1:${port}/`), {
      headers: {},
      body: "{}",
      allows: () => false,
      signal: AbortSignal.timeout(60_000),
      lookup: () => expect.unreachable(),
    });
    await expect(refused).rejects.toThrow("127.0.0.1 is 127.0.0.1, which is in a private network");
  });

  it("does not wait for the end of an answer without end", async () => {
    const closed = new Promise((resolve) => {
      server.once("connection", (socket) => socket.once("close", resolve));
    });
    expect(await post("/endless", [["127.0.0.1"]], ["127.0.0.1"])).toMatchObject({ status: 200 });
    await closed;
  });
});
