import { randomUUID } from "node:crypto";
import { Client } from "@langchain/langgraph-sdk";

/** Headers that clients read. */
const HEADERS = [
  "content-type",
  "content-location",
  "location",
  "cache-control",
  "x-pagination-total",
  "x-pagination-next",
];

export interface StreamEvent {
  id?: string;
  event?: string;
  data?: unknown;
}

export interface Answer {
  status: number;
  headers: Record<string, string>;
  /** JSON if it is, else the text as `detail`, as errors have it; absent where there is none. */
  body?: unknown;
  /** Of an event stream, instead of a body. */
  events?: StreamEvent[];
}

export interface RequestOptions {
  body?: unknown;
  /** Sent as it stands, instead of `body`. */
  text?: string;
  headers?: Record<string, string>;
  /** Response headers to record beside those that clients always read. */
  alsoHeaders?: string[];
  /** Ends the request, which then rejects. */
  signal?: AbortSignal;
  /** Called for every event of a stream, as it comes. */
  onEvent?: (event: StreamEvent) => void;
}

/** Sends requests to one server and records what it answers, each under a label. */
export class Probe {
  readonly recording: Record<string, unknown> = {};
  /** Ids this probe knows, with their names. */
  readonly known = new Map<string, string>();
  readonly client: Client;
  readonly #url: string;

  constructor(url: string) {
    this.#url = url;
    this.client = new Client({ apiUrl: url, apiKey: null, callerOptions: { maxRetries: 0 } });
  }

  /** Sends a request and records the answer: status, headers, body or events. */
  async send(
    label: string,
    request: `${"GET" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS"} /${string}`,
    options: RequestOptions = {},
  ): Promise<Answer> {
    const answer = await this.fetch(request, options);
    this.record(label, answer);
    return answer;
  }

  /** Records what the official client makes of an answer, or of a refusal. */
  async call<T>(label: string, work: (client: Client) => Promise<T>): Promise<T | undefined> {
    try {
      const value = await work(this.client);
      this.record(label, { value });
      return value;
    } catch (error) {
      const { name, message, status } = error as Error & { status?: number };
      this.record(label, { thrown: { name, message, status } });
      return undefined;
    }
  }

  record(label: string, value: unknown): void {
    if (label in this.recording) throw new Error(`Two records under the label "${label}"`);
    // What a client sees of it, and no more.
    this.recording[label] = JSON.parse(JSON.stringify(value));
  }

  /** A new thread, which is not recorded. */
  async thread(): Promise<string> {
    return this.id("thread", (await this.client.threads.create()).thread_id);
  }

  /** Gives an id, or a new one, a name in the recording. */
  id(name: string, id: string = randomUUID()): string {
    this.known.set(id, `<${name}>`);
    return id;
  }

  /** Sends a request without recording it. */
  async fetch(request: string, options: RequestOptions = {}): Promise<Answer> {
    const [method, path] = request.split(" ") as [string, string];
    const body =
      options.text ?? (options.body === undefined ? undefined : JSON.stringify(options.body));
    const response = await fetch(`${this.#url}${path}`, {
      method,
      headers: {
        ...(body !== undefined && { "Content-Type": "application/json" }),
        "User-Agent": "probe",
        ...options.headers,
      },
      ...(body !== undefined && { body }),
      ...(options.signal && { signal: options.signal }),
    });
    const headers = Object.fromEntries(
      [...HEADERS, ...(options.alsoHeaders ?? [])].flatMap((name) => {
        const value = response.headers.get(name);
        return value === null ? [] : [[name, value]];
      }),
    );
    const answer: Answer = { status: response.status, headers };
    if (headers["content-type"]?.startsWith("text/event-stream")) {
      answer.events = await readEvents(response, options.onEvent);
    } else {
      const text = await response.text();
      if (text !== "") answer.body = parse(text);
    }
    return answer;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) as unknown;
  } catch {
    return { detail: text };
  }
}

/** The events of a stream, to its end. */
async function readEvents(
  response: Response,
  onEvent: RequestOptions["onEvent"],
): Promise<StreamEvent[]> {
  const events: StreamEvent[] = [];
  const decoder = new TextDecoder();
  let rest = "";
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    rest += decoder.decode(chunk, { stream: true });
    const blocks = rest.split(/\r?\n\r?\n/);
    rest = blocks.pop()!;
    for (const block of blocks) {
      const event = toEvent(block);
      if (!event) continue;
      events.push(event);
      onEvent?.(event);
    }
  }
  if (rest.trim() !== "") events.push({ event: "(a stream that was cut off)", data: rest });
  return events;
}

/** `undefined` for a comment. */
function toEvent(block: string): StreamEvent | undefined {
  const event: StreamEvent = {};
  const data: string[] = [];
  for (const line of block.split(/\r?\n/)) {
    if (line.startsWith(":") || line === "") continue;
    const [, field, value] = /^(\w+):? ?(.*)$/s.exec(line) ?? [];
    if (field === "data") data.push(value!);
    else if (field === "id" || field === "event") event[field] = value!;
  }
  if (data.length > 0) event.data = parse(data.join("\n"));
  return event.event === undefined && event.data === undefined ? undefined : event;
}
