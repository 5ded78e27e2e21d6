import { randomUUID } from "node:crypto";
import { gzipSync } from "node:zlib";
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { afterEach, beforeAll, expect, it } from "vitest";
import { createGraphRegistry, type LoadedGraph } from "../../src/graphs/registry.ts";
import { loadGraphs } from "../../src/graphs/load.ts";
import { openProject } from "../fixtures/project.ts";
import { describeDatabases } from "../support/databases.ts";
import { createFeed, five, registryOf, single } from "../support/graphs.ts";
import {
  collect,
  eventually,
  request,
  startServer,
  wireEvents,
  type TestServer,
} from "../support/server.ts";

/** Nothing of how the server is made may be on the wire. */
const INTERNALS =
  /node_modules|\/src\/|\.[cm]?[jt]s:\d|^\s+at |"stack"|SELECT |INSERT |aegra-test-/m;

interface Problem {
  detail: string;
  code: string;
  errors?: { path: string; message: string }[];
}

describeDatabases("bad input", (databases) => {
  const feed = createFeed();
  let server: TestServer;
  let thread_id: string;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five, feed: feed.graph }));
    ({ thread_id } = await server.client.threads.create());
  });
  // Whatever was sent: the server is up, and runs go on.
  afterEach(async () => {
    expect((await request(server.url, "/ok")).json).toEqual({ ok: true });
    expect(await server.client.runs.wait(null, "five", { input: { input: "x" } })).toMatchObject({
      input: "x",
    });
  });

  const send = async (path: string, init: Parameters<typeof request>[2] = {}) => {
    const answer = await request(server.url, path, init);
    expect(answer.text).not.toMatch(INTERNALS);
    return { ...answer, problem: answer.json as Problem };
  };

  it("refuses what is not JSON", async () => {
    for (const body of [
      '{"assistant_id": ',
      "{'a': 1}",
      "undefined",
      "\u{FEFF}\u{FEFF}{}",
      "{}{}",
    ]) {
      const { status, problem } = await send("/runs/wait", { body });
      expect({ body, status, code: problem.code }).toEqual({
        body,
        status: 422,
        code: "invalid_json",
      });
    }
    const invalid = new Uint8Array([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x3a, 0x31, 0x7d]);
    expect((await send("/threads", { body: invalid })).problem).toMatchObject({
      code: "invalid_json",
      detail: "The body is not valid UTF-8.",
    });
  });

  it("says that it reads no compressed bodies", async () => {
    const response = await fetch(`${server.url}/threads`, {
      method: "POST",
      headers: { "content-type": "application/json", "content-encoding": "gzip" },
      body: gzipSync("{}"),
    });
    expect(response.status).toBe(422);
    expect(await response.json()).toMatchObject({
      code: "invalid_json",
      detail: expect.stringContaining('Content-Encoding "gzip"') as string,
    });
  });

  it("refuses JSON that is not an object", async () => {
    for (const body of ["[]", "null", "1", '"text"', "true"]) {
      const { status } = await send("/runs/wait", { body });
      expect({ body, status }).toEqual({ body, status: 422 });
    }
  });

  it("takes an empty body for an empty object, and any content type", async () => {
    expect((await send("/threads", { method: "POST" })).status).toBe(200);
    expect((await send("/threads/search", { method: "POST", body: "  \n" })).status).toBe(200);
    for (const type of ["text/plain", "application/octet-stream", "nonsense", ""]) {
      const answer = await send("/runs/wait", {
        json: { assistant_id: "five", input: { input: "x" } },
        headers: { "content-type": type },
      });
      expect(answer.json).toMatchObject({ trail: { length: 5 } });
    }
    const { status, problem } = await send("/runs/wait", { method: "POST" });
    expect({ status, errors: problem.errors }).toMatchObject({
      status: 422,
      errors: [{ path: "assistant_id" }],
    });
  });

  it("says for each field what is wrong with it", async () => {
    const { status, problem } = await send(`/threads/${thread_id}/runs`, {
      json: {
        assistant_id: 5,
        metadata: "text",
        stream_mode: "nonsense",
        multitask_strategy: "hope",
        stream_subgraphs: "yes",
        after_seconds: -1,
        interrupt_before: 5,
        config: { recursion_limit: "many", tags: [1] },
        command: { goto: 7 },
      },
    });
    expect(status).toBe(422);
    const messages = Object.fromEntries(
      problem.errors!.map(({ path, message }) => [path, message]),
    );
    expect(problem.errors).toHaveLength(Object.keys(messages).length);
    expect(messages).toEqual({
      assistant_id: "assistant_id: Invalid input: expected string, received number",
      metadata: expect.stringContaining("expected record") as string,
      stream_mode: expect.stringMatching(/stream_mode: .*"values".*"messages-tuple"/) as string,
      multitask_strategy: expect.stringMatching(/"reject".*"rollback"/) as string,
      stream_subgraphs: expect.stringContaining("expected boolean") as string,
      after_seconds: expect.stringContaining(">=0") as string,
      interrupt_before: expect.stringMatching(/"\*".*array/) as string,
      "config.recursion_limit": expect.stringContaining("expected number") as string,
      "config.tags.0": expect.stringContaining("expected string") as string,
      "command.goto": expect.stringMatching(/string/) as string,
    });
    for (const message of Object.values(messages)) expect(problem.detail).toContain(message);
  });

  it("names what it does not support, wherever it stands", async () => {
    for (const field of ["langsmith_tracer", "on_run_completed", "nonsense", "__proto__"]) {
      const body = `{"assistant_id": "five", "input": {}, ${JSON.stringify(field)}: {"a": 1}}`;
      for (const path of [
        "/runs",
        "/runs/wait",
        "/runs/stream",
        `/threads/${thread_id}/runs`,
        `/threads/${thread_id}/runs/wait`,
      ]) {
        const { status, problem } = await send(path, { body });
        expect({ field, status, code: problem.code, detail: problem.detail }).toEqual({
          field,
          status: 422,
          code: "unsupported_field",
          detail: `Unsupported field "${field}"`,
        });
      }
    }
    for (const [path, json, name] of [
      [`/threads/${thread_id}/history`, { extract: {} }, "extract"],
      ["/runs", { assistant_id: "five", config: { nonsense: 1 } }, "config.nonsense"],
      ["/runs", { assistant_id: "five", command: { graph: "x" } }, "command.graph"],
      ["/assistants", { graph_id: "five", version: 3 }, "version"],
    ] as const) {
      const { status, problem } = await send(path, { json });
      expect({ path, status, detail: problem.detail }).toMatchObject({
        path,
        status: 422,
        detail: expect.stringContaining(`"${name}"`) as string,
      });
    }
    expect(await server.client.runs.list(thread_id)).toEqual([]);
  });

  it("names parameters of a query it does not support", async () => {
    for (const [method, path] of [
      ["GET", `/threads/${thread_id}/state?include=ttl`],
      ["GET", `/threads/${thread_id}/history?include=ttl`],
      ["GET", `/threads/${thread_id}/runs?include=ttl`],
      ["POST", `/threads/${thread_id}/runs/stream?include=ttl`],
      ["DELETE", `/threads/${randomUUID()}?include=ttl`],
    ] as const) {
      const { status, problem } = await send(path, {
        method,
        ...(method === "POST" && { json: { assistant_id: "five" } }),
      });
      expect({ path, status, detail: problem.detail }).toEqual({
        path,
        status: 422,
        detail: 'Unsupported field "include" (in the query)',
      });
    }
    // A probe may add what it likes.
    expect((await send("/ok?now=1")).status).toBe(200);
  });

  it("does not find what cannot be there", async () => {
    for (const id of [
      "nonsense",
      "..",
      "1",
      `${thread_id}0`,
      "%00",
      "%ff",
      "a%2Fb",
      "%F0%9F%98%80",
    ]) {
      const { status, problem } = await send(`/threads/${id}`);
      expect([422, 404]).toContain(status);
      expect(problem.detail).toEqual(expect.any(String));
      expect((await send(`/runs/${id}/stream`)).status).toBeGreaterThanOrEqual(404);
    }
    expect((await send("/threads/nonsense")).problem).toMatchObject({
      code: "invalid_request",
      detail: "thread_id: must be a UUID (in the path)",
    });
    for (const id of ["nonsense", "%00", "%ff", encodeURIComponent("../five")])
      expect((await send(`/assistants/${id}`)).status).toBeGreaterThanOrEqual(404);
    expect((await send(`/assistants/${"x".repeat(600)}`)).status).toBe(422);
  });

  it("does not leave its folders", async () => {
    for (const path of [
      "/docs/..%2f..%2fpackage.json",
      "/docs/%2e%2e%2fpackage.json",
      "/docs/package.json",
      "/docs/..\\package.json",
      "/docs/constructor",
      "/docs/__proto__",
      "/../../etc/passwd",
      "//etc/passwd",
    ]) {
      const { status } = await send(path);
      expect({ path, status }).toEqual({ path, status: 404 });
    }
    const raw = await rawRequest(server.url, "GET /docs/../../../package.json HTTP/1.1");
    expect(raw).toMatch(/^HTTP\/1.1 404/);
  });

  it("refuses NUL characters where they would be stored", async () => {
    for (const [path, json] of [
      ["/threads", { metadata: { a: ["b\0c"] } }],
      ["/threads", { metadata: { "a\0": 1 } }],
      ["/threads/search", { metadata: { a: "\0" } }],
      ["/assistants", { graph_id: "five", name: "a\0b" }],
      ["/assistants/search", { name: "\0" }],
      ["/runs", { assistant_id: "five", input: { input: "\0" } }],
      ["/runs", { assistant_id: "fi\0ve" }],
      ["/store/items/search", { namespace_prefix: ["a\0"] }],
    ] as const) {
      const { status, problem } = await send(path, { json });
      expect({ path, status, detail: problem.detail }).toEqual({
        path,
        status: 422,
        detail: expect.stringContaining("NUL") as string,
      });
    }
    for (const path of [
      `/store/items?namespace=a&key=%00`,
      `/store/items?namespace=%00&key=a`,
      `/threads/${thread_id}/history?before=%00`,
      `/threads/${thread_id}/state/%00`,
    ]) {
      expect({ path, status: (await send(path)).status }).toEqual({ path, status: 422 });
    }
    // The text "\u0000" is not the character.
    const text = String.raw`\u0000`;
    const kept = await send("/threads", { json: { metadata: { text } } });
    expect(kept).toMatchObject({ status: 200, json: { metadata: { text } } });
  });

  it("stores what PostgreSQL has no form for as near as it can", async () => {
    const { json } = await send("/threads", {
      body: '{"metadata": {"lone": "a\\ud800b", "emoji": "\\ud83d\\ude00", "big": 1e400, "zero": -0}}',
    });
    expect(json).toMatchObject({ metadata: { lone: "a\u{FFFD}b", emoji: "😀" } });
    const answer = await send("/runs/wait", {
      body: '{"assistant_id": "five", "input": {"input": "a\\udc00"}}',
    });
    expect(answer.status).toBe(200);
    expect(answer.json).toHaveProperty("trail");
  });

  it("refuses names that are too long", async () => {
    const long = "x".repeat(100_000);
    for (const [path, json] of [
      ["/assistants", { graph_id: long }],
      ["/assistants", { graph_id: "five", name: long }],
      ["/assistants", { graph_id: "five", description: long }],
      ["/runs", { assistant_id: long }],
      ["/runs", { assistant_id: "five", config: { tags: [long] } }],
      ["/runs", { assistant_id: "five", config: { run_name: long } }],
      ["/store/items/search", { namespace_prefix: [long] }],
    ] as const) {
      const { status, text } = await send(path, { json });
      expect({ path, status }).toEqual({ path, status: 422 });
      expect(text.length).toBeLessThan(2_000);
    }
  });

  it("refuses bodies that are too large, without reading them whole", async () => {
    const body = JSON.stringify({ metadata: { a: "x".repeat(10 * 1024 * 1024) } });
    const { status, problem } = await send("/threads", { body });
    expect({ status, code: problem.code }).toEqual({ status: 413, code: "payload_too_large" });

    // One of unknown length: the answer comes while the client would still go on.
    const { answer, sent } = await sendUntilAnswered(`${server.url}/threads`);
    expect(answer).toMatchObject({ status: 413, json: { code: "payload_too_large" } });
    expect(sent).toBeLessThan(64 * 1024 * 1024);

    const large = await send("/threads", {
      json: { metadata: { a: "x".repeat(2 * 1024 * 1024) } },
    });
    expect(large.status).toBe(200);
  });

  it("refuses bodies that are nested too deep", async () => {
    const nest = (depth: number) => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
    for (const body of [
      `{"metadata": ${nest(300)}}`,
      `{"metadata": ${nest(50_000)}}`,
      "[".repeat(100_000),
    ]) {
      const { status, problem } = await send("/threads", { body });
      expect({ status, detail: problem.detail }).toEqual({
        status: 422,
        detail: "The body is nested more than 256 levels deep.",
      });
    }
    expect((await send("/threads", { body: `{"metadata": ${nest(200)}}` })).status).toBe(200);
    // Brackets in a text are no nesting.
    expect((await send("/threads", { json: { metadata: { a: "[{".repeat(300) } } })).status).toBe(
      200,
    );
  });

  it("survives headers out of the ordinary", async () => {
    const huge = await rawRequest(server.url, `GET /ok HTTP/1.1\r\nX-Huge: ${"x".repeat(100_000)}`);
    expect(huge).toMatch(/^HTTP\/1.1 431/);
    expect(await rawRequest(server.url, "GET /ok HTTP/1.1\r\nBad Header: x")).toMatch(
      /^HTTP\/1.1 400/,
    );
    expect(await rawRequest(server.url, "NONSENSE")).toMatch(/^HTTP\/1.1 400/);
    const odd = await send("/ok", {
      headers: { "x-request-id": "a b", "last-event-id": "x", traceparent: "nonsense" },
    });
    expect(odd.status).toBe(200);
    expect(odd.headers.get("x-request-id")).not.toBe("a b");
  });

  it("forgets a client that leaves in the middle of a stream", async () => {
    const input = randomUUID();
    const { thread_id: own } = await server.client.threads.create();
    for (let index = 0; index < 20; index += 1) {
      const leaving = new AbortController();
      const path = `${server.url}/threads/${own}/runs${index === 0 ? "/stream" : ""}`;
      if (index === 0) {
        await fetch(path, {
          method: "POST",
          body: JSON.stringify({ assistant_id: "feed", input: { input } }),
          signal: leaving.signal,
        });
      } else {
        const [run] = await server.client.runs.list(own);
        await fetch(`${path}/${run!.run_id}/stream`, { signal: leaving.signal });
      }
      leaving.abort();
    }
    await feed.entered(input);
    feed.end(input);
    await eventually(async () =>
      expect(await server.client.threads.get(own)).toMatchObject({ status: "idle" }),
    );
  });
});

