import { Client } from "@langchain/langgraph-sdk";
import { pino, type Logger } from "pino";
import { afterAll } from "vitest";
import type { Config } from "../../src/config/schema.ts";
import type { GraphRegistry } from "../../src/graphs/registry.ts";
import { openServer, type Server } from "../../src/server.ts";
import type { TestDatabases } from "./databases.ts";

export interface TestServer {
  server: Server;
  client: Client;
  url: string;
  config: Config;
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
    auth: { module: undefined, disable_studio_auth: false },
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
      timeoutMs: 5_000,
      flushAt: 64,
      flushIntervalMs: 50,
      headers: {},
      mask: undefined,
    },
    log: { level: "silent", pretty: false },
    workers: { concurrency: 10 },
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
  const server = await openServer(config, {
    log: options.log ?? pino({ level: "silent" }),
    graphs,
  });
  afterAll(() => server.close(0));
  return { server, url: server.url, config, client: createClient(server.url) };
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
