import type { Server as HttpServer } from "node:http";
import { serve } from "@hono/node-server";
import { WebSocketServer } from "ws";
import { ServerError } from "../errors.ts";
import type { Logger } from "../observability/log.ts";

/** Ports tried after the default one before giving up. */
const PORT_STEPS = 100;
const GOING_AWAY = 1_001;

/** An HTTP server with its web sockets, which it does not close by itself. */
export interface Listening {
  http: HttpServer;
  port: number;
  /** Closes all web sockets, with the code that tells clients to come again. */
  closeSockets: () => void;
}

/**
 * Listens on the port that was asked for, or on the first free one from the default on. Rejects with
 * `startup_failed` if there is none. The caller closes the server.
 */
export async function listen(
  fetch: (request: Request) => Response | Promise<Response>,
  where: {
    host: string;
    port: { value: number; explicit: boolean };
    /** The longest message of a web socket, in bytes. */
    maxBodyBytes: number;
  },
  log: Logger,
): Promise<Listening> {
  const { value: first, explicit } = where.port;
  const last = explicit ? first : Math.min(first + PORT_STEPS, 65_535);
  for (let port = first; port <= last; port += 1) {
    const sockets = new WebSocketServer({ noServer: true, maxPayload: where.maxBodyBytes });
    const http = await tryListen({ fetch, sockets }, where.host, port);
    if (!http) continue;
    const address = http.address();
    const actual = typeof address === "object" && address ? address.port : port;
    if (port !== first) log.warn(`port ${first} is taken; using ${actual}`);
    const closeSockets = (): void => {
      for (const socket of sockets.clients) socket.close(GOING_AWAY, "The server is going away.");
    };
    return { http, port: actual, closeSockets };
  }
  throw new ServerError(
    "startup_failed",
    explicit
      ? `Port ${first} is taken. Stop what listens there, or choose another one with --port or PORT.`
      : `No free port between ${first} and ${last}. Choose one with --port or PORT.`,
  );
}

/** The HTTP server, or `undefined` if the port is taken. */
function tryListen(
  handlers: {
    fetch: (request: Request) => Response | Promise<Response>;
    sockets: WebSocketServer;
  },
  hostname: string,
  port: number,
): Promise<HttpServer | undefined> {
  const { fetch, sockets } = handlers;
  return new Promise((resolve, reject) => {
    const http = serve(
      { fetch, hostname, port, overrideGlobalObjects: false, websocket: { server: sockets } },
      () => {
        http.off("error", onError);
        resolve(http);
      },
    ) as HttpServer;
    const onError = (error: NodeJS.ErrnoException): void => {
      if (error.code === "EADDRINUSE") return resolve(undefined);
      const hint =
        error.code === "EACCES"
          ? "This user may not listen there; choose a port above 1023."
          : "Check --host and --port.";
      reject(
        new ServerError(
          "startup_failed",
          `Cannot listen on ${hostname}:${port} (${error.code ?? error.message}). ${hint}`,
          { cause: error },
        ),
      );
    };
    http.once("error", onError);
  });
}
