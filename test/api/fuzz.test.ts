import { pino } from "pino";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { approval, chat, five, registryOf } from "../support/graphs.ts";
import { eventually, startServer, type TestServer } from "../support/server.ts";

/** Requests per route. The seed is fixed, so a failure comes again. */
const TIMES = 20;
const SEED = 20_261_123;
/** A request that takes longer hangs. */
const PATIENCE_MS = 60_000;
/** How long a stream that never ends is read. */
const WHILE_MS = 300;
const INTERNALS =
  /node_modules|\/src\/|\.[cm]?[jt]s:\d|^\s+at |"stack"|SELECT |INSERT |relation "/m;

interface Operation {
  parameters: { name: string; in: "path" | "query" }[];
  requestBody?: { content: Record<string, { schema: Schema }> };
}

interface Schema {
  properties?: Record<string, Schema>;
  items?: Schema;
  anyOf?: Schema[];
  enum?: unknown[];
}

describeDatabases("any request", (databases) => {
  let server: TestServer;
  let known: string[] = [];
  const failures: string[] = [];
  const logged: string[] = [];
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five, chat, approval }), {
      log: pino({ level: "error" }, { write: (line: string) => void logged.push(line) }),
    });
    const { client } = server;
    const { thread_id } = await client.threads.create({ metadata: { suite: "fuzz" } });
    await client.runs.wait(thread_id, "approval", { input: { input: "x" } });
    const [run] = await client.runs.list(thread_id);
    const { checkpoint } = await client.threads.getState(thread_id);
    const { assistant_id } = await client.assistants.create({ graphId: "five" });
    known = [thread_id, run!.run_id, assistant_id, checkpoint.checkpoint_id!, "five", "approval"];
  });

  it("is answered in time, never with a failure of the server's own", async () => {
    const document = (await (await fetch(`${server.url}/openapi.json`)).json()) as {
      paths: Record<string, Record<string, Operation>>;
    };
    const random = createRandom(SEED);
    for (const [path, methods] of Object.entries(document.paths)) {
      for (const [method, operation] of Object.entries(methods)) {
        const requests = Array.from({ length: TIMES }, () =>
          createRequest({ path, method, operation, known, random }),
        );
        for (let index = 0; index < requests.length; index += 5)
          await Promise.all(requests.slice(index, index + 5).map((sent) => probe(sent)));
      }
    }
    expect(failures).toEqual([]);
    expect(await (await fetch(`${server.url}/ok`)).json()).toEqual({ ok: true });
    // Nothing that was started hangs.
    await eventually(async () =>
      expect(await server.client.threads.search({ status: "busy" })).toEqual([]),
    );
    expect(await server.client.runs.wait(null, "five", { input: { input: "x" } })).toMatchObject({
      trail: { length: 5 },
    });
  }, 300_000);

  const probe = async (sent: SentRequest): Promise<void> => {
    const shown = { ...sent, body: sent.body?.slice(0, 500) };
    let answer: { status: number; type: string; text: string };
    try {
      const response = await fetch(server.url + sent.path, {
        method: sent.method.toUpperCase(),
        ...(sent.body !== undefined && { body: sent.body }),
        headers: sent.headers,
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      answer = {
        status: response.status,
        type: response.headers.get("content-type") ?? "",
        text: isEndless(sent.path) ? await beginning(response) : await response.text(),
      };
    } catch (error) {
      throw new Error(`No whole answer to ${JSON.stringify(shown)}`, { cause: error });
    }
    const { status, type, text } = answer;
    if (status === 500 || INTERNALS.test(type.startsWith("application/json") ? text : "")) {
      const id = (JSON.parse(text) as { request_id?: string }).request_id ?? "unknown";
      const cause = logged.find((line) => line.includes(id))?.slice(0, 1_500);
      failures.push(`${status} to ${JSON.stringify(shown)}: ${cause ?? text.slice(0, 500)}`);
    }
    if (status === 202 || status === 204) expect(text).toBe("");
    else if (status >= 400) {
      const problem = JSON.parse(text) as { jsonrpc?: unknown };
      expect({ shown, problem }).toMatchObject({ problem: problem.jsonrpc ? RPC_ERROR : PROBLEM });
    }
  };
});

const PROBLEM = {
  detail: expect.stringMatching(/./) as string,
  code: expect.any(String) as string,
  request_id: expect.any(String) as string,
};
/** How MCP and A2A tell a refusal. */
const RPC_ERROR = {
  error: { code: expect.any(Number) as number, message: expect.stringMatching(/./) as string },
};

/** Whether a thread is followed, which goes on for ever. */
function isEndless(path: string): boolean {
  return /^\/threads\/[^/]+\/stream(?:\/events)?(?:\?|$)/.test(path);
}

/** What comes of a stream in a while. */
async function beginning(response: Response): Promise<string> {
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  const late = setTimeout(() => void reader?.cancel(), WHILE_MS);
  let text = "";
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done) break;
    text += value;
  }
  clearTimeout(late);
  return text;
}

interface SentRequest {
  method: string;
  path: string;
  body: string | undefined;
  headers: Record<string, string>;
}

