import type { Context } from "hono";
import type { z } from "zod";
import { ServerError } from "../errors.ts";

/** How deep a body may be nested; what is deeper is an attack on somebody's recursion. */
const MAX_DEPTH = 256;

/**
 * The request's body, validated. The content type does not matter: browsers send JSON as `text/plain` to
 * save a preflight. Throws `invalid_json`, `payload_too_large`, `unsupported_field` and `invalid_request`.
 */
export async function readBody<T extends z.ZodType>(
  c: Context,
  schema: T,
  maxBytes: number,
): Promise<z.output<T>> {
  const text = await readText(c, maxBytes);
  assertDepth(text);
  let value: unknown;
  try {
    value = text.trim() === "" ? {} : JSON.parse(text);
  } catch (error) {
    throw new ServerError(
      "invalid_json",
      `The body is not valid JSON: ${(error as Error).message}`,
    );
  }
  if (text.includes("\\u0000") || text.includes("\0")) assertStorable(value, []);
  return validate(schema, withoutNulls(value), "body");
}

/** Validates path or query parameters. Throws `unsupported_field` and `invalid_request`. */
export function validate<T extends z.ZodType>(
  schema: T,
  value: unknown,
  where: "body" | "query" | "path",
): z.output<T> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const errors = parsed.error.issues.map((issue) => toFieldError(issue));
  const unsupported = errors.every((error) => error.unsupported);
  const message = errors.map((error) => error.message).join("; ");
  throw new ServerError(
    unsupported ? "unsupported_field" : "invalid_request",
    where === "body" ? message : `${message} (in the ${where})`,
    { details: errors.map(({ path, message: text }) => ({ path, message: text })) },
  );
}

interface FieldError {
  path: string;
  message: string;
  unsupported: boolean;
}

function toFieldError(issue: z.core.$ZodIssue): FieldError {
  const path = issue.path.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const names = issue.keys.map((key) => `"${[path, key].filter(Boolean).join(".")}"`);
    const plural = names.length > 1 ? "s" : "";
    return {
      path: [path, issue.keys[0]].filter(Boolean).join("."),
      message: `Unsupported field${plural} ${names.join(", ")}`,
      unsupported: true,
    };
  }
  return { path, message: `${path === "" ? "value" : path}: ${issue.message}`, unsupported: false };
}

async function readText(c: Context, maxBytes: number): Promise<string> {
  const tooLarge = (): ServerError =>
    new ServerError("payload_too_large", `The body is larger than ${maxBytes} bytes.`);
  if (Number(c.req.header("content-length") ?? 0) > maxBytes) throw tooLarge();
  const bytes = await c.req.arrayBuffer();
  if (bytes.byteLength > maxBytes) throw tooLarge();
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new ServerError("invalid_json", "The body is not valid UTF-8.");
  }
}

function assertDepth(text: string): void {
  let depth = 0;
  let inString = false;
  for (let index = 0; index < text.length; index += 1) {
    const char = text.charCodeAt(index);
    if (inString) {
      if (char === 0x5c) index += 1;
      else if (char === 0x22) inString = false;
    } else if (char === 0x22) inString = true;
    else if (char === 0x7b || char === 0x5b) {
      depth += 1;
      if (depth > MAX_DEPTH) {
        throw new ServerError(
          "invalid_request",
          `The body is nested more than ${MAX_DEPTH} levels deep.`,
        );
      }
    } else if (char === 0x7d || char === 0x5d) depth -= 1;
  }
}

/** PostgreSQL keeps no NUL in text. Said where it stands, instead of failing at the insert. */
function assertStorable(value: unknown, path: string[]): void {
  if (typeof value === "string") {
    if (!value.includes("\0")) return;
    const at = path.join(".") || "value";
    throw new ServerError(
      "invalid_request",
      `${at}: contains a NUL character, which cannot be stored.`,
      {
        details: [{ path: at, message: "contains a NUL character" }],
      },
    );
  }
  if (typeof value !== "object" || value === null) return;
  for (const [key, item] of Object.entries(value)) {
    assertStorable(key, [...path, key.replaceAll("\0", "\\0")]);
    assertStorable(item, [...path, key]);
  }
}

/** Clients send null for an option they leave out. Only at the top: deeper, null is a value. */
function withoutNulls(value: unknown): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  return Object.fromEntries(Object.entries(value).filter(([, item]) => item !== null));
}
