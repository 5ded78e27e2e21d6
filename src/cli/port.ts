import { createServer } from "node:net";

import { ServerError } from "../errors.ts";

const STEPS = 100;

/**
 * A port on `host` that can be listened on: the wanted one, or, where nobody asked for it by name, the next
 * free one. Rejects with `startup_failed` where there is none. Asking first is what keeps a second server
 * from opening the database before it finds that it cannot serve.
 */
export async function findPort(
  host: string,
  wanted: { value: number; explicit: boolean },
): Promise<number> {
  const { value, explicit } = wanted;
  const last = explicit ? value : Math.min(value + STEPS, 65_535);
  for (let port = value; port <= last; port++) {
    const code = await tryPort(host, port);
    if (code === undefined) return port;
    if (code !== "EADDRINUSE")
      throw new ServerError("startup_failed", describeError(code, host, port));
  }
  const message = explicit
    ? `Port ${value} on ${host} is already in use. Stop the program that uses it, or choose another one with --port.`
    : `Ports ${value} to ${last} on ${host} are all in use. Choose another one with --port.`;
  throw new ServerError("startup_failed", message);
}

/** `undefined` if the port is free, else the system's error code. */
async function tryPort(host: string, port: number): Promise<string | undefined> {
  const server = createServer();
  return new Promise((resolve) => {
    server.once("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    server.listen({ host, port }, () => server.close(() => resolve(undefined)));
  });
}

function describeError(code: string, host: string, port: number): string {
  if (code === "EACCES") {
    return `Port ${port} on ${host} may not be used by this user. Choose one above 1023 with --port.`;
  }
  if (["EADDRNOTAVAIL", "ENOTFOUND", "EAI_AGAIN"].includes(code)) {
    return `"${host}" is not an address of this machine (${code}). Choose another one with --host or HOST.`;
  }
  return `The server cannot listen on ${host}:${port} (${code}).`;
}
