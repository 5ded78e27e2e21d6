import cluster from "node:cluster";

import type { ServeOptions } from "./options.ts";
import { serve } from "./serve.ts";
import { closeOnSignal } from "./shutdown.ts";

/** `aegra start`: serves until a signal comes, in so many processes. */
export async function start(options: ServeOptions): Promise<void> {
  const processes = options.flags.processes ?? 1;
  if (cluster.isPrimary && processes > 1) {
    const { superviseProcesses } = await import("./processes.ts");
    await superviseProcesses(options, processes);
    return;
  }
  const { worker } = cluster;
  // Of several processes the first one speaks for all.
  const quiet = worker !== undefined && worker.id > 1;
  await serve(options, { mode: "start", quiet, processes, onOpen: closeOnSignal });
  worker?.send("ready");
}
