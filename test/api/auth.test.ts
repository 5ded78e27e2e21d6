import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pino } from "pino";
import { beforeAll, describe, expect, it } from "vitest";
import { as, configureAuth } from "../support/auth.ts";
import { createTestDatabases, describeDatabases } from "../support/databases.ts";
import { inspect, five, registryOf } from "../support/graphs.ts";
import {
  collect,
  createClient,
  request,
  startServer,
  wireEvents,
  type TestServer,
} from "../support/server.ts";

/** As a project would write it. The packages are found from here, as the project's folder is a bare one. */
const AUTH = `
import { createRequire } from "node:module";
const { Auth, HTTPException } = createRequire(${JSON.stringify(import.meta.filename)})("@langchain/langgraph-sdk/auth");

export const auth = new Auth().authenticate(async (request) => {
  const token = request.headers.get("authorization")?.replace("Bearer ", "");
  if (token === "teapot")
    throw new HTTPException(418, { message: "I am a teapot", headers: { "x-pot": "tea" } });
  if (token === "crash") return undefined.nothing;
  if (token === "nobody") return undefined;
  if (token === "text") return "plain";
  if (token === "body") {
    const body = await request.text();
    return { identity: "reader of " + body.length };
  }
  if (!token) throw new HTTPException(401, { message: "Say who you are", headers: { "WWW-Authenticate": "Bearer" } });
  return { identity: token, permissions: ["read", "write"], email: token + "@example.org", team: { id: 7 } };
});
`;

describeDatabases("authentication", (databases) => {
  let server: TestServer;
  beforeAll(async () => {
    const { dataDir } = await databases.configure();
    const file = join(dataDir, "auth.ts");
    await writeFile(file, AUTH);
    server = await startServer(databases, registryOf({ inspect, five }), {
      config: {
        auth: { module: { path: file, exportName: "auth" }, disable_studio_auth: true },
      },
    });
  });

  it("keeps an Idempotency-Key for the user who sent it", async () => {
    const send = (token: string) =>
      request(server.url, "/runs", {
        json: { assistant_id: "five", input: { input: "x" } },
        headers: { authorization: `Bearer ${token}`, "Idempotency-Key": "the-same" },
      });
    const ids = [];
    for (const token of ["ann", "bob", "ann", "bob"])
      ids.push(((await send(token)).json as { run_id: string }).run_id);
    expect(ids[2]).toBe(ids[0]);
    expect(ids[3]).toBe(ids[1]);
    expect(ids[0]).not.toBe(ids[1]);
  });

  it("asks everybody who they are, in JSON, with the handler's words and headers", async () => {
    for (const [method, path] of [
      ["GET", "/assistants/five"],
      ["POST", "/threads"],
      ["POST", "/runs/wait"],
      ["POST", "/runs/stream"],
      ["POST", "/store/items/search"],
      ["DELETE", "/threads/nonsense"],
    ] as const) {
      const answer = await request(server.url, path, { method });
      expect({ path, ...answer }).toMatchObject({
        path,
        status: 401,
        json: {
          detail: "Say who you are",
          code: "unauthenticated",
          request_id: expect.any(String) as string,
        },
      });
      expect(answer.headers.get("www-authenticate")).toBe("Bearer");
      expect(answer.headers.get("access-control-allow-origin")).toBe("*");
    }
  });

  it("leaves these to everybody", async () => {
    for (const path of ["/ok", "/info", "/openapi.json", "/docs", "/docs/swagger-ui.css"])
      expect((await request(server.url, path)).status).toBe(200);
    const preflight = await request(server.url, "/threads", {
      method: "OPTIONS",
      headers: {
        origin: "https://example.org",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
      },
    });
    expect(preflight.status).toBe(204);
  });

  it("answers with the handler's own status", async () => {
    const answer = await request(server.url, "/assistants/five", { headers: as("teapot") });
    expect(answer).toMatchObject({ status: 418, json: { detail: "I am a teapot" } });
    expect(answer.headers.get("x-pot")).toBe("tea");
  });

  it("lets nobody in when the handler fails, and tells nobody why", async () => {
    for (const token of ["crash", "nobody"]) {
      const answer = await request(server.url, "/assistants/five", { headers: as(token) });
      expect(answer).toMatchObject({
        status: 401,
        json: { detail: "Authentication failed", code: "unauthenticated" },
      });
      expect(answer.text).not.toMatch(/nothing|TypeError|auth\.ts/);
    }
  });

  it("tells the graph who asks, whoever the client says it is", async () => {
    const answer = await request(server.url, "/runs/wait", {
      json: {
        assistant_id: "inspect",
        input: {},
        config: {
          configurable: {
            user_id: "forged",
            langgraph_auth_user_id: "forged",
            langgraph_auth_user: { identity: "forged" },
            langgraph_auth_permissions: ["forged"],
          },
          metadata: { user_id: "forged" },
        },
        metadata: { user_id: "forged" },
      },
      headers: as("ada"),
    });
    expect(answer.json).toMatchObject({
      configurable: {
        user_id: "ada",
        langgraph_auth_user_id: "ada",
        langgraph_auth_permissions: ["read", "write"],
        langgraph_auth_user: {
          identity: "ada",
          permissions: ["read", "write"],
          email: "ada@example.org",
          team: { id: 7 },
          display_name: "ada",
          is_authenticated: true,
        },
      },
      metadata: { user_id: "ada" },
    });
    expect(answer.text).not.toContain("forged");
    expect(answer.text).not.toContain("Bearer");
    const plain = await request(server.url, "/runs/wait", {
      json: { assistant_id: "inspect", input: {} },
      headers: as("text"),
    });
    expect(plain.json).toMatchObject({ configurable: { langgraph_auth_user_id: "plain" } });
  });

  it("does not show in the API what the handler knows of a user", async () => {
    const client = createClient(server.url, as("ada"));
    const { thread_id } = await client.threads.create();
    const run = await client.runs.create(thread_id, "five", { input: { input: "x" } });
    await client.runs.join(thread_id, run.run_id);
    const shown = [
      await client.runs.get(thread_id, run.run_id),
      await client.threads.get(thread_id),
      await client.threads.getState(thread_id),
      await client.threads.getHistory(thread_id),
    ];
    expect(JSON.stringify(shown)).not.toContain("ada@example.org");
    for (const mode of ["debug", "events", "tasks", "checkpoints", "values"] as const) {
      const response = await fetch(`${server.url}/threads/${thread_id}/runs/stream`, {
        method: "POST",
        headers: as("ada"),
        body: JSON.stringify({ assistant_id: "five", input: { input: "x" }, stream_mode: mode }),
      });
      const events = await collect(wireEvents(response));
      expect({ mode, text: JSON.stringify(events) }).toEqual({
        mode,
        text: expect.not.stringContaining("ada@example.org") as string,
      });
    }
  });

  it("lets the handler read the body, and the route after it", async () => {
    const json = { assistant_id: "inspect", input: {} };
    const answer = await request(server.url, "/runs/wait", { json, headers: as("body") });
    expect(answer.json).toMatchObject({
      configurable: { langgraph_auth_user_id: `reader of ${JSON.stringify(json).length}` },
    });
  });

  it("keeps with the run who asked for it", async () => {
    const client = createClient(server.url, as("grace"));
    const { thread_id } = await client.threads.create();
    await client.runs.wait(thread_id, "five", { input: { input: "x" } });
    const rows = await server.inspect(
      async (database) =>
        (await database.query("SELECT user_id FROM runs WHERE thread_id = $1", [thread_id])).rows,
    );
    expect(rows).toEqual([{ user_id: "grace" }]);
  });
});

