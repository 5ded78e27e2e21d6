import { Agent, request } from "node:http";

/** What a stretch of load gave. */
export interface Load {
  /** Runs begun, and those that succeeded. */
  asked: number;
  /** Trace ids of the runs that were answered. */
  answered: string[];
  failures: string[];
  /** Milliseconds from the request to the whole answer. */
  latencies: number[];
  elapsedMs: number;
}

const agent = new Agent({ keepAlive: true, maxSockets: 400 });

/**
 * Begins `perSecond` runs each second, however long they take, until `until` says so, then waits for all of them.
 * Spreads them over the servers.
 */
export async function offer(
  urls: readonly string[],
  perSecond: number,
  until: () => boolean,
): Promise<Load> {
  const load: Load = { asked: 0, answered: [], failures: [], latencies: [], elapsedMs: 0 };
  const under: Promise<void>[] = [];
  const begun = performance.now();
  while (!until()) {
    const due = ((performance.now() - begun) / 1_000) * perSecond;
    for (; load.asked < due; load.asked += 1) {
      const url = urls[load.asked % urls.length] ?? "";
      under.push(note(load, url));
    }
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  await Promise.all(under);
  load.elapsedMs = performance.now() - begun;
  return load;
}

/** Does `count` runs of a graph, `atOnce` at a time, each as soon as the one before it is answered. */
export async function exhaust(
  url: string,
  graph: string,
  { count, atOnce }: { count: number; atOnce: number },
): Promise<Load> {
  const load: Load = { asked: 0, answered: [], failures: [], latencies: [], elapsedMs: 0 };
  const begun = performance.now();
  await Promise.all(
    Array.from({ length: atOnce }, async () => {
      while (load.asked < count) {
        load.asked += 1;
        await note(load, url, graph);
      }
    }),
  );
  load.elapsedMs = performance.now() - begun;
  return load;
}

async function note(load: Load, url: string, graph = "quick"): Promise<void> {
  const from = performance.now();
  try {
    const traceId = await runOnce(url, graph);
    load.latencies.push(performance.now() - from);
    load.answered.push(traceId);
  } catch (error) {
    load.failures.push(String(error));
  }
}

async function runOnce(url: string, graph: string): Promise<string> {
  const { place, text } = await post(`${url}/runs/wait`, {
    assistant_id: graph,
    input: { input: "x" },
  });
  const runId = /\/runs\/([0-9a-f-]{36})/u.exec(place)?.[1];
  if (runId === undefined || !text.includes('"three"'))
    throw new Error(`a run answered ${text.slice(0, 300)}`);
  return runId.replaceAll("-", "");
}

function post(url: string, body: object): Promise<{ place: string; text: string }> {
  const bytes = Buffer.from(JSON.stringify(body));
  return new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", "content-length": bytes.length };
    const sent = request(url, { method: "POST", agent, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.once("error", reject);
      response.once("aborted", () => reject(new Error("the answer was cut off")));
      response.once("end", () => {
        const text = Buffer.concat(chunks).toString();
        if (response.statusCode !== 200)
          reject(new Error(`${response.statusCode}: ${text.slice(0, 300)}`));
        else resolve({ place: response.headers["content-location"] ?? "", text });
      });
    });
    sent.once("error", (error: NodeJS.ErrnoException) => {
      // A server closes connections that were idle for long, in the same moment as one is used again, perhaps.
      if (sent.reusedSocket && error.code === "ECONNRESET") post(url, body).then(resolve, reject);
      else reject(error);
    });
    sent.end(bytes);
  });
}
