import { Agent, createServer, request, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

/** A round-robin proxy; whoever opens it closes it. */
export interface Proxy {
  url: string;
  close(): Promise<void>;
}

/**
 * Opens a proxy in front of the addresses `targets` gives, one after the other. It passes answers on as they
 * come. A request goes to another process only if the first one did not take the connection: one that may have
 * begun a run is not repeated.
 */
export async function openProxy(targets: () => readonly string[]): Promise<Proxy> {
  const agent = new Agent({ keepAlive: true, maxSockets: 500 });
  let turn = 0;
  const server = createServer((incoming, outgoing) => {
    void readAll(incoming).then((body) => {
      const known = targets();
      const order = known.map((_, index) => known[(turn + index) % known.length]!);
      turn += 1;
      forward({ agent, order, incoming, body, outgoing });
    });
  });
  server.requestTimeout = 0;
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    async close() {
      server.closeAllConnections();
      agent.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

interface Exchange {
  agent: Agent;
  /** The processes to try, in this order. */
  order: readonly string[];
  incoming: IncomingMessage;
  body: Buffer;
  outgoing: ServerResponse;
}

function forward(exchange: Exchange): void {
  const { agent, incoming, body, outgoing } = exchange;
  const [target, ...others] = exchange.order;
  if (target === undefined) {
    outgoing.writeHead(503).end("no process answers");
    return;
  }
  const { hostname, port } = new URL(target);
  const options = {
    agent,
    hostname,
    port,
    method: incoming.method,
    path: incoming.url,
    headers: { ...incoming.headers, "content-length": body.length, "accept-encoding": "identity" },
  };
  const sent = request(options, (answer) => {
    outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
    answer.on("data", (chunk: Buffer) => outgoing.write(chunk));
    answer.once("end", () => outgoing.end());
    // The reader has to see that this was not the end.
    answer.once("error", () => outgoing.destroy());
    outgoing.once("close", () => answer.destroy());
  });
  sent.once("error", (error: NodeJS.ErrnoException) => {
    if (outgoing.headersSent) outgoing.destroy();
    else if (error.code === "ECONNREFUSED") forward({ ...exchange, order: others });
    else outgoing.writeHead(502).end(String(error));
  });
  sent.end(body);
}

async function readAll(incoming: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  try {
    for await (const chunk of incoming as AsyncIterable<Buffer>) chunks.push(chunk);
  } catch {
    // The client is gone; whatever is answered goes nowhere.
  }
  return Buffer.concat(chunks);
}
