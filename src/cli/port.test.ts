import { createServer } from "node:net";
import type { AddressInfo, Server } from "node:net";
import { once } from "node:events";
import { afterEach, expect, test } from "vitest";

import { findPort } from "./port.ts";

const open: Server[] = [];

afterEach(async () => {
  await Promise.all(open.splice(0).map((server) => once(server.close(), "close")));
});

async function occupy(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  open.push(server);
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

test("a taken port is stepped over where nobody asked for it, and refused where somebody did", async () => {
  const taken = await occupy();
  expect(await findPort("127.0.0.1", { value: taken, explicit: false })).toBeGreaterThan(taken);
  await expect(findPort("127.0.0.1", { value: taken, explicit: true })).rejects.toMatchObject({
    code: "startup_failed",
    message: `Port ${taken} on 127.0.0.1 is already in use. Stop the program that uses it, or choose another one with --port.`,
  });
});

test("a free port, and port 0, are taken as they are", async () => {
  const port = await occupy();
  await once(open.pop()?.close() ?? process, "close");
  expect(await findPort("127.0.0.1", { value: port, explicit: true })).toBe(port);
  expect(await findPort("127.0.0.1", { value: 0, explicit: true })).toBe(0);
});

test("an address that is not this machine's is named", async () => {
  await expect(findPort("203.0.113.1", { value: 0, explicit: true })).rejects.toThrow(
    '"203.0.113.1" is not an address of this machine',
  );
});
