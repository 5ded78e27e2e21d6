import { randomUUID } from "node:crypto";
import { mkdtemp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { Annotation, StateGraph } from "@langchain/langgraph";
import { beforeAll, describe, expect, inject, it } from "vitest";
import type { HttpConfig } from "../../src/config/schema.ts";
import { as, configureAuth } from "../support/auth.ts";
import { createTestDatabases } from "../support/databases.ts";
import { five, inspect, registryOf } from "../support/graphs.ts";
import {
  createClient,
  eventually,
  request,
  startServer,
  type TestServer,
} from "../support/server.ts";

/** As a project would write it, with a copy of Hono and of the SDK that is not the server's. */
const APP = `
import { createRequire } from "node:module";
const require = createRequire(${JSON.stringify(import.meta.filename)});
const { Hono } = require("hono");
const { HTTPException } = require("hono/http-exception");
const { Client } = require("@langchain/langgraph-sdk");

export const app = new Hono();
app.use("*", async (c, next) => {
  if (c.req.header("x-teapot")) throw new HTTPException(418, { message: "short and stout" });
  if (c.req.method === "POST") c.set("read", JSON.stringify(await c.req.json()));
  await next();
  c.res.headers.set("x-custom", c.get("read") ?? "yes");
});
app.get("/mine", (c) => c.json(c.get("auth") ?? null));
app.post("/mine", async (c) => c.json(await c.req.json(), 201));
app.get("/mine/fails", () => { throw new Error("the cause"); });
app.get("/mine/refuses", () => { throw new HTTPException(402, { message: "pay first" }); });
app.get("/mine/fetched", () => fetch("data:text/plain,fetched"));
app.get("/mine/threads", async (c) => {
  const client = new Client({ defaultHeaders: { authorization: c.req.header("authorization") } });
  return c.json(await client.threads.search());
});
const hooks = [];
app.post("/mine/hook", async (c) => { hooks.push(await c.req.json()); return c.body(null, 204); });
app.get("/mine/hook", (c) => c.json(hooks));
app.get("/assistants/five", (c) => c.json({ shadowed: true }));

export const polite = new Hono();
polite.get("/polite", () => { throw new Error("the cause"); });
polite.onError((error, c) => c.text("sorry: " + error.message, 503));

export const nothing = { fetch: 1 };
`;

/** A graph that talks to its own server, with a client that knows no address. */
const Calls = Annotation.Root({
  authorization: Annotation<string>(),
  made: Annotation<string>(),
  trail: Annotation<unknown>(),
});
const caller = new StateGraph(Calls)
  .addNode("call", async ({ authorization }: typeof Calls.State) => {
    const client = new Client({ defaultHeaders: authorization ? { authorization } : {} });
    const { thread_id: made } = await client.threads.create({ metadata: { by: "graph" } });
    const values = (await client.runs.wait(made, "five", { input: { input: "x" } })) as {
      trail: string[];
    };
    const streamed: string[] = [];
    for await (const { event } of client.runs.stream(null, "five", { input: { input: "x" } })) {
      streamed.push(event);
    }
    return { made, trail: [...values.trail, streamed.length > 2] };
  })
  .addEdge("__start__", "call")
  .compile();

describe("custom routes", () => {
  const databases = createTestDatabases("postgres");
  const graphs = registryOf({ five, inspect, caller });

  async function start(
    http: Omit<HttpConfig, "cors" | "app"> & { exportName?: string },
    { auth = true } = {},
  ): Promise<TestServer> {
    const { exportName = "app", ...rest } = http;
    const path = join(await mkdtemp(join(inject("scratch"), "app-")), "app.ts");
    await writeFile(path, APP);
    return startServer(databases, graphs, {
      config: {
        http: { cors: undefined, app: { path, exportName }, ...rest },
        ...(auth && (await configureAuth(""))),
      },
    });
  }

  describe("as they are by default", () => {
    let server: TestServer;
    beforeAll(async () => {
      server = await start({});
    });
    const get = (path: string, headers: Record<string, string> = as("ada")) =>
      request(server.url, path, { headers });

    it("are behind authentication, and know who it was", async () => {
      expect(await get("/mine", {})).toMatchObject({
        status: 401,
        json: { code: "unauthenticated" },
      });
      expect(await get("/mine")).toMatchObject({
        status: 200,
        json: { user: { identity: "ada" }, scopes: [] },
      });
      expect((await get("/unknown", {})).status).toBe(401);
      expect((await get("/unknown")).status).toBe(404);
      expect((await get("/ok", {})).status).toBe(200);
    });

    it("come before the API's, and their middleware before all", async () => {
      expect((await get("/assistants/five")).json).toEqual({ shadowed: true });
      expect((await get("/assistants/five", {})).status).toBe(401);
      expect((await get("/assistants/inspect")).headers.get("x-custom")).toBe("yes");
      const created = await request(server.url, "/threads", { json: {}, headers: as("ada") });
      expect(created).toMatchObject({ status: 200 });
      expect(created.headers.get("x-custom")).toBe("{}");
      expect(
        (await request(server.url, "/mine", { json: { a: 1 }, headers: as("ada") })).json,
      ).toEqual({ a: 1 });
    });

    it("have their errors, and the API its own", async () => {
      expect(await get("/mine/refuses")).toMatchObject({ status: 402, text: "pay first" });
      for (const path of ["/mine", "/assistants/inspect", "/ok"]) {
        const answer = await get(path, { ...as("ada"), "x-teapot": "1" });
        expect({ path, ...answer }).toMatchObject({ path, status: 418, text: "short and stout" });
      }
      const failed = await get("/mine/fails");
      expect(failed).toMatchObject({ status: 500, json: { code: "internal" } });
      expect(failed.text).not.toContain("the cause");
      expect(await get(`/threads/${crypto.randomUUID()}`)).toMatchObject({
        status: 404,
        json: { code: "not_found" },
      });
      const fetched = await get("/mine/fetched");
      expect(fetched).toMatchObject({ status: 200, text: "fetched" });
      expect(fetched.headers.get("x-request-id")).not.toBeNull();
    });

    it("reach their server without a network, and are asked who they are", async () => {
      const { thread_id } = await createClient(server.url, as("ada")).threads.create();
      expect((await get("/mine/threads")).json).toEqual(
        expect.arrayContaining([expect.objectContaining({ thread_id })]),
      );
    });
  });

  it("are before authentication where the configuration says so", async () => {
    const server = await start({ authenticateApp: false, middlewareFirst: true });
    expect((await request(server.url, "/mine")).json).toBeNull();
    const teapot = await request(server.url, "/assistants/inspect", {
      headers: { "x-teapot": "1" },
    });
    expect(teapot.status).toBe(418);
    expect((await request(server.url, "/assistants/inspect")).status).toBe(401);
    const ordered = await start({ authenticateApp: false });
    expect((await request(ordered.url, "/mine")).json).toBeNull();
    const asked = await request(ordered.url, "/assistants/inspect", {
      headers: { "x-teapot": "1" },
    });
    expect(asked.status).toBe(401);
  });

  it("keep an error handler of their own", async () => {
    const server = await start({ exportName: "polite" }, { auth: false });
    expect(await request(server.url, "/polite")).toMatchObject({
      status: 503,
      text: "sorry: the cause",
    });
    expect((await request(server.url, "/unknown")).json).toMatchObject({ code: "not_found" });
  });

  it("must be a Hono app", async () => {
    await expect(start({ exportName: "nothing" })).rejects.toThrow("is not a Hono app");
    await expect(start({ exportName: "absent" })).rejects.toThrow('has no export "absent"');
  });

  it("are below a prefix like everything else, but for what looks after health", async () => {
    const server = await start({ mountPrefix: "/agents/v1", disabled: ["store", "runs", "mcp"] });
    const origin = new URL(server.url).origin;
    expect(server.url).toBe(`${origin}/agents/v1`);
    const client = createClient(server.url, as("ada"));
    expect((await client.assistants.get("inspect")).graph_id).toBe("inspect");
    const status = async (path: string, json?: unknown) =>
      (await request(origin, path, { json, headers: as("ada") })).status;
    expect(await status("/assistants/inspect")).toBe(404);
    expect(await status("/mine")).toBe(404);
    expect(await status("/agents/v1/mine")).toBe(200);
    expect(await status("/agents/v1/mine/threads")).toBe(200);
    expect(await status("/ok")).toBe(200);
    expect(await status("/agents/v1/ok")).toBe(200);
    // What is switched off is not there.
    for (const path of ["/store/items/search", "/runs", "/runs/wait", "/runs/crons", "/mcp"]) {
      expect({ path, status: await status(`/agents/v1${path}`, {}) }).toEqual({
        path,
        status: 404,
      });
    }
    const thread = `/threads/${randomUUID()}`;
    expect(await status(`/agents/v1${thread}/commands`, { id: 1, method: "run.start" })).toBe(404);
    expect(await status(`/agents/v1${thread}/stream/events`)).toBe(405);
    const document = (await request(server.url, "/openapi.json")).json as {
      paths: object;
      servers: unknown;
    };
    expect(document.servers).toEqual([{ url: "/agents/v1" }]);
    expect(Object.keys(document.paths)).toContain("/threads");
    expect(Object.keys(document.paths)).not.toContain("/store/items");
  });

  it("choose the headers that graphs are told, and get webhooks", async () => {
    const server = await start(
      {
        configurableHeaders: { includes: ["accept-language"], excludes: ["x-secret"] },
        mountPrefix: "/below",
      },
      { auth: false },
    );
    const answer = await request(server.url, "/runs/wait", {
      json: { assistant_id: "inspect", input: {} },
      headers: { "accept-language": "nn", "x-secret": "s", "x-open": "o" },
    });
    expect(answer.json).toMatchObject({ configurable: { "accept-language": "nn", "x-open": "o" } });
    expect(answer.text).not.toContain("x-secret");
    // They get the webhooks of runs too.
    const { run_id } = await server.client.runs.create(null, "inspect", {
      input: {},
      webhook: "/mine/hook",
    });
    await eventually(async () =>
      expect((await request(server.url, "/mine/hook")).json).toMatchObject([{ run_id }]),
    );
  });

  it("and graphs reach the server that runs them, one of several in a process", async () => {
    const [first, second] = [
      await startServer(databases, graphs),
      await startServer(databases, graphs),
    ];
    const [a, b] = await Promise.all(
      [first, second].map(async ({ client }) => {
        const values = await client.runs.wait(null, "caller", { input: {} });
        expect(values).toMatchObject({ trail: ["one", "two", "three", "four", "five", true] });
        const { made } = values as { made: string };
        expect((await client.threads.search({ metadata: { by: "graph" } })).length).toBe(1);
        expect((await client.threads.get(made)).metadata).toMatchObject({ by: "graph" });
        return made;
      }),
    );
    expect(a).not.toBe(b);
    // With authentication a graph is asked who it is, like everybody.
    const closed = await startServer(databases, graphs, { config: await configureAuth("") });
    const client = createClient(closed.url, as("ada"));
    const run = (input: object) =>
      client.runs.wait(null, "caller", { input: { ...input }, raiseError: false });
    expect(await run({})).toMatchObject({
      __error__: { message: expect.stringContaining("401") as string },
    });
    expect(await run(as("ada"))).toMatchObject({ made: expect.any(String) as string });
  });
});
