import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import type { Progress } from "@modelcontextprotocol/sdk/types.js";
import { randomUUID } from "node:crypto";
import { beforeAll, expect, it } from "vitest";
import { describeDatabases } from "../support/databases.ts";
import { approval, chat, createFeed, failing, five, registryOf } from "../support/graphs.ts";
import { request, startServer, type TestServer } from "../support/server.ts";

const feed = createFeed();

const code = (answer: { json: unknown }) => (answer.json as { error: { code: number } }).error.code;

describeDatabases("MCP", (databases) => {
  let server: TestServer;
  let mcp: Client;
  beforeAll(async () => {
    const graphs = registryOf({ five, chat, approval, failing, feed: feed.graph });
    server = await startServer(databases, graphs);
    mcp = new Client({ name: "test", version: "1.0.0" });
    await mcp.connect(new StreamableHTTPClientTransport(new URL(`${server.url}/mcp`)));
    databases.defer(() => mcp.close());
  });

  it("lists the assistants as tools", async () => {
    expect(mcp.getServerVersion()).toMatchObject({ name: "aegra" });
    const { tools } = await mcp.listTools();
    expect(tools.map(({ name }) => name).toSorted()).toEqual(
      ["approval", "chat", "failing", "feed", "five"].toSorted(),
    );
    expect(tools.find(({ name }) => name === "chat")?.inputSchema).toMatchObject({
      type: "object",
      properties: { messages: { type: "array", items: { required: ["role", "content"] } } },
    });
  });

  it("names a client's assistants so that models can, each name once", async () => {
    const { assistants } = server.client;
    const created = [];
    for (let index = 0; index < 2; index += 1) {
      created.push(
        await assistants.create({
          graphId: "chat",
          name: "Support, für alle",
          description: "Answers",
        }),
      );
    }
    created.push(await assistants.create({ graphId: "chat", name: "five" }));
    const { tools } = await mcp.listTools();
    const own = tools.filter(({ title }) => title === "Support, für alle" || title === "five");
    expect(new Set(own.map(({ name }) => name)).size).toBe(4);
    for (const { name } of own) expect(name).toMatch(/^[\w-]{1,128}$/);
    expect(own.find(({ name }) => name === "Support_f_r_alle")).toMatchObject({
      description: "Answers",
    });
    expect(tools.find(({ name }) => name === "five")?.inputSchema).toHaveProperty(
      "properties.trail",
    );
    for (const { assistant_id } of created) await assistants.delete(assistant_id);
  });

  it("answers a call with the graph's output", async () => {
    const result = await mcp.callTool({ name: "five", arguments: { input: "hello" } });
    const output = { input: "hello", trail: ["one", "two", "three", "four", "five"] };
    expect(result).toMatchObject({ isError: false, structuredContent: output });
    const [content] = result.content as { type: string; text: string }[];
    expect(JSON.parse(content!.text)).toEqual(output);
  });

  it("takes messages as a model writes them", async () => {
    const messages = [{ role: "user", content: "Hi" }];
    const result = await mcp.callTool({ name: "chat", arguments: { messages } });
    expect(result.structuredContent).toMatchObject({
      messages: [
        { type: "human", content: "Hi" },
        { type: "ai", content: "Hello there!" },
      ],
    });
  });

  it("tells of each step to a client that asks for progress", async () => {
    const steps: Progress[] = [];
    const result = await mcp.callTool({ name: "five", arguments: {} }, undefined, {
      onprogress: (progress) => void steps.push(progress),
    });
    expect(result.isError).toBe(false);
    expect(steps.map(({ message }) => message)).toEqual(["one", "two", "three", "four", "five"]);
    expect(steps.map(({ progress }) => progress)).toEqual([1, 2, 3, 4, 5]);
  });

  it("tells a model what went wrong in a graph", async () => {
    const failed = await mcp.callTool({ name: "failing", arguments: {} });
    expect(failed).toMatchObject({
      isError: true,
      content: [{ type: "text", text: "TypeError: The second node is broken" }],
    });
    const asked = await mcp.callTool({ name: "approval", arguments: {} });
    expect(asked.isError).toBe(true);
    expect((asked.content as { text: string }[])[0]!.text).toContain("interrupt()");
  });

  it("stops the run of a call that its client cancels, or leaves", async () => {
    for (const way of ["cancel", "leave"] as const) {
      const input = randomUUID();
      const stop = new AbortController();
      const call =
        way === "cancel"
          ? mcp.callTool({ name: "feed", arguments: { input } }, undefined, {
              signal: stop.signal,
            })
          : fetch(`${server.url}/mcp`, {
              method: "POST",
              signal: stop.signal,
              headers: { "content-type": "application/json" },
              body: JSON.stringify({
                jsonrpc: "2.0",
                id: 1,
                method: "tools/call",
                params: { name: "feed", arguments: { input } },
              }),
            }).then((response) => response.text());
      const outcome = call.catch((error: unknown) => error);
      await feed.entered(input);
      stop.abort();
      expect(await outcome).toBeInstanceOf(Error);
      await feed.aborted(input);
    }
  });

  it("refuses in the protocol's own words", async () => {
    await expect(mcp.callTool({ name: "nobody", arguments: {} })).rejects.toMatchObject({
      code: -32602,
      message: expect.stringContaining("Unknown tool: nobody"),
    });
    const send = (body: string, headers: Record<string, string> = {}) =>
      request(server.url, "/mcp", {
        body,
        headers: { "content-type": "application/json", ...headers },
      });
    const ping = JSON.stringify({ jsonrpc: "2.0", id: 1, method: "ping" });
    expect((await send(ping)).json).toEqual({ jsonrpc: "2.0", id: 1, result: {} });
    const wrong = await send("{");
    expect([wrong.status, code(wrong)]).toEqual([400, -32700]);
    expect(code(await send("[]"))).toBe(-32600);
    expect(code(await send(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "no/such" })))).toBe(
      -32601,
    );
    expect((await send(ping, { "mcp-protocol-version": "1999-01-01" })).status).toBe(400);
    expect((await send(ping, { "content-type": "text/plain" })).status).toBe(415);
    expect((await request(server.url, "/mcp")).status).toBe(405);
    expect((await request(server.url, "/mcp", { method: "DELETE" })).status).toBe(405);
  });

  it("is known by its runs: who called, in which connection", async () => {
    const { rows } = await server.inspect((database) =>
      database.query<{ trigger: string; session: string | null; request: string }>(
        `SELECT origin ->> 'trigger' AS trigger, origin ->> 'session_id' AS session,
           metadata ->> 'mcp_request_id' AS request
         FROM runs WHERE metadata ? 'session_id'`,
      ),
    );
    expect(rows.length).toBeGreaterThan(5);
    expect(new Set(rows.map(({ trigger }) => trigger))).toEqual(new Set(["mcp"]));
    const [session, ...others] = new Set(rows.map((row) => row.session));
    expect([session, others]).toEqual([expect.stringMatching(/^[0-9a-f-]{36}$/), []]);
    expect(new Set(rows.map((row) => row.request)).size).toBe(rows.length);
  });
});
