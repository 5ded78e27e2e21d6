/** The load generator, a process of its own: measures the server at `url`, as its parent asks. */
import { randomUUID } from "node:crypto";
import { Agent, request, type IncomingMessage } from "node:http";
import { answer } from "./child.ts";
import { measure, type Sample, type Workload } from "./closed-loop.ts";

const INPUT = { messages: [{ type: "human", content: "Hello?" }] };
const agent = new Agent({ keepAlive: true });

answer(({ url, workload }: { url: string; workload: Workload }) =>
  measure(workload, (asked) => run(url, asked)),
);

async function run(url: string, { kind, graph }: Workload): Promise<Sample> {
  const begin = performance.now();
  if (kind === "stream") {
    const body = { assistant_id: graph, input: INPUT, stream_mode: "messages-tuple" };
    return readStream(await post(`${url}/runs/stream`, body), begin);
  }
  const path = kind === "wait" ? "/runs/wait" : `/threads/${randomUUID()}/runs/wait`;
  const body = { assistant_id: graph, input: INPUT, if_not_exists: "create" };
  const text = await readText(await post(`${url}${path}`, body));
  const { messages } = JSON.parse(text) as { messages?: unknown[] };
  if (messages?.length !== 6) throw new Error(`A run answered ${text.slice(0, 300)}`);
  return { events: 1 };
}

function post(url: string, body: object): Promise<IncomingMessage> {
  const text = JSON.stringify(body);
  return new Promise((resolve, reject) => {
    const headers = {
      "Content-Type": "application/json",
      "Content-Length": Buffer.byteLength(text),
    };
    const sent = request(url, { method: "POST", agent, headers }, (response) => {
      if (response.statusCode === 200) return resolve(response);
      readText(response).then(
        (said) => reject(new Error(`${response.statusCode} from ${url}: ${said.slice(0, 300)}`)),
        reject,
      );
    });
    sent.once("error", reject);
    sent.end(text);
  });
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

/** Counts the events of a stream, without parsing what is not measured. */
async function readStream(response: IncomingMessage, begin: number): Promise<Sample> {
  const sample: Sample = { events: 0 };
  let last = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    sample.firstEventMs ??= performance.now() - begin;
    if (sample.firstTokenMs === undefined && chunk.includes("event: messages")) {
      sample.firstTokenMs = performance.now() - begin;
    }
    for (const byte of chunk) {
      if (byte === 10 && last === 10) sample.events += 1;
      last = byte;
    }
  }
  if (sample.events < 500) throw new Error(`A stream ended after ${sample.events} events`);
  return sample;
}
