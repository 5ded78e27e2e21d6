/** Readers of streams, in a process of their own: they note how late what a run says arrives. */
import { Agent, get, type IncomingMessage } from "node:http";
import { answer } from "../child.ts";

export interface Listen {
  what: "listen";
  /** Addresses of streams. */
  urls: string[];
}

/** What the readers got since they were told to listen. */
export interface Heard {
  readers: number;
  events: number;
  /** Milliseconds from the graph's call to the reader, of what was said since the reader was there. */
  p50: number;
  p99: number;
  most: number;
  /** Readers whose stream has ended. */
  ended: number;
}

export type Question = Listen | { what: "heard" } | { what: "leave" };

const agent = new Agent({ keepAlive: false, maxSockets: 5_000 });
let latencies: number[] = [];
let events = 0;
let ended = 0;
let streams: IncomingMessage[] = [];

answer(async (question: Question) => {
  switch (question.what) {
    case "listen":
      latencies = [];
      events = 0;
      ended = 0;
      streams = await Promise.all(question.urls.map((url) => open(url)));
      return { readers: streams.length };
    case "heard":
      return heard();
    case "leave":
      for (const stream of streams) stream.destroy();
      streams = [];
      return {};
  }
});

function open(url: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const sent = get(url, { agent, headers: { "Last-Event-ID": "-1" } }, (stream) => {
      if (stream.statusCode !== 200) {
        reject(new Error(`${stream.statusCode} from ${url}`));
        return;
      }
      const opened = performance.timeOrigin + performance.now();
      let rest = "";
      stream.setEncoding("utf8");
      stream.on("data", (chunk: string) => {
        const now = performance.timeOrigin + performance.now();
        const text = rest + chunk;
        const end = text.lastIndexOf("\n") + 1;
        rest = text.slice(end);
        for (const [, at] of text.slice(0, end).matchAll(/^data: ?\{"at":([\d.]+)\}/gmu)) {
          events += 1;
          if (Number(at) >= opened) latencies.push(now - Number(at));
        }
      });
      stream.once("close", () => (ended += 1));
      stream.once("error", () => {});
      resolve(stream);
    });
    sent.once("error", reject);
  });
}

function heard(): Heard {
  const sorted = latencies.toSorted((a, b) => a - b);
  const at = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return {
    readers: streams.length,
    events,
    p50: at(0.5),
    p99: at(0.99),
    most: at(1),
    ended,
  };
}