type Random = <T>(choices: readonly T[]) => T;

/** Values that are wrong nearly everywhere. */
const HOSTILE: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  2 ** 53,
  1e308,
  "",
  " ",
  "x",
  "\0",
  "\u{D800}",
  "é😀\u{202E}\u{200B}",
  "x".repeat(20_000),
  "'; DROP TABLE threads; --",
  "%s%n${x}{{x}}",
  "../../etc/passwd",
  "1e309",
  "NaN",
  [],
  [[]],
  [null],
  ["x", 1, { a: [] }],
  Array.from({ length: 2_000 }, (_, index) => index),
  {},
  { a: 1 },
  { "": {} },
  { constructor: 1, toString: null },
  JSON.parse('{"__proto__": {"polluted": true}}'),
  { $gt: 1, $regex: "(" },
  { input: "x" },
  { configurable: { thread_id: 5, checkpoint_id: "x", checkpoint_ns: 7 } },
  { checkpoint_id: 5, checkpoint_ns: {}, checkpoint_map: [] },
  { messages: [{ type: "nonsense" }] },
  { resume: { a: 1 } },
  JSON.parse(`${"[".repeat(200)}${"]".repeat(200)}`),
  JSON.parse(`${'{"a":'.repeat(200)}1${"}".repeat(200)}`),
  { goto: "nowhere" },
  { update: { nowhere: 1 } },
  ["values", "updates", "debug", "events", "messages", "custom"],
  ["nowhere"],
  "enqueue",
  "rollback",
  "create",
  "exit",
];

function createRequest(options: {
  path: string;
  method: string;
  operation: Operation;
  known: readonly string[];
  random: Random;
}): SentRequest {
  const { path, method, operation, known, random } = options;
  // What is deleted or changed is not what the other requests need.
  const safe = path.endsWith("/prune") ? ["five"] : known;
  const own = safe.filter((id) => method === "get" || method === "post" || id.includes("-"));
  const likely = [...own, ...own, ...own];
  const word = (): string => {
    const value = random([...likely, ...HOSTILE]);
    const text = typeof value === "string" ? value : JSON.stringify(value);
    // Lone surrogates have no form in an address.
    return Buffer.from(text).toString().slice(0, 2_000);
  };
  const filled = path.replaceAll(/\{[^}]+\}/g, () =>
    encodeURIComponent(random([true, true, false]) ? random(likely) : word()),
  );
  const query = new URLSearchParams();
  for (const { name, in: where } of operation.parameters) {
    if (where === "query" && random([true, false, false])) query.append(name, word());
    if (where === "query" && random([...Array.from({ length: 9 }, () => false), true]))
      query.append(name, word());
  }
  if (random([...Array.from({ length: 19 }, () => false), true])) query.append("nonsense", word());
  const search = query.size === 0 ? "" : `?${query.toString()}`;
  const headers: Record<string, string> = {};
  for (const name of HEADERS) {
    if (random([true, ...Array.from({ length: 15 }, () => false)]))
      headers[name] = random(HOSTILE_HEADERS);
  }
  if (method === "get") return { method, path: filled + search, body: undefined, headers };
  const schema = operation.requestBody?.content["application/json"]?.schema;
  const whole = random([...Array.from({ length: 14 }, () => true), false]);
  const body = whole ? createBody(schema ?? {}, likely, random) : random(HOSTILE);
  return { method, path: filled + search, body: JSON.stringify(body), headers };
}

/** A body of about the right form. */
function createBody(schema: Schema, likely: readonly string[], random: Random): unknown {
  const form = schema.anyOf ? random(schema.anyOf) : schema;
  if (form.items) {
    const { items } = form;
    return Array.from({ length: random([0, 1, 2, 3]) }, () => createBody(items, likely, random));
  }
  if (form.enum) return random([...form.enum, ...form.enum, ...HOSTILE]);
  if (!form.properties) return random([...likely, ...HOSTILE]);
  const body: Record<string, unknown> = {};
  for (const [name, property] of Object.entries(form.properties)) {
    if (random([true, false, false, false])) {
      body[name] = random([true, false])
        ? createBody(property, likely, random)
        : random([...likely, ...HOSTILE]);
    }
    // Most bodies get as far as their rarer fields only with these in place.
    else if (name === "assistant_id") body[name] = random(["five", "chat", "approval"]);
    else if (name === "graph_id") body[name] = "five";
  }
  if (random([...Array.from({ length: 19 }, () => false), true])) body["nonsense"] = 1;
  return body;
}

/** What routes read of the headers. */
const HEADERS = ["last-event-id", "idempotency-key", "prefer", "content-type", "x-request-id"];
const HOSTILE_HEADERS = [
  "",
  "-1",
  "0",
  "99999999999999999999",
  "x".repeat(5_000),
  "a b",
  "{}",
  "é",
];

/** Chooses, always in the same way for the same seed (mulberry32). */
function createRandom(seed: number): Random {
  let state = seed;
  return (choices) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    const unit = ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
    return choices[Math.floor(unit * choices.length)]!;
  };
}
