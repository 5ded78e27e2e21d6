import { Gauge, type Registry } from "prom-client";
import { within } from "./delivery/within.ts";

/** How many wait, and for how many seconds the first of them does; 0 if none does. */
export interface QueueDepth {
  waiting: number;
  oldest_seconds: number;
}

/** How long a scrape waits for the database. Prometheus gives up all of it after 10 s, unless told otherwise. */
const READ_MS = 1_000;

/** The two numbers of a queue in the database, read once at every scrape. */
export function addQueueMetrics(
  registers: Registry[],
  read: () => Promise<QueueDepth>,
  gauges: Record<keyof QueueDepth, { name: string; help: string }>,
): void {
  const depth = createReader(read);
  for (const key of ["waiting", "oldest_seconds"] as const) {
    void new Gauge({
      ...gauges[key],
      registers,
      async collect() {
        const now = await depth();
        // While the database does not answer there is no number, which is not the same as none.
        if (now) this.set(now[key]);
        else this.remove();
      },
    });
  }
}

/**
 * One look at a time, whoever asks: a database that answers nothing gets no further question. Gives `undefined`
 * where the answer fails or takes too long.
 */
function createReader(read: () => Promise<QueueDepth>): () => Promise<QueueDepth | undefined> {
  let reading: Promise<QueueDepth | undefined> | undefined;
  return async () => {
    reading ??= read()
      .catch(() => undefined)
      .finally(() => (reading = undefined));
    let depth: QueueDepth | undefined;
    await within(
      READ_MS,
      reading.then((answer) => (depth = answer)),
    );
    return depth;
  };
}
