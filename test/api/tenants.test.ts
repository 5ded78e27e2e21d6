import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { setTimeout } from "node:timers/promises";
import { beforeAll, describe, expect, it } from "vitest";
import { WebSocket } from "ws";
import { as, configureAuth, OWNER_FILTER } from "../support/auth.ts";
import { createTestDatabases } from "../support/databases.ts";
import { five, registryOf } from "../support/graphs.ts";
import { createClient, request, startServer, type TestServer } from "../support/server.ts";

/** In everything that Ada owns, so that it shows in whatever leaks. */
const SECRET = "ada-only";

/** What Ada has. */
interface Theirs {
  thread_id: string;
  run_id: string;
  assistant_id: string;
  checkpoint_id: string;
  cron_id: string;
  key: string;
  /** A thread with a run that waits for an hour. */
  pending: { thread_id: string; run_id: string };
  /** A run that was made without a thread. */
  stateless: string;
}

interface Attempt {
  /** Fills the ids of the path that are not plainly Ada's. */
  params?: (theirs: Theirs) => Record<string, string>;
  query?: (theirs: Theirs) => string;
  json?: (theirs: Theirs) => unknown;
  headers?: Record<string, string>;
  /** What Eve is answered: nothing of Ada's is in it, whatever it is. */
  eve: number;
  /** Whether it is a web socket, over which each of the JSON is sent. */
  socket?: boolean;
  /** Whether the answer never ends: what comes in a while is looked at. */
  endless?: boolean;
  /** What Ada is answered to the same request, so that it is one which would have worked. */
  ada: number;
  /** What Ada's answer shows; of what is Ada's, Eve's must show nothing. */
  shows?: string;
}

const RUN = { input: { input: SECRET }, multitask_strategy: "enqueue" };
const onPending = ({ pending }: Theirs): Record<string, string> => pending;

/** How long an endless answer is read that is to show nothing. */
const WHILE_MS = 500;
/** And one that is to show something, at most. */
const PATIENCE_MS = 60_000;

/**
 * An attempt at what is Ada's on every route of the server, or several, told apart in parentheses. `public` routes
 * ask nobody.
 */
