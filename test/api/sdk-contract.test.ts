import { readFile } from "node:fs/promises";
import { Client } from "@langchain/langgraph-sdk";
import { beforeAll, describe, expect, it } from "vitest";
import { createTestDatabases } from "../support/databases.ts";
import { five, registryOf } from "../support/graphs.ts";
import { startServer } from "../support/server.ts";

/*
 * Holds `/openapi.json` against the official client: every method is called with every option it reads, and
 * whatever it sends (path, query, header, body field) has to be in the document. An option, a method or a
 * sub-client of a newer client fails here, instead of being refused or dropped in a user's hands.
 */

/** What is refused by its name, with the reason. An entry that is not needed any more fails the test too. */
const REFUSED: readonly string[] = [
  // Runs are traced to Langfuse; there is no LangSmith to choose a project of.
  "runs.create: body langsmith_tracer",
  "runs.wait: body langsmith_tracer",
];

/** The words a client may send where it may send only some: the type in the client, and where they go. */
const WORDS: Record<string, readonly string[]> = {
  AssistantSelectField: ["POST /assistants/search body select"],
  AssistantSortBy: ["POST /assistants/search body sort_by"],
  CronSelectField: ["POST /runs/crons/search body select"],
  CronSortBy: ["POST /runs/crons/search body sort_by"],
  SortOrder: ["POST /assistants/search body sort_order", "POST /threads/search body sort_order"],
  ThreadSelectField: ["POST /threads/search body select"],
  ThreadSortBy: ["POST /threads/search body sort_by"],
  ThreadStatus: ["POST /threads/search body status", "POST /threads/count body status"],
  RunSelectField: ["GET /threads/{thread_id}/runs query select"],
  RunStatus: ["GET /threads/{thread_id}/runs query status"],
  CancelAction: [
    "POST /threads/{thread_id}/runs/{run_id}/cancel query action",
    "POST /runs/cancel query action",
  ],
  MultitaskStrategy: ["POST /threads/{thread_id}/runs body multitask_strategy"],
  DisconnectMode: ["POST /threads/{thread_id}/runs/stream body on_disconnect"],
  Durability: ["POST /threads/{thread_id}/runs body durability"],
  OnConflictBehavior: ["POST /threads body if_exists", "POST /assistants body if_exists"],
};
/** Words of the client's types that are wrong there; the reason beside each. */
const WRONG_WORDS: readonly string[] = [
  // A thread has no context of its own; no server gives one.
  "ThreadSelectField context",
];

type Method = (...args: unknown[]) => unknown;

/** How each method is called; `all` stands for an object with every option there is. */
const CALLS: Record<string, Record<string, (method: Method, all: unknown) => unknown>> = {
  assistants: {
    get: (call, all) => call("id", all),
    getGraph: (call, all) => call("id", all),
    getSchemas: (call, all) => call("id", all),
    getSubgraphs: (call, all) => [call("id", all), call("id", { recurse: true })],
    create: (call, all) => call(all),
    update: (call, all) => call("id", all),
    delete: (call, all) => call("id", all),
    search: (call, all) => call(all),
    count: (call, all) => call(all),
    getVersions: (call, all) => call("id", all),
    setLatest: (call, all) => call("id", 1, all),
  },
  threads: {
    get: (call, all) => call("id", all),
    create: (call, all) => call(all),
    copy: (call, all) => call("id", all),
    update: (call, all) => call("id", all),
    delete: (call, all) => call("id", all),
    prune: (call, all) => call(["id"], all),
    search: (call, all) => call(all),
    count: (call, all) => call(all),
    getState: (call, all) => [
      call("id", undefined, all),
      call("id", "checkpoint", all),
      call("id", checkpoint(), all),
    ],
    updateState: (call, all) => call("id", all),
    patchState: (call, all) => call("id", { key: "value" }, all),
    getHistory: (call, all) => call("id", all),
    joinStream: (call, all) => drain(call("id", all)),
    // Speaks another protocol, which has its own types and its own tests.
    stream: () => undefined,
  },
  runs: {
    stream: (call, all) => [drain(call("id", "five", all)), drain(call(null, "five", all))],
    create: (call, all) => [call("id", "five", all), call(null, "five", all)],
    wait: (call, all) => [call("id", "five", all), call(null, "five", all)],
    // Sends what it is given, under the names it is given: the same options as the others.
    createBatch: (call, all) => call([everyOption()], all),
    list: (call, all) => call("id", all),
    get: (call, all) => call("id", "run", all),
    cancel: (call, all) => call("id", "run", true, "interrupt", all),
    cancelMany: (call, all) => call(all),
    join: (call, all) => call("id", "run", all),
    joinStream: (call, all) => [drain(call("id", "run", all)), drain(call(null, "run", all))],
    delete: (call, all) => call("id", "run", all),
  },
  crons: {
    createForThread: (call, all) => call("id", "five", all),
    create: (call, all) => call("five", all),
    update: (call, all) => call("id", all),
    delete: (call, all) => call("id", all),
    search: (call, all) => call(all),
    count: (call, all) => call(all),
  },
  store: {
    // A store's time to live is a number of minutes, a thread's is an object.
    putItem: (call, all) => call(["a"], "key", { value: 1 }, overridden(all, { ttl: 5 })),
    getItem: (call, all) => call(["a"], "key", all),
    deleteItem: (call, all) => call(["a"], "key", all),
    searchItems: (call, all) => call(["a"], all),
    listNamespaces: (call, all) => call(all),
  },
};