describe("LangGraph Studio", () => {
  const databases = createTestDatabases("postgres");
  const studio = { "x-auth-scheme": "langsmith" };
  async function start(disable_studio_auth: boolean): Promise<{ url: string; log: string[] }> {
    const log: string[] = [];
    const config = await configureAuth(`
      auth.on("*", ({ user }) => (user.kind === "StudioUser" ? true : { owner: user.identity }));
    `);
    const { url } = await startServer(databases, registryOf({ inspect }), {
      config: { auth: { ...config.auth!, disable_studio_auth } },
      log: pino({ level: "warn" }, { write: (line: string) => void log.push(line) }),
    });
    return { url, log };
  }

  it("is asked like everybody else", async () => {
    const { url, log } = await start(true);
    expect((await request(url, "/assistants/inspect", { headers: studio })).status).toBe(401);
    expect(log.join("")).not.toContain("Studio");
  });

  it("is let in where the configuration says so, as a user that handlers know, with a warning", async () => {
    const { url, log } = await start(false);
    expect((await request(url, "/assistants/inspect", { headers: studio })).status).toBe(200);
    const headers = as("ada");
    expect((await request(url, "/assistants/inspect", { headers })).status).toBe(404);
    expect((await request(url, "/assistants/inspect")).status).toBe(401);
    const answer = await request(url, "/runs/wait", {
      json: { assistant_id: "inspect", input: {} },
      headers: studio,
    });
    expect(answer.json).toMatchObject({
      configurable: { langgraph_auth_user_id: "langgraph-studio-user" },
    });
    expect(log.join("")).toContain("is let in as Studio");
  });
});
