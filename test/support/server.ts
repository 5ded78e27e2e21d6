import { join } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { pino, type Logger } from "pino";
import type { Config } from "../../src/config/schema.ts";
import type { GraphRegistry } from "../../src/graphs/registry.ts";
import type { Queryable } from "../../src/storage/database.ts";
import { openDatabase } from "../../src/storage/open.ts";
import { openServer, type Server } from "../../src/server.ts";
import type { TestDatabases } from "./databases.ts";

export { eventually } from "./eventually.ts";

export interface TestServer {
  server: Server;
  client: Client;
  url: string;
  config: Config;
  /** Closes this server and starts another one on its database. */
  restart(graceMs?: number): Promise<TestServer>;
  /** Closes this server and gives its database to `look`. */
  inspect<T>(look: (database: Queryable) => Promise<T>): Promise<T>;
}

/** A config with nothing set: a free port, no tracing, no files. */
export function testConfig(
  database: { databaseUrl: string | undefined; dataDir: string },
  overrides: Partial<Config> = {},
): Config {
  return {
    cwd: database.dataDir,
    configPath: undefined,
    watched: [],
    mode: "start",
    host: "127.0.0.1",
    port: { value: 0, explicit: true },
    graphs: {},
    auth: { module: undefined, disable_studio_auth: true },
    http: { cors: undefined },
    store: {},
    checkpointer: {},
    database: { url: database.databaseUrl, dataDir: database.dataDir },
    langfuse: {
      enabled: false,
      publicKey: undefined,
      secretKey: undefined,
      host: "http://127.0.0.1:9",
      sampleRate: 1,
      environment: undefined,
      release: undefined,
      timeoutMs: 30_000,
      flushAt: 64,
      flushIntervalMs: 50,
      headers: {},
      mask: undefined,
    },
    tracing: {
      spool: "disk",
      directory: join(database.dataDir, "traces"),
      maxBytes: 256 * 1_024 * 1_024,
      maxAgeMs: 3_600_000,
      maxRecordBytes: 16 * 1_024 * 1_024,
      fsync: false,
    },
    webhooks: {
      enabled: true,
      headers: {},
      secret: undefined,
      url: {},
      allowPrivateNetworks: false,
    },
    log: { level: "silent", pretty: false },
    workers: { concurrency: 10, graceMs: 0 },
    warnings: [],
    ...overrides,
  };
}

/** Starts the real server in this process, on a database of its own; it is closed after the suite. */
export async function startServer(
  databases: TestDatabases,
  graphs: GraphRegistry,
  options: { config?: Partial<Config>; log?: Logger } = {},
): Promise<TestServer> {
  const config = testConfig(await databases.configure(), options.config);
  return open(databases, { config, graphs, log: options.log ?? pino({ level: "silent" }) });
}

async function open(
  databases: TestDatabases,
  options: { config: Config; graphs: GraphRegistry; log: Logger },
): Promise<TestServer> {
  const { config, graphs, log } = options;
  const server = await openServer(config, { log, graphs });
  databases.defer(() => server.close(0));
  return {
    server,
    url: server.url,
    config,
    client: createClient(server.url),
    async restart(graceMs = 0) {
      await server.close(graceMs);
      return open(databases, options);
    },
    async inspect(look) {
      await server.close(0);
      const database = await openDatabase({
        databaseUrl: config.database.url,
        dataDir: config.database.dataDir,
      });
      try {
        return await look(database);
      } finally {
        await database.close();
      }
    },
  };
}

/** The official client, without retries: a test wants to see the first answer. */
export function createClient(url: string, headers: Record<string, string> = {}): Client {
  return new Client({
    apiUrl: url,
    apiKey: null,
    callerOptions: { maxRetries: 0 },
    defaultHeaders: headers,
  });
}

/** One request by hand, for what the client does not show or would not send. */
export async function request(
  url: string,
  path: string,
  init: {
    method?: string;
    json?: unknown;
    body?: string | Uint8Array;
    headers?: Record<string, string>;
  } = {},
): Promise<{ status: number; headers: Headers; text: string; json: unknown }> {
  const body = init.json === undefined ? init.body : JSON.stringify(init.json);
  const response = await fetch(url + path, {
    method: init.method ?? (body === undefined ? "GET" : "POST"),
    ...(body !== undefined && { body: body as string }),
    headers: new Headers(init.headers),
  });
  const text = await response.text();
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.status, headers: response.headers, text, json };
}

/** Begins to wait for a run: resolves when the server waits too, with a promise of the final values. */
export async function beginJoin(
  url: string,
  run: { thread_id: string; run_id: string },
): Promise<{ values: Promise<unknown> }> {
  const response = await fetch(`${url}/threads/${run.thread_id}/runs/${run.run_id}/join`);
  if (response.status !== 200) throw new Error(`join: ${response.status}`);
  return { values: response.json() };
}

/** One server-sent event as it was on the wire. */
export interface WireEvent {
  id: string | undefined;
  event: string;
  data: unknown;
}

/** The events of an answer, as they come. Comments are left out. */
export async function* wireEvents(response: Response): AsyncGenerator<WireEvent, void, void> {
  let rest = "";
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    rest += decoder.decode(chunk as Uint8Array, { stream: true });
    const blocks = rest.split("\n\n");
    rest = blocks.pop() ?? "";
    for (const block of blocks) {
      const fields = new Map(
        block
          .split("\n")
          .filter((line) => line !== "" && !line.startsWith(":"))
          .map((line) => {
            const [, name = "", value = ""] = /^([^:]*): ?(.*)$/.exec(line) ?? [];
            return [name, value];
          }),
      );
      if (fields.size === 0) continue;
      yield {
        id: fields.get("id"),
        event: fields.get("event") ?? "",
        data: JSON.parse(fields.get("data") ?? "null"),
      };
    }
  }
}

/** All that a stream has to give. */
export async function collect<T>(stream: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of stream) items.push(item);
  return items;
}
