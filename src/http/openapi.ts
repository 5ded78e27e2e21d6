import { z } from "zod";
import { ERRORS } from "../errors.ts";
import type { Route } from "./route.ts";

/** The OpenAPI 3.1 document of these routes, made from the schemas that validate their requests. */
export function toOpenApi(
  routes: readonly Route[],
  info: { version: string; mountPrefix: string },
): object {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const path = route.path.replaceAll(/:([a-z_]+)/g, "{$1}");
    paths[path] ??= {};
    paths[path][route.method] = toOperation(route);
  }
  return {
    openapi: "3.1.0",
    info: {
      title: "Aegra",
      version: info.version,
      description: "LangGraph.js graphs over the LangGraph API.",
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    ...(info.mountPrefix !== "" && { servers: [{ url: info.mountPrefix }] }),
    paths,
    components: {
      schemas: {
        Problem: {
          type: "object",
          required: ["detail", "code", "request_id"],
          properties: {
            detail: { type: "string", description: "What is wrong, for a person." },
            code: { type: "string", enum: Object.keys(ERRORS) },
            request_id: { type: "string" },
            errors: {
              type: "array",
              description: "The fields at fault.",
              items: {
                type: "object",
                properties: { path: { type: "string" }, message: { type: "string" } },
              },
            },
          },
        },
      },
    },
  };
}

function toOperation(route: Route): object {
  const { status, description, schema, stream } = route.answer;
  const content = stream
    ? { "text/event-stream": { schema: { type: "string" } } }
    : { "application/json": { schema: schema ? toSchema(schema, "output") : {} } };
  return {
    tags: [route.tag],
    summary: route.summary,
    operationId: toOperationId(route),
    // What the on handlers of the project's authentication are asked with.
    "x-permission": route.permission,
    parameters: [
      ...toParameters(route.params, "path"),
      ...toParameters(route.query, "query"),
      ...toHeaders(route.headers),
    ],
    ...(route.body && {
      requestBody: {
        required: true,
        content: { "application/json": { schema: toSchema(route.body, "input") } },
      },
    }),
    responses: {
      [status]: { description, ...(status !== 204 && status !== 202 && { content }) },
      default: {
        description: "A refusal",
        content: { "application/json": { schema: { $ref: "#/components/schemas/Problem" } } },
      },
    },
  };
}

function toOperationId({ method, path }: Route): string {
  const words = path.split(/[/:_]/).filter(Boolean);
  return [method, ...words]
    .map((word, i) => (i === 0 ? word : word[0]!.toUpperCase() + word.slice(1)))
    .join("");
}

function toSchema(schema: z.ZodType, io: "input" | "output"): object {
  const { $schema: _dialect, ...json } = z.toJSONSchema(schema, {
    io,
    unrepresentable: "any",
    override: ({ zodSchema, jsonSchema }) => {
      if (zodSchema._zod.def.type === "date") {
        jsonSchema.type = "string";
        jsonSchema.format = "date-time";
      }
    },
  });
  return json;
}

function toHeaders(headers: Route["headers"]): object[] {
  return Object.entries(headers ?? {}).map(([name, description]) => ({
    name,
    in: "header",
    required: false,
    description,
    schema: { type: "string" },
  }));
}

function toParameters(schema: z.ZodType | undefined, where: "path" | "query"): object[] {
  if (!schema) return [];
  const { properties = {}, required = [] } = toSchema(schema, "input") as {
    properties?: Record<string, object>;
    required?: string[];
  };
  return Object.entries(properties).map(([name, property]) => ({
    name,
    in: where,
    required: where === "path" || required.includes(name),
    schema: property,
  }));
}