describeDatabases("bad graphs", (databases) => {
  it("say what went wrong, and stop nothing else", async () => {
    const project = await openProject({
      "broken.ts": 'throw new Error("The module is broken");\nexport const graph = 1;\n',
      "syntax.ts": "export const graph = {{;\n",
      "unexported.ts": "export const other = 1;\n",
    });
    const failed = await loadGraphs(
      ["broken", "syntax", "unexported", "absent"].map((id) => ({
        id,
        description: undefined,
        path: project.path(`${id}.ts`),
        exportName: "graph",
      })),
      { cwd: project.dir },
    );
    const throwing = {
      error: () => {
        throw new RangeError("An error");
      },
      text: () => {
        throw "A text";
      },
      nothing: () => {
        throw undefined;
      },
      null: () => {
        throw null;
      },
      object: () => {
        throw { a: 1 };
      },
      getters: () => {
        throw Object.defineProperties(
          {},
          Object.fromEntries(
            ["message", "name", "stack", "code", "lc_error_code", "toJSON", "error"].map((key) => [
              key,
              {
                enumerable: true,
                get() {
                  throw new Error("A getter");
                },
              },
            ]),
          ),
        );
      },
      proxy: () => {
        throw new Proxy(
          {},
          {
            get() {
              throw new Error("A trap");
            },
            getPrototypeOf() {
              throw new Error("A trap");
            },
          },
        );
      },
      asynchronous: () => Promise.reject(new Error("Later")),
      wrongUpdate: () => 5,
      unknownChannel: () => ({ nowhere: 1 }),
      circular: () => {
        const own: Record<string, unknown> = {};
        own["own"] = own;
        return { input: own };
      },
      deep: () => {
        let value: unknown = 1;
        for (let depth = 0; depth < 5_000; depth += 1) value = [value];
        return { input: value };
      },
      hostile: () => ({
        input: {
          toJSON() {
            throw new Error("No JSON");
          },
        },
      }),
      bigint: () => ({ input: 5n }),
      fn: () => ({ input: () => 1 }),
      symbol: () => ({ input: Symbol("s") }),
    };
    const graphs: LoadedGraph[] = [
      ...failed,
      ...registryEntries({
        ...Object.fromEntries(
          Object.entries(throwing).map(([name, work]) => [name, single(work as never)]),
        ),
        five,
        factory: () => {
          throw new Error("The factory is broken");
        },
        textFactory: throwing.text,
        nothingFactory: throwing.nothing,
        gettersFactory: throwing.getters,
        proxyFactory: throwing.proxy,
        emptyFactory: () => undefined,
        rejectingFactory: () => Promise.reject(new Error("Later")),
      }),
    ];
    const server = await startServer(databases, createGraphRegistry(graphs));
    const { client, url } = server;
    const known = await request(url, "/info");
    expect(known.json).toMatchObject({
      graphs: { failed: ["broken", "syntax", "unexported", "absent"] },
    });
    for (const id of ["broken", "syntax", "unexported", "absent"]) {
      for (const path of ["/runs", "/runs/wait", "/runs/stream"]) {
        const answer = await request(url, path, { json: { assistant_id: id, input: {} } });
        expect({ id, path, status: answer.status, json: answer.json }).toMatchObject({
          status: 503,
          json: {
            code: "graph_unavailable",
            detail: expect.stringContaining(`Graph "${id}" failed to load`) as string,
          },
        });
        expect(answer.text).not.toMatch(INTERNALS);
        expect(answer.text).not.toContain(project.dir);
      }
    }
    const failures = [
      "error, text, nothing, null, object, getters, proxy, asynchronous",
      "wrongUpdate, factory, emptyFactory, rejectingFactory",
      "textFactory, nothingFactory, gettersFactory, proxyFactory",
    ].flatMap((names) => names.split(", "));
    const { thread_id } = await client.threads.create();
    for (const id of failures) {
      const where = { id };
      const waited = await request(url, `/threads/${thread_id}/runs/wait`, {
        json: { assistant_id: id, input: { input: "x" } },
      });
      expect({ ...where, ...waited }).toMatchObject({
        ...where,
        status: 200,
        json: {
          __error__: {
            error: expect.any(String) as string,
            message: expect.any(String) as string,
          },
        },
      });
      expect(waited.text).not.toMatch(INTERNALS);
      const response = await fetch(`${url}/runs/stream`, {
        method: "POST",
        body: JSON.stringify({ assistant_id: id, input: { input: "x" } }),
      });
      const events = await collect(wireEvents(response));
      expect({ ...where, last: events.at(-1) }).toMatchObject({
        ...where,
        last: { event: "error" },
      });
      expect(JSON.stringify(events)).not.toMatch(INTERNALS);
      expect(await client.threads.get(thread_id)).toMatchObject({ status: "error" });
      const [run] = await client.runs.list(thread_id);
      expect({ ...where, status: run!.status }).toEqual({ ...where, status: "error" });
    }
    for (const [id, message] of [
      ["error", "An error"],
      ["textFactory", 'Graph "textFactory" could not be built: A text'],
      ["factory", 'Graph "factory" could not be built: The factory is broken'],
    ] as const) {
      expect(
        await client.runs.wait(null, id, { input: { input: "x" }, raiseError: false }),
      ).toMatchObject({ __error__: { message } });
    }
    // Values that have no JSON: the run ends, one way or the other, and its thread can be read.
    for (const id of ["unknownChannel", "circular", "deep", "hostile", "bigint", "fn", "symbol"]) {
      for (const durability of ["async", "exit"] as const) {
        const { thread_id: own } = await client.threads.create();
        const answer = await client.runs.wait(own, id, {
          input: { input: "x" },
          durability,
          raiseError: false,
        });
        expect({ id, answer }).toMatchObject({ id, answer: expect.any(Object) as object });
        const [run] = await client.runs.list(own);
        expect({ id, status: run!.status }).toEqual({
          id,
          status: expect.stringMatching(/^(success|error)$/) as string,
        });
        expect((await request(url, `/threads/${own}`)).json).toMatchObject({
          status: expect.stringMatching(/^(idle|error)$/) as string,
        });
      }
    }
    expect(await client.runs.wait(thread_id, "five", { input: { input: "x" } })).toMatchObject({
      trail: expect.arrayContaining(["five"]) as string[],
    });
    await project.close();
  });
});

