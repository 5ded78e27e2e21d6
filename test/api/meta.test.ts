import { beforeAll, expect, it } from "vitest";
import { z } from "zod";
import { describeDatabases } from "../support/databases.ts";
import { five, registryOf } from "../support/graphs.ts";
import { request, startServer, type TestServer } from "../support/server.ts";

interface Operation {
  operationId: string;
  tags: string[];
  summary: string;
  parameters: { name: string; in: string; required: boolean; schema: object }[];
  requestBody?: { content: Record<string, { schema: object }> };
  responses: Record<string, { description: string; content?: Record<string, { schema: object }> }>;
}
interface OpenApi {
  openapi: string;
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, object> };
}

describeDatabases("about the server", (databases) => {
  let server: TestServer;
  beforeAll(async () => {
    server = await startServer(databases, registryOf({ five }));
  });

  it("says that it is there, and what it is", async () => {
    expect(await request(server.url, "/ok")).toMatchObject({ status: 200, json: { ok: true } });
    expect((await request(server.url, "/info")).json).toMatchObject({
      version: expect.stringMatching(/^\d+\.\d+\.\d+/) as string,
      langgraph_js_version: expect.stringMatching(/^1\./) as string,
      flags: { assistants: true },
      database: databases.kind,
      graphs: { loaded: ["five"], failed: [] },
    });
    const head = await fetch(`${server.url}/ok`, { method: "HEAD" });
    expect(head.status).toBe(200);
    expect(await head.text()).toBe("");
  });

  it("describes every route in a valid OpenAPI document", async () => {
    const { json } = await request(server.url, "/openapi.json");
    const document = json as OpenApi;
    expect(document.openapi).toMatch(/^3\.1\./);
    expect(document.info).toMatchObject({ title: "Aegra", version: expect.any(String) as string });
    const operations = Object.entries(document.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, operation]) => ({ path, method, operation })),
    );
    const ids = operations.map(({ operation }) => operation.operationId);
    expect(new Set(ids).size).toBe(ids.length);
    for (const { path, method, operation } of operations) {
      const where = `${method} ${path}`;
      expect({ where, method }).toMatchObject({
        method: expect.stringMatching(/^(get|put|post|patch|delete)$/) as string,
      });
      expect({ where, summary: operation.summary }).toMatchObject({
        summary: expect.stringMatching(/./) as string,
      });
      // A path names its parameters, each once, and they are required.
      const named = [...path.matchAll(/\{([^}]+)\}/g)].map(([, name]) => name);
      const described = operation.parameters.filter((parameter) => parameter.in === "path");
      expect({ where, names: described.map(({ name }) => name) }).toEqual({ where, names: named });
      for (const parameter of described) expect(parameter.required).toBe(true);
      const schemas = [
        ...operation.parameters.map(({ schema }) => schema),
        ...Object.values(operation.requestBody?.content ?? {}).map(({ schema }) => schema),
        ...Object.values(operation.responses).flatMap(({ content }) =>
          Object.values(content ?? {}).map(({ schema }) => schema),
        ),
      ];
      for (const schema of schemas) {
        expect({ where, compiles: compiles(schema, document) }).toEqual({ where, compiles: true });
      }
      const codes = Object.keys(operation.responses);
      expect({ where, codes }).toEqual({ where, codes: expect.arrayContaining(["default"]) as [] });
    }
  });

  it("answers every route of the document, and none that is not in it", async () => {
    const { json } = await request(server.url, "/openapi.json");
    for (const [path, methods] of Object.entries((json as OpenApi).paths)) {
      const filled = path.replaceAll(/\{[^}]+\}/g, "00000000-0000-0000-0000-000000000000");
      for (const method of ["get", "put", "post", "patch", "delete"]) {
        const answer = await request(server.url, filled, {
          method: method.toUpperCase(),
          ...(method !== "get" && { json: { nonsense: true } }),
        });
        const known = method in methods;
        expect({ method, path, status: answer.status }).toEqual({
          method,
          path,
          status: known
            ? (expect.not.toBeOneOf([405, 500]) as number)
            : (expect.toBeOneOf([405, 422, 404]) as number),
        });
      }
    }
  });

  it("says in JSON what there is not, and how to ask", async () => {
    const missing = await request(server.url, "/nowhere", {
      headers: { "x-request-id": "mine-1" },
    });
    expect(missing).toMatchObject({
      status: 404,
      json: { detail: "There is no GET /nowhere", code: "not_found", request_id: "mine-1" },
    });
    expect(missing.headers.get("content-type")).toMatch(/^application\/json/);
    expect(missing.headers.get("x-request-id")).toBe("mine-1");
    const wrong = await request(server.url, "/threads", { method: "PUT" });
    expect(wrong).toMatchObject({
      status: 405,
      json: { code: "method_not_allowed", detail: "PUT is not allowed here; use POST." },
    });
    expect(wrong.headers.get("allow")).toBe("POST");
    const several = await request(server.url, "/threads/00000000-0000-0000-0000-000000000000", {
      method: "PUT",
    });
    expect(several.headers.get("allow")!.split(", ").toSorted()).toEqual([
      "DELETE",
      "GET",
      "PATCH",
    ]);
    const own = await request(server.url, "/ok");
    expect(own.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
  });

  it("has a page of its API that needs nothing from elsewhere", async () => {
    const page = await request(server.url, "/docs");
    expect(page.headers.get("content-type")).toMatch(/^text\/html/);
    expect(page.text).not.toMatch(/(src|href)="(https?:)?\/\//);
    const assets = [...page.text.matchAll(/(?:src|href)="(docs\/[^"]+)"/g)].map(
      ([, path]) => path!,
    );
    expect(assets.length).toBeGreaterThan(1);
    for (const asset of assets) {
      const answer = await request(server.url, `/${asset}`);
      expect({ asset, status: answer.status }).toEqual({ asset, status: 200 });
      expect(answer.headers.get("content-type")).toMatch(/^text\/(css|javascript)/);
      expect(answer.text.length).toBeGreaterThan(10_000);
    }
  });

  it("may be asked by a page of another origin, also on this machine", async () => {
    const preflight = await request(server.url, "/threads/x/runs/stream", {
      method: "OPTIONS",
      headers: {
        origin: "https://studio.example.org",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type,x-api-key,last-event-id",
        "access-control-request-private-network": "true",
      },
    });
    expect(preflight.status).toBe(204);
    expect(Object.fromEntries(preflight.headers)).toMatchObject({
      "access-control-allow-origin": "*",
      "access-control-allow-methods": expect.stringMatching(/POST.*PATCH.*DELETE/) as string,
      "access-control-allow-headers": "content-type,x-api-key,last-event-id",
      "access-control-allow-private-network": "true",
    });
    for (const [path, json] of [
      ["/threads/search", {}],
      ["/runs/stream", { assistant_id: "five", input: { input: "x" } }],
      ["/nowhere", {}],
      ["/threads/search", { limit: "x" }],
    ] as const) {
      const answer = await request(server.url, path, {
        json,
        headers: { origin: "https://studio.example.org" },
      });
      expect(answer.headers.get("access-control-allow-origin")).toBe("*");
      const exposed = answer.headers.get("access-control-expose-headers")!.toLowerCase();
      for (const header of [
        "content-location",
        "location",
        "x-pagination-total",
        "x-pagination-next",
      ])
        expect(exposed).toContain(header);
    }
  });
});

