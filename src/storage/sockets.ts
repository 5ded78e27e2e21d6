import type { ClientBase } from "pg";

/** Ends a connection at once. Not `end()`: it would wait for the answer of a peer that is gone. */
export function destroySocket(client: ClientBase): void {
  const { connection } = client as unknown as {
    connection?: { stream?: { destroy?: () => void } };
  };
  connection?.stream?.destroy?.();
}
