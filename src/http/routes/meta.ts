import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { z } from "zod";
import { ServerError } from "../../errors.ts";
import { route, type Route } from "../route.ts";

export interface MetaRouteDeps {
  info: () => object;
  openapi: () => object;
}

const ASSETS: ReadonlyMap<string, string> = new Map([
  ["swagger-ui.css", "text/css; charset=utf-8"],
  ["swagger-ui-bundle.js", "text/javascript; charset=utf-8"],
]);

/** `/ok`, `/info`, `/openapi.json` and `/docs`: for everybody, with or without authentication. */
export function metaRoutes(deps: MetaRouteDeps): Route[] {
  const common = { method: "get", tag: "Meta", permission: "public" } as const;
  return [
    route({
      ...common,
      path: "/ok",
      summary: "Tell that the server answers",
      answer: { status: 200, description: "It does", schema: z.object({ ok: z.literal(true) }) },
      handle: async () => ({ json: { ok: true } }),
    }),
    route({
      ...common,
      path: "/info",
      summary: "Versions, features, database, graphs and tracing",
      answer: { status: 200, description: "About this server" },
      handle: async () => ({ json: deps.info() }),
    }),
    route({
      ...common,
      path: "/openapi.json",
      summary: "This API as an OpenAPI document",
      answer: { status: 200, description: "The document" },
      handle: async () => ({ json: deps.openapi() }),
    }),
    route({
      ...common,
      path: "/docs",
      summary: "This API as a page",
      answer: { status: 200, description: "HTML" },
      handle: async () =>
        new Response(PAGE, { headers: { "Content-Type": "text/html; charset=utf-8" } }),
    }),
    route({
      ...common,
      path: "/docs/:asset",
      summary: "Parts of the page",
      params: z.object({ asset: z.string() }),
      answer: { status: 200, description: "A file" },
      async handle({ params }) {
        const type = ASSETS.get(params.asset);
        if (!type)
          throw new ServerError("not_found", `There is no ${params.asset.slice(0, 100)} here`);
        const folder = dirname(
          createRequire(import.meta.url).resolve("swagger-ui-dist/package.json"),
        );
        const file = await readFile(join(folder, params.asset));
        return new Response(new Uint8Array(file), {
          headers: { "Content-Type": type, "Cache-Control": "public, max-age=86400" },
        });
      },
    }),
  ];
}

/** Works offline, and wherever the API is mounted: script and style are this server's, by relative links. */
const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Aegra API</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({ url: "openapi.json", dom_id: "#ui", deepLinking: true });</script>
</body>
</html>
`;
