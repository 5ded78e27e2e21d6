import { upgradeWebSocket } from "@hono/node-server";
import type { IncomingMessage } from "node:http";
import type { Writable } from "node:stream";
import type { Context } from "hono";
import type { WebSocket } from "ws";
import type { ServerError } from "../errors.ts";

/** How often a peer is asked whether it is there; one that has not answered by the next time is gone. */
const PING_MS = 20_000;
/** The longest reason a close frame can hold, in bytes. */
const MAX_REASON_BYTES = 123;

/** A web socket, as those who talk over it see it. */
export interface Socket {
  /** Resolves when the texts are on their way, in one piece, so that a slow peer slows down whoever sends. */
  send(...texts: readonly string[]): Promise<void>;
  close(code: number, reason: string): void;
}

/** One end of a web socket, from its opening to its end. */
export interface SocketSession {
  receive(text: string): void;
  /** The socket is closed. */
  end(): void;
}

/** Makes the session of a socket that has just opened. */
export type OpenSession = (socket: Socket) => SocketSession;

/**
 * Answers a request for a web socket. A request that `prepare` refuses gets its socket all the same, closed with
 * 4000 and the refusal's HTTP status: a browser tells a page nothing of a handshake that failed, so that its
 * client would try again and again.
 */
export async function upgrade(
  c: Context,
  prepare: () => Promise<OpenSession | ServerError>,
): Promise<Response> {
  const prepared = await prepare();
  const answer = await upgradeWebSocket(() => {
    let session: SocketSession | undefined;
    return {
      onOpen(_event, { raw }) {
        const socket = toSocket(raw as unknown as WebSocket, wireOf(c));
        if (typeof prepared === "function") session = prepared(socket);
        else socket.close(4_000 + prepared.status, prepared.message);
      },
      onMessage: ({ data }) => session?.receive(toText(data)),
      onClose: () => session?.end(),
    };
  })(c, async () => {});
  return answer ?? new Response(null, { status: 426 });
}

/** The connection below the web socket. */
function wireOf(c: Context): Writable | undefined {
  return (c.env as { incoming?: IncomingMessage } | undefined)?.incoming?.socket;
}

function toSocket(raw: WebSocket, wire: Writable | undefined): Socket {
  let alive = true;
  raw.on("pong", () => {
    alive = true;
  });
  const ping = setInterval(() => {
    if (!alive) return raw.terminate();
    alive = false;
    raw.ping();
  }, PING_MS);
  raw.on("close", () => clearInterval(ping));
  return {
    send: (...texts) =>
      new Promise((resolve) => {
        let left = texts.length;
        // Else every text is a packet of its own.
        wire?.cork();
        for (const text of texts) {
          // What cannot be sent is followed by the end of the session, which stops the sender.
          raw.send(text, () => {
            left -= 1;
            if (left === 0) resolve();
          });
        }
        wire?.uncork();
      }),
    close: (code, reason) => raw.close(code, toReason(reason)),
  };
}

function toReason(text: string): string {
  return new TextDecoder().decode(new TextEncoder().encode(text).slice(0, MAX_REASON_BYTES - 3));
}

function toText(data: unknown): string {
  return typeof data === "string" ? data : new TextDecoder().decode(data as ArrayBuffer);
}
