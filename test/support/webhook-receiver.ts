import { createHmac, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";

/** What arrived. */
export interface ReceivedWebhook {
  path: string;
  headers: IncomingHttpHeaders;
  text: string;
  json: Record<string, unknown>;
}

/** How the next request is answered: a status with headers, never, or by a closed connection. */
export type ReceiverAnswer = { status: number; headers?: Record<string, string> } | "hang" | "drop";

/** A real HTTP server that notes what it gets, and answers as it is told. */
export interface WebhookReceiver {
  url: string;
  received: ReceivedWebhook[];
  /** For the requests to come, in order; after them every answer is a 204. */
  answers: ReceiverAnswer[];
  close(): Promise<void>;
}

export async function openWebhookReceiver(): Promise<WebhookReceiver> {
  const received: ReceivedWebhook[] = [];
  const answers: ReceiverAnswer[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on("data", (chunk: Buffer) => chunks.push(chunk));
    request.on("end", () => {
      const text = Buffer.concat(chunks).toString();
      received.push({
        path: request.url ?? "",
        headers: request.headers,
        text,
        json: JSON.parse(text) as Record<string, unknown>,
      });
      const answer = answers.shift() ?? { status: 204 };
      if (answer === "drop") request.socket.destroy();
      else if (answer !== "hang") response.writeHead(answer.status, answer.headers).end();
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    received,
    answers,
    async close() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** Whether a message is signed with this secret, as the Standard Webhooks specification says. */
export function isSigned({ headers, text }: ReceivedWebhook, secret: string): boolean {
  const message = `${String(headers["webhook-id"])}.${String(headers["webhook-timestamp"])}.${text}`;
  const key = Buffer.from(secret.replace(/^whsec_/, ""), "base64");
  const expected = createHmac("sha256", key).update(message).digest();
  return String(headers["webhook-signature"])
    .split(" ")
    .some((signature) => {
      const given = Buffer.from(signature.replace(/^v1,/, ""), "base64");
      return given.length === expected.length && timingSafeEqual(given, expected);
    });
}
