import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";

/** A way to a database that can be taken away. Whoever opens it closes it. */
export interface DatabaseProxy {
  /** The database's URL by this way. */
  url: string;
  /** How many connections were ended as they came. */
  refused(): number;
  /** The connections that are open now carry nothing any more, and are not ended: like a pulled cable. */
  stall(): void;
  /** As `stall`, and so it is with the connections that come. */
  silence(): void;
  /** Ends the connections, and those that come as well: nothing is behind it any more. */
  cut(): void;
  /** Lets through what comes from now on, and ends what carries nothing. */
  mend(): void;
  close(): Promise<void>;
}

/** Opens a proxy in front of the PostgreSQL of a URL. */
export async function openDatabaseProxy(target: string): Promise<DatabaseProxy> {
  const { hostname, port } = new URL(target);
  const sockets = new Set<Socket>();
  const stalled = new Set<Socket>();
  let state: "open" | "silent" | "cut" = "open";
  let refused = 0;
  const keep = (socket: Socket): void => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => {
      sockets.delete(socket);
      stalled.delete(socket);
    });
  };
  const stall = (): void => {
    for (const socket of sockets) stalled.add(socket.unpipe().pause());
  };
  const server = createServer((inward) => {
    keep(inward);
    if (state === "cut") {
      refused += 1;
      inward.destroy();
    } else if (state === "silent") {
      stalled.add(inward.pause());
    } else {
      const outward = connect(Number(port), hostname);
      keep(outward);
      inward.pipe(outward).pipe(inward);
    }
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const url = new URL(target);
  url.hostname = "127.0.0.1";
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    refused: () => refused,
    stall,
    silence() {
      state = "silent";
      stall();
    },
    cut() {
      state = "cut";
      for (const socket of sockets) socket.destroy();
    },
    mend() {
      state = "open";
      for (const socket of stalled) socket.destroy();
    },
    async close() {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}