/** The same options, but for these. */
function overridden(all: unknown, values: Record<string, unknown>): unknown {
  return new Proxy(all as object, {
    get: (target, name) =>
      Object.hasOwn(values, name) ? values[String(name)] : (Reflect.get(target, name) as unknown),
  });
}

/** Options whose value has a form of its own. What is not here is a string. */
const VALUES: Record<string, unknown> = {
  signal: undefined,
  onRunCreated: undefined,
  streamIdleReconnect: undefined,
  raiseError: false,
  command: { update: { key: 1 }, resume: 1, goto: { node: "one", input: 1 } },
  config: { tags: ["a"], recursion_limit: 5, configurable: { key: 1 } },
  supersteps: [
    {
      updates: [
        { values: { key: 1 }, command: { goto: "one", update: { key: 1 } }, asNode: "one" },
      ],
    },
  ],
  ttl: { ttl: 5, strategy: "delete" },
  checkpoint: checkpoint(),
  before: { configurable: { checkpoint_id: "c" } },
  metadata: { key: "value" },
  values: { key: "value" },
  extract: { alias: "values.key" },
  _langsmithTracer: { projectName: "project", exampleId: "example" },
  lastEventId: "-1",
  streamMode: ["values"],
  index: ["field"],
  filter: { key: 1 },
  prefix: ["a"],
  suffix: ["a"],
};

function checkpoint(): object {
  return { checkpoint_id: "c", checkpoint_ns: "", checkpoint_map: {} };
}

interface Options {
  values: Record<string, unknown>;
  /** The names that were read. */
  read: Set<string>;
}
const OPTIONS = Symbol("options");

/** An object with whatever option is looked for. */
function allOptions(): unknown {
  const options: Options = { values: {}, read: new Set() };
  return new Proxy(
    {},
    {
      get(_target, name) {
        if (name === OPTIONS) return options;
        if (typeof name === "symbol") return undefined;
        options.read.add(name);
        options.values[name] = Object.hasOwn(VALUES, name) ? VALUES[name] : `the ${name}`;
        return options.values[name];
      },
    },
  );
}

/** Under their names, the options that the methods which start a run read. */
let runOptions: Record<string, unknown> = {};
function everyOption(): Record<string, unknown> {
  return { ...runOptions, assistantId: "five" };
}

/** A batch goes out with the client's own names, and is read by the API's. */
function withWireNames(request: Sent): Sent {
  const toWire = (name: string): string => name.replaceAll(/[A-Z]/g, (c) => `_${c.toLowerCase()}`);
  const body = (request.body as object[]).map((run) =>
    Object.fromEntries(
      Object.entries(run).map(([name, value]) => [toWire(name), value as unknown]),
    ),
  );
  return { ...request, body };
}

/** Sent with every request. */
const COMMON = new Set(["content-type"]);

