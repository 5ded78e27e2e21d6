import { once } from "node:events";
import { createServer } from "node:net";

/**
 * Where no operating system takes the ports from that it gives to whoever asks for any: between the choice of one here and
 * its use nobody gets it by chance.
 */
const RANGE = { from: 20_000, to: 32_000 };

/** A port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = RANGE.from + Math.floor(Math.random() * (RANGE.to - RANGE.from));
    const server = createServer().listen(port, "127.0.0.1");
    const isFree = await once(server, "listening").then(
      () => true,
      () => false,
    );
    if (!isFree) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}