function registryEntries(graphs: Record<string, unknown>): LoadedGraph[] {
  const registry = registryOf(graphs);
  return registry.ids().map((id) => registry.describe(id)!);
}

/** What comes back for a request that no client would send. */
function rawRequest(url: string, head: string): Promise<string> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), hostname);
    socket.on("data", (chunk: Buffer) => chunks.push(chunk));
    socket.on("error", () => {});
    socket.on("close", () => resolve(Buffer.concat(chunks).toString()));
    socket.write(`${head}\r\nHost: localhost\r\nConnection: close\r\n\r\n`);
  });
}

/** Sends a body that has no length and, but for a limit of 256 MB, no end. */
function sendUntilAnswered(
  url: string,
): Promise<{ answer: { status: number; json: unknown }; sent: number }> {
  return new Promise((resolve, reject) => {
    let sent = 0;
    let answered = false;
    const chunk = Buffer.alloc(64 * 1024, " ");
    const outgoing = httpRequest(url, { method: "POST" }, (response) => {
      answered = true;
      const chunks: Buffer[] = [];
      response.on("data", (data: Buffer) => chunks.push(data));
      response.on("end", () => {
        outgoing.destroy();
        const json: unknown = JSON.parse(Buffer.concat(chunks).toString());
        resolve({ answer: { status: response.statusCode ?? 0, json }, sent });
      });
    });
    outgoing.on("error", (error) => (answered ? undefined : reject(error)));
    const write = (): void => {
      while (!answered && sent < 256 * 1024 * 1024) {
        sent += chunk.length;
        if (!outgoing.write(chunk)) {
          outgoing.once("drain", write);
          return;
        }
      }
    };
    write();
  });
}