interface Sending {
  method?: string;
  body?: string;
  headers?: Record<string, string>;
}

interface Sent {
  method: string;
  path: string;
  query: string[];
  headers: string[];
  body: unknown;
}

const quietly = async (result: unknown): Promise<void> => {
  for (const part of [result].flat()) await Promise.resolve(part).catch(() => {});
};

async function drain(stream: unknown): Promise<void> {
  for await (const _part of stream as AsyncIterable<unknown>);
}

interface Schema {
  type?: string;
  properties?: Record<string, Schema>;
  additionalProperties?: boolean | Schema;
  items?: Schema;
  anyOf?: Schema[];
  allOf?: Schema[];
  enum?: unknown[];
  const?: unknown;
  pattern?: string;
}

interface Operation {
  parameters: { name: string; in: string; schema: Schema }[];
  requestBody?: { content: Record<string, { schema: Schema }> };
}

type Document = { paths: Record<string, Record<string, Operation>> };

describe("the official client and /openapi.json", () => {
  const databases = createTestDatabases("pglite");
  let document: Document;
  beforeAll(async () => {
    const { url } = await startServer(databases, registryOf({ five }));
    document = (await (await fetch(`${url}/openapi.json`)).json()) as Document;
  });

  /** The operation for a request, with its path as the document has it; a literal path before a pattern. */
  const find = (method: string, path: string): [string, Operation] | undefined => {
    const matching = Object.keys(document.paths)
      .filter((template) =>
        new RegExp(`^${template.replaceAll(/\{[^}]+\}/g, "[^/]+")}$`).test(path),
      )
      .filter((template) => document.paths[template]![method.toLowerCase()])
      .toSorted((a, b) => a.split("{").length - b.split("{").length);
    return matching[0] === undefined
      ? undefined
      : [matching[0], document.paths[matching[0]]![method.toLowerCase()]!];
  };
  const bodySchema = (operation: Operation): Schema | undefined =>
    operation.requestBody?.content["application/json"]?.schema;

  it("has every method and every option of the client", async () => {
    const sent: Sent[] = [];
    const client = new Client({
      apiUrl: "http://client.test",
      apiKey: null,
      callerOptions: {
        maxRetries: 0,
        fetch: (async (address: string, init: Sending) => {
          const url = new URL(address);
          sent.push({
            method: init.method ?? "GET",
            path: url.pathname,
            query: [...new Set(url.searchParams.keys())],
            headers: Object.keys(init.headers ?? {}).filter((name) => !COMMON.has(name)),
            body: init.body === undefined ? undefined : JSON.parse(init.body),
          });
          return new Response("", { headers: { "Content-Type": "text/event-stream" } });
        }) as never,
      },
    });
    const subClients = Object.entries(client).filter(
      ([name, value]) => typeof value === "object" && value !== null && !name.startsWith("~"),
    );
    expect(subClients.map(([name]) => name).toSorted()).toEqual(Object.keys(CALLS).toSorted());

    const missing: string[] = [];
    for (const [name, subClient] of subClients) {
      const methods = Object.getOwnPropertyNames(Object.getPrototypeOf(subClient)).filter(
        (method) => method !== "constructor",
      );
      expect({ [name]: methods.toSorted() }).toEqual({
        [name]: Object.keys(CALLS[name]!).toSorted(),
      });
      for (const method of methods) {
        sent.length = 0;
        const all = allOptions();
        const call = (subClient as Record<string, Method>)[method]!.bind(subClient);
        await quietly(CALLS[name]![method]!(call, all));
        const { values } = (all as Record<symbol, Options>)[OPTIONS]!;
        if (name === "runs" && ["create", "wait"].includes(method)) {
          const { _langsmithTracer, raiseError, ...own } = values;
          runOptions = { ...runOptions, ...own };
        }
        expect({ method, sent: sent.length > 0 || method === "stream" }).toMatchObject({
          sent: true,
        });
        for (const request of sent.map(method === "createBatch" ? withWireNames : (r) => r))
          missing.push(...lacks(request).map((what) => `${name}.${method}: ${what}`));
      }
    }
    expect([...new Set(missing)].toSorted()).toEqual(REFUSED);
  });

  /** What of a request the document does not know. */
  const lacks = ({ method, path, query, headers, body }: Sent): string[] => {
    const found = find(method, path);
    if (!found) {
      const ids: Record<string, string> = {
        threads: "thread_id",
        runs: "run_id",
        crons: "cron_id",
      };
      const template = path.replaceAll(
        /\/(\w+)\/(id|run)(?=\/|$)/g,
        (_all, collection: string) => `/${collection}/{${ids[collection] ?? "id"}}`,
      );
      return [`${method} ${template}`];
    }
    const [, operation] = found;
    const names = operation.parameters.filter((p) => p.in === "query").map((p) => p.name);
    const schema = bodySchema(operation);
    const known = operation.parameters.filter((p) => p.in === "header").map((p) => p.name);
    return [
      ...headers
        .filter((name) => !known.some((own) => own.toLowerCase() === name.toLowerCase()))
        .map((name) => `header ${name}`),
      ...query.filter((name) => !names.includes(name)).map((name) => `query ${name}`),
      ...(body === undefined ? [] : schema ? unknownFields(schema, body, "body") : ["a body"]),
    ];
  };

  it("takes every word the client's types allow", async () => {
    const words = await readWords();
    const refused: string[] = [];
    for (const [type, places] of Object.entries(WORDS)) {
      const allowed = words.get(type);
      if (!allowed) throw new Error(`The client has no type ${type}`);
      for (const place of places) {
        const [method, path, where, field] = place.split(" ") as [string, string, string, string];
        const operation = document.paths[path]![method.toLowerCase()]!;
        const schema =
          where === "query"
            ? operation.parameters.find(({ name }) => name === field)?.schema
            : bodySchema(operation)?.properties?.[field];
        if (!schema) throw new Error(`There is no ${place}`);
        for (const word of allowed) if (!takes(schema, word)) refused.push(`${type} ${word}`);
      }
    }
    expect([...new Set(refused)]).toEqual(WRONG_WORDS);
  });
});