describeDatabases("cross-origin settings", (databases) => {
  it("are those of the configuration", async () => {
    const { url } = await startServer(databases, registryOf({ five }), {
      config: {
        http: {
          cors: {
            allow_origins: ["https://one.example.org"],
            allow_origin_regex: "^https://[a-z]+\\.two\\.example\\.org$",
            allow_credentials: true,
            expose_headers: ["X-Own"],
          },
        },
      },
    });
    const originOf = async (origin: string) => {
      const { headers } = await request(url, "/ok", { headers: { origin } });
      return headers.get("access-control-allow-origin");
    };
    expect(await originOf("https://one.example.org")).toBe("https://one.example.org");
    expect(await originOf("https://any.two.example.org")).toBe("https://any.two.example.org");
    expect(await originOf("https://evil.example.com")).toBeNull();
    expect(await originOf("https://one.example.org.evil.com")).toBeNull();
    const { headers } = await request(url, "/ok", {
      headers: { origin: "https://one.example.org" },
    });
    expect(headers.get("access-control-allow-credentials")).toBe("true");
    expect(headers.get("access-control-expose-headers")).toContain("X-Own");
  });
});

/** Whether a JSON Schema of the document can be made into a validator. */
function compiles(schema: object, document: OpenApi): boolean | string {
  const reference = (schema as { $ref?: string }).$ref;
  if (reference !== undefined) {
    const name = /^#\/components\/schemas\/(.+)$/.exec(reference)?.[1] ?? "";
    return name in document.components.schemas ? true : `nowhere: ${reference}`;
  }
  try {
    z.fromJSONSchema(schema as never);
    return true;
  } catch (error) {
    return String(error);
  }
}