const ATTEMPTS: Record<string, Attempt | "public"> = {
  "POST /assistants": {
    json: ({ assistant_id }) => ({ assistant_id, graph_id: "five", if_exists: "do_nothing" }),
    eve: 409,
    ada: 200,
    shows: SECRET,
  },
  "POST /assistants/search": { json: () => ({}), eve: 200, ada: 200, shows: SECRET },
  "POST /assistants/count": { json: () => ({}), eve: 200, ada: 200, shows: "^[1-9]" },
  "GET /assistants/{assistant_id}": { eve: 404, ada: 200, shows: SECRET },
  "PATCH /assistants/{assistant_id}": {
    json: () => ({ metadata: { taken: true } }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "DELETE /assistants/{assistant_id}": {
    query: () => "?delete_threads=true",
    eve: 404,
    ada: 204,
  },
  "POST /assistants/{assistant_id}/versions": {
    json: () => ({}),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /assistants/{assistant_id}/latest": {
    json: () => ({ version: 1 }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "GET /assistants/{assistant_id}/graph": { eve: 404, ada: 200 },
  "GET /assistants/{assistant_id}/schemas": { eve: 404, ada: 200 },
  "GET /assistants/{assistant_id}/subgraphs": { eve: 404, ada: 200 },
  "GET /assistants/{assistant_id}/subgraphs/{namespace}": {
    params: () => ({ namespace: "none" }),
    eve: 404,
    ada: 404,
  },

  "POST /threads": {
    json: ({ thread_id }) => ({ thread_id, if_exists: "do_nothing" }),
    eve: 409,
    ada: 200,
    shows: SECRET,
  },
  "POST /threads/search": { json: () => ({}), eve: 200, ada: 200, shows: SECRET },
  "POST /threads/count": { json: () => ({}), eve: 200, ada: 200, shows: "^[1-9]" },
  "POST /threads/prune": {
    json: ({ pending }) => ({ thread_ids: [pending.thread_id] }),
    eve: 200,
    ada: 200,
    shows: '"pruned_count":1',
  },
  "GET /threads/{thread_id}": { eve: 404, ada: 200, shows: SECRET },
  "PATCH /threads/{thread_id}": {
    json: () => ({ metadata: { taken: true } }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "DELETE /threads/{thread_id}": { params: onPending, eve: 404, ada: 204 },
  "POST /threads/{thread_id}/copy": { eve: 404, ada: 200, shows: SECRET },
  "GET /threads/{thread_id}/state": { eve: 404, ada: 200, shows: SECRET },
  "GET /threads/{thread_id}/state/{checkpoint_id}": { eve: 404, ada: 200, shows: SECRET },
  "POST /threads/{thread_id}/state/checkpoint": {
    json: ({ checkpoint_id }) => ({ checkpoint: { checkpoint_id } }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /threads/{thread_id}/state": {
    json: () => ({ values: { trail: ["taken"] }, as_node: "five" }),
    eve: 404,
    ada: 200,
  },
  "PATCH /threads/{thread_id}/state": {
    json: () => ({ metadata: { taken: true } }),
    eve: 404,
    ada: 204,
  },
  "GET /threads/{thread_id}/history": { eve: 404, ada: 200, shows: SECRET },
  "POST /threads/{thread_id}/history": { json: () => ({}), eve: 404, ada: 200, shows: SECRET },

  "POST /threads/{thread_id}/runs": {
    json: ({ assistant_id }) => ({ assistant_id, ...RUN, if_not_exists: "create" }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /threads/{thread_id}/runs/stream": {
    json: () => ({
      assistant_id: "five",
      if_not_exists: "create",
      multitask_strategy: "enqueue",
      command: { goto: "five" },
    }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /threads/{thread_id}/runs/wait": {
    json: () => ({
      assistant_id: "five",
      if_not_exists: "create",
      multitask_strategy: "enqueue",
      command: { goto: "five" },
    }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /threads/{thread_id}/commands": {
    json: () => ({ id: 1, method: "state.get", params: {} }),
    eve: 200,
    ada: 200,
    shows: SECRET,
  },
  "POST /threads/{thread_id}/commands (a run)": {
    json: () => ({
      id: 1,
      method: "run.start",
      params: { assistant_id: "five", input: { input: "taken" } },
    }),
    eve: 200,
    ada: 200,
    shows: '"success"',
  },
  "POST /threads/{thread_id}/stream/events": {
    json: () => ({ channels: ["values", "lifecycle"] }),
    endless: true,
    eve: 200,
    ada: 200,
    shows: "taken",
  },
  "GET /threads/{thread_id}/stream": {
    headers: { "last-event-id": "-1" },
    endless: true,
    eve: 404,
    ada: 200,
    shows: "taken",
  },
  "GET /threads/{thread_id}/stream/events": {
    socket: true,
    json: () => [
      { id: 1, method: "state.get", params: {} },
      { id: 2, method: "subscription.subscribe", params: { channels: ["values"] } },
    ],
    eve: 101,
    ada: 101,
    shows: SECRET,
  },
  "GET /threads/{thread_id}/runs/{run_id}/webhooks": { eve: 404, ada: 200 },
  "POST /runs": {
    json: ({ assistant_id }) => ({ assistant_id, ...RUN }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /runs/stream": {
    json: ({ assistant_id }) => ({ assistant_id, ...RUN }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /runs/wait": {
    json: ({ assistant_id }) => ({ assistant_id, ...RUN }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /runs/batch": {
    json: ({ assistant_id }) => [{ assistant_id: "five" }, { assistant_id, ...RUN }],
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /runs/cancel": {
    json: ({ pending }) => ({ thread_id: pending.thread_id, run_ids: [pending.run_id] }),
    eve: 404,
    ada: 204,
  },
  "GET /threads/{thread_id}/runs": { eve: 404, ada: 200, shows: SECRET },
  "GET /threads/{thread_id}/runs/{run_id}": { eve: 404, ada: 200, shows: SECRET },
  "DELETE /threads/{thread_id}/runs/{run_id}": { params: onPending, eve: 404, ada: 204 },
  "POST /threads/{thread_id}/runs/{run_id}/cancel": {
    params: onPending,
    query: () => "?action=rollback",
    eve: 404,
    ada: 202,
  },
  "GET /threads/{thread_id}/runs/{run_id}/join": {
    query: () => "?cancel_on_disconnect=true",
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "GET /threads/{thread_id}/runs/{run_id}/stream": { eve: 404, ada: 200, shows: SECRET },
  "GET /runs/{run_id}/stream": {
    params: ({ stateless }) => ({ run_id: stateless }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /runs/crons": {
    json: ({ assistant_id }) => ({ assistant_id, ...RUN, schedule: "0 0 1 1 *" }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /threads/{thread_id}/runs/crons": {
    json: () => ({ assistant_id: "five", ...RUN, schedule: "0 0 1 1 *" }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "POST /runs/crons/search": { json: () => ({}), eve: 200, ada: 200, shows: SECRET },
  "POST /runs/crons/count": { json: () => ({}), eve: 200, ada: 200, shows: "^[1-9]" },
  "GET /runs/crons/{cron_id}": { eve: 404, ada: 200, shows: SECRET },
  "PATCH /runs/crons/{cron_id}": {
    json: () => ({ enabled: false, metadata: { taken: true } }),
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "DELETE /runs/crons/{cron_id}": { eve: 404, ada: 204 },

  // Without tracing there is nothing to judge; only the owner is told so.
  "POST /runs/{run_id}/feedback": { json: () => ({ key: "k", score: 1 }), eve: 404, ada: 409 },

  "GET /store/items": {
    query: ({ key }) => `?namespace=notes&key=${key}`,
    eve: 200,
    ada: 200,
    shows: SECRET,
  },
  "POST /store/items/search": {
    json: () => ({ namespace_prefix: [] }),
    eve: 200,
    ada: 200,
    shows: SECRET,
  },
  "POST /store/namespaces": { json: () => ({}), eve: 200, ada: 200, shows: "notes" },
  "PUT /store/items": {
    json: ({ key }) => ({ namespace: ["notes"], key, value: { taken: true } }),
    eve: 204,
    ada: 204,
  },
  "DELETE /store/items": {
    json: ({ key }) => ({ namespace: ["notes"], key }),
    eve: 204,
    ada: 204,
  },

  "POST /mcp": {
    json: () => ({ jsonrpc: "2.0", id: 1, method: "tools/list" }),
    headers: { "content-type": "application/json" },
    eve: 200,
    ada: 200,
    shows: SECRET,
  },

  "POST /a2a/{assistant_id}": {
    json: ({ thread_id }) => ({
      jsonrpc: "2.0",
      id: 1,
      method: "message/send",
      params: {
        message: {
          kind: "message",
          messageId: "m",
          role: "user",
          contextId: thread_id,
          parts: [{ kind: "data", data: { input: "taken" } }],
        },
      },
    }),
    // Where the agent is everybody's, and the conversation is not.
    params: () => ({ assistant_id: "five" }),
    eve: 200,
    ada: 200,
    shows: "completed",
  },
  "GET /a2a/{assistant_id}/.well-known/agent-card.json": { eve: 404, ada: 200, shows: SECRET },
  "GET /.well-known/agent-card.json": {
    query: ({ assistant_id }) => `?assistant_id=${assistant_id}`,
    eve: 404,
    ada: 200,
    shows: SECRET,
  },
  "GET /.well-known/agent.json": {
    query: ({ assistant_id }) => `?assistant_id=${assistant_id}`,
    eve: 404,
    ada: 200,
    shows: SECRET,
  },

  "POST /feedback/{token}": "public",
  "GET /ok": "public",
  "GET /info": "public",
  "GET /openapi.json": "public",
  "GET /docs": "public",
  "GET /docs/{asset}": "public",
  "GET /live": "public",
  "GET /ready": "public",
  "GET /metrics": "public",
};

/** Method and path of an attempt's route. */
function toRoute(name: string): [string, string] {
  const [method = "", path = ""] = name.split(" ");
  return [method, path];
}

interface Operation {
  "x-permission": string;
}

describe("two tenants with an owner filter", () => {
  const databases = createTestDatabases("postgres");
  let server: TestServer;
  /** `GET /threads/{thread_id}` and its permission, for all the server has. */
  let routes: Map<string, string>;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five }), {
      config: await configureAuth(OWNER_FILTER),
    });
    const { paths } = (await request(server.url, "/openapi.json")).json as {
      paths: Record<string, Record<string, Operation>>;
    };
    routes = new Map(
      Object.entries(paths).flatMap(([path, methods]) =>
        Object.entries(methods).map(([method, operation]) => [
          `${method.toUpperCase()} ${path}`,
          operation["x-permission"],
        ]),
      ),
    );
  });
  const ada = () => createClient(server.url, as("ada"));

  it("has an attempt for every route, and the page about authorization a line", async () => {
    const attempted = new Set(Object.keys(ATTEMPTS).map((name) => toRoute(name).join(" ")));
    expect([...attempted].toSorted()).toEqual([...routes.keys()].toSorted());
    const open = [...routes].filter(([, permission]) => permission === "public");
    const unasked = Object.entries(ATTEMPTS).filter(([, attempt]) => attempt === "public");
    expect(open.map(([name]) => name).toSorted()).toEqual(unasked.map(([name]) => name).toSorted());

    const page = await readFile(new URL("../../docs/auth.md", import.meta.url), "utf8");
    const table = page.split("## Routes and events")[1]?.split("\n## ")[0] ?? "";
    const documented = table
      .split("\n")
      .map((line) => /^\| `([A-Z]+ [^`]+)` +\| `([^`]+)` +\|/u.exec(line))
      .flatMap((match) => (match ? [`${match[1]} ${match[2]}`] : []));
    expect(documented.toSorted()).toEqual(
      [...routes].map(([name, permission]) => `${name} ${permission}`).toSorted(),
    );
  });

  it("asks everybody else who they are", async () => {
    for (const [name, attempt] of Object.entries(ATTEMPTS)) {
      // A web socket is opened, and closed with 4401.
      if (attempt === "public" || attempt.socket) continue;
      const [method, path] = toRoute(name);
      const answer = await request(server.url, path.replaceAll(/\{\w+\}/gu, "x"), { method });
      expect({ name, status: answer.status }).toEqual({ name, status: 401 });
    }
  });

  it("gives Eve nothing of Ada's, on any route", async () => {
    const theirs = await createTheirs();
    const before = await readAll(theirs);
    expect(JSON.stringify(before)).toContain(SECRET);
    for (const [name, attempt] of Object.entries(ATTEMPTS)) {
      if (attempt === "public") continue;
      const eve = await send(name, attempt, { theirs, token: "eve" });
      expect({ name, status: eve.status, text: eve.text }).toEqual({
        name,
        status: attempt.eve,
        text: expect.not.stringContaining(SECRET) as string,
      });
      if (name.endsWith("/count")) expect({ name, text: eve.text }).toEqual({ name, text: "0" });
      // The conversation is named again where it is said that there is none.
      if (attempt.eve === 200 && !/a2a|commands/u.test(name)) {
        expect({ name, text: eve.text }).toEqual({
          name,
          text: expect.not.stringMatching(toPattern(theirs)) as string,
        });
      }
      if (name.startsWith("GET")) continue;
      expect({ name, theirs: await readAll(theirs) }).toEqual({ name, theirs: before });
    }
    expect(await readAll(theirs)).toEqual(before);
  });

  it("gives Ada what is hers, to the same requests", async () => {
    let theirs: Theirs | undefined;
    for (const [name, attempt] of Object.entries(ATTEMPTS)) {
      if (attempt === "public") continue;
      theirs ??= await createTheirs();
      const answer = await send(name, attempt, { theirs, token: "ada" });
      expect({ name, status: answer.status, text: answer.text }).toEqual({
        name,
        status: attempt.ada,
        text: (attempt.shows ? expect.stringMatching(attempt.shows) : expect.any(String)) as string,
      });
      if (name.startsWith("DELETE") || /cancel|prune/u.test(name)) theirs = undefined;
    }
  });

  it("counts, stops and deletes in bulk only what is one's own", async () => {
    const theirs = await createTheirs();
    const eve = createClient(server.url, as("eve"));
    expect(await eve.assistants.count()).toBe(0);
    expect(await eve.crons.count()).toBe(0);
    const { thread_id } = await eve.threads.create();
    expect(await eve.threads.count()).toBe(1);
    const waiting = await eve.runs.create(thread_id, "five", { afterSeconds: 3600 });
    const stopped = await request(server.url, "/runs/cancel", {
      json: { status: "all" },
      headers: as("eve"),
    });
    expect(stopped.status).toBe(204);
    expect((await eve.runs.get(thread_id, waiting.run_id)).status).toBe("interrupted");
    const { pending } = theirs;
    expect((await ada().runs.get(pending.thread_id, pending.run_id)).status).toBe("pending");
    // Eve's thread of Ada's graph stays when Ada deletes her assistant with its threads.
    await eve.threads.update(thread_id, { metadata: { assistant_id: theirs.assistant_id } });
    await request(server.url, `/assistants/${theirs.assistant_id}?delete_threads=true`, {
      method: "DELETE",
      headers: as("ada"),
    });
    await expect(ada().threads.get(theirs.thread_id)).rejects.toMatchObject({ status: 404 });
    expect((await eve.threads.get(thread_id)).thread_id).toBe(thread_id);
  });

  async function createTheirs(): Promise<Theirs> {
    const client = ada();
    const key = crypto.randomUUID();
    const metadata = { note: SECRET };
    const [assistant, thread, waiting] = await Promise.all([
      client.assistants.create({ graphId: "five", name: SECRET, metadata }),
      client.threads.create({ metadata }),
      client.threads.create({ metadata }),
      client.store.putItem(["notes"], key, { note: SECRET }),
    ]);
    const { assistant_id } = assistant;
    const { thread_id } = thread;
    const { input } = RUN;
    const run = await client.runs.create(thread_id, assistant_id, { input, metadata });
    const pending = await client.runs.create(waiting.thread_id, assistant_id, {
      input,
      afterSeconds: 3600,
    });
    const cron = (await client.crons.create(assistant_id, {
      input,
      metadata,
      schedule: "0 0 1 1 *",
    })) as unknown as { cron_id: string };
    const stateless = await client.runs.create(null, assistant_id, { input });
    await client.runs.join(thread_id, run.run_id);
    const state = await client.threads.getState(thread_id);
    return {
      thread_id,
      run_id: run.run_id,
      assistant_id,
      checkpoint_id: state.checkpoint.checkpoint_id!,
      cron_id: cron.cron_id,
      key,
      pending: { thread_id: waiting.thread_id, run_id: pending.run_id },
      stateless: stateless.run_id,
    };
  }

  /** All that Ada has, as she sees it. */
  async function readAll(theirs: Theirs): Promise<unknown[]> {
    const client = ada();
    const { thread_id, pending, cron_id } = theirs;
    return Promise.all([
      client.assistants.get(theirs.assistant_id),
      client.threads.get(thread_id),
      client.threads.getHistory(thread_id),
      client.runs.list(thread_id),
      client.threads.get(pending.thread_id),
      client.runs.get(pending.thread_id, pending.run_id),
      client.store.getItem(["notes"], theirs.key),
      request(server.url, `/runs/crons/${cron_id}`, { headers: as("ada") }).then(
        ({ json }) => json,
      ),
    ]);
  }

  async function send(
    name: string,
    attempt: Attempt,
    { theirs, token }: { theirs: Theirs; token: string },
  ) {
    const [method, pattern] = toRoute(name);
    const ids: Record<string, unknown> = { ...theirs, ...attempt.params?.(theirs) };
    const path = pattern.replaceAll(/\{(\w+)\}/gu, (_, id: string) => {
      const value = ids[id];
      if (typeof value !== "string") throw new Error(`${name}: nothing for {${id}}`);
      return value;
    });
    const init = {
      method,
      ...(attempt.json && { json: attempt.json(theirs) }),
      headers: { ...attempt.headers, ...as(token) },
    };
    // What Ada is to be shown is waited for.
    const shows = token === "ada" ? attempt.shows : undefined;
    if (attempt.socket) return talk(path, { messages: init.json as unknown[], token, shows });
    if (!attempt.endless) {
      return request(server.url, path + (attempt.query?.(theirs) ?? ""), init);
    }
    const response = await fetch(server.url + path, {
      method,
      headers: init.headers,
      ...(init.json !== undefined && { body: JSON.stringify(init.json) }),
    });
    let text = "";
    const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
    const reading = (async () => {
      for (let part = await reader.read(); !part.done; part = await reader.read())
        text += part.value;
    })();
    await Promise.race([reading, aWhile(() => text, shows)]);
    await reader.cancel();
    await reading;
    return { status: response.status, text };
  }

  /** What comes over a web socket in a while. */
  async function talk(
    path: string,
    { messages, token, shows }: { messages: unknown[]; token: string; shows: string | undefined },
  ): Promise<{ status: number; text: string }> {
    const socket = new WebSocket(server.url.replace("http", "ws") + path, { headers: as(token) });
    let text = "";
    socket.on("message", (data: Buffer) => void (text += data.toString()));
    await once(socket, "open");
    for (const message of messages) socket.send(JSON.stringify(message));
    await aWhile(() => text, shows);
    socket.close();
    return { status: 101, text };
  }

  /** Resolves when the text shows what it is to show, or in a while if that is nothing. */
  async function aWhile(textOf: () => string, shows: string | undefined): Promise<void> {
    if (shows === undefined) return setTimeout(WHILE_MS);
    const deadline = Date.now() + PATIENCE_MS;
    while (!new RegExp(shows, "u").test(textOf()) && Date.now() < deadline) await setTimeout(20);
  }

  /** Every id but the key of the item, which Eve may have an item under too. */
  const toPattern = ({ pending, key: _key, ...theirs }: Theirs): RegExp =>
    new RegExp([...Object.values(theirs), ...Object.values(pending)].join("|"), "u");
});