/** The fields of a value that a schema does not know, at any depth. */
function unknownFields(schema: Schema, value: unknown, at: string): string[] {
  const forms = schema.anyOf ?? schema.allOf;
  if (forms) {
    // What fits best is what was meant.
    const all = forms.map((form) => unknownFields(form, value, at));
    return all.toSorted((a, b) => a.length - b.length)[0]!;
  }
  if (Array.isArray(value)) {
    if (!schema.items) return schema.type === undefined ? [] : [`${at} (an array)`];
    return value.flatMap((item, index) => unknownFields(schema.items!, item, `${at}.${index}`));
  }
  if (typeof value !== "object" || value === null) return [];
  if (schema.type !== undefined && schema.type !== "object") return [`${at} (an object)`];
  return Object.entries(value).flatMap(([name, item]) => {
    const property = schema.properties?.[name];
    if (property) return unknownFields(property, item, `${at}.${name}`);
    return schema.additionalProperties === false ? [`${at} ${name}`] : [];
  });
}

/** Whether a schema of words, or of a list of words, takes this one. */
function takes(schema: Schema, word: string): boolean {
  if (schema.anyOf) return schema.anyOf.some((form) => takes(form, word));
  if (schema.items) return takes(schema.items, word);
  if (schema.enum) return schema.enum.includes(word);
  if (schema.const !== undefined) return schema.const === word;
  if (schema.pattern !== undefined) return new RegExp(schema.pattern).test(word);
  return true;
}

/** The client's types that are a choice of words. */
async function readWords(): Promise<Map<string, string[]>> {
  const words = new Map<string, string[]>();
  for (const file of ["schema.d.ts", "types.d.ts"]) {
    const entry = import.meta.resolve("@langchain/langgraph-sdk");
    const text = await readFile(new URL(`./${file}`, entry), "utf8");
    for (const [, name, union] of text.matchAll(/^type (\w+) = ((?:"[^"]+"(?: \| )?)+);$/gm))
      words.set(
        name!,
        [...union!.matchAll(/"([^"]+)"/g)].map(([, word]) => word!),
      );
  }
  return words;
}
