import type { Context } from "hono";
import { z } from "zod";
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
  return validate(schema, withoutNulls(value, schema), "body");
}

/** Validates path or query parameters. Throws `unsupported_field` and `invalid_request`. */
export function validate<T extends z.ZodType>(
  schema: T,
  value: unknown,
  where: "body" | "query" | "path",
): z.output<T> {
  if (where !== "body") assertStorable(value, []);
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const errors = parsed.error.issues.flatMap((issue) => toFieldErrors(issue, []));
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

function toFieldErrors(issue: z.core.$ZodIssue, parent: PropertyKey[]): FieldError[] {
  const place = [...parent, ...issue.path];
  const path = place.map(String).join(".");
  if (issue.code === "unrecognized_keys") {
    const names = issue.keys.map((key) => `"${[path, key].filter(Boolean).join(".")}"`);
    const plural = names.length > 1 ? "s" : "";
    return [
      {
        path: [path, issue.keys[0]].filter(Boolean).join("."),
        message: `Unsupported field${plural} ${names.join(", ")}`,
        unsupported: true,
      },
    ];
  }
  const name = path === "" ? "value" : path;
  if (issue.code === "invalid_union" && issue.errors.length > 0) {
    // The form that was meant is the one that fits on the outside.
    const meant = issue.errors.find((issues) =>
      issues.every((inner) => inner.path.length > 0 || inner.code === "unrecognized_keys"),
    );
    if (meant) return meant.flatMap((inner) => toFieldErrors(inner, place));
  }
  return [{ path, message: `${name}: ${toReason(issue)}`, unsupported: false }];
}

/** What is wrong with a value; where it could have several forms, with each of them. */
function toReason(issue: z.core.$ZodIssue): string {
  if (issue.code !== "invalid_union" || issue.errors.length === 0) return issue.message;
  const reasons = issue.errors.flatMap(([first]) => (first ? toReason(first) : []));
  return [...new Set(reasons)].join(", or ");
}

async function readText(c: Context, maxBytes: number): Promise<string> {
  const tooLarge = (): ServerError =>
    new ServerError("payload_too_large", `The body is larger than ${maxBytes} bytes.`);
  const encoding = c.req.header("content-encoding") ?? "identity";
  if (encoding.toLowerCase() !== "identity") {
    throw new ServerError(
      "invalid_json",
      `The body comes with Content-Encoding "${encoding}", which this server does not read: send it as it is.`,
    );
  }
  const length = c.req.header("content-length");
  if (Number(length ?? 0) > maxBytes) throw tooLarge();
  // The HTTP parser holds a client to the length it announced; without one, only counting helps.
  // What a project's middleware has read already is kept by Hono.
  const reading =
    length === undefined && !c.req.raw.bodyUsed
      ? readAtMost(c.req.raw.body, maxBytes)
      : c.req.arrayBuffer();
  // What fails here is the client's connection.
  const bytes = await reading.catch((cause: unknown) => {
    throw new ServerError("invalid_json", "The body did not arrive as a whole.", { cause });
  });
  if (!bytes || bytes.byteLength > maxBytes) throw tooLarge();
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new ServerError("invalid_json", "The body is not valid UTF-8.");
  }
}

/** The bytes of a stream; `undefined`, with the rest unread, if there are more than `maxBytes`. */
async function readAtMost(
  body: ReadableStream<Uint8Array> | null,
  maxBytes: number,
): Promise<Uint8Array | undefined> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const reader = body?.getReader();
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done || !value) return Buffer.concat(chunks);
    size += value.byteLength;
    if (size > maxBytes) return undefined;
    chunks.push(value);
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

/**
 * Clients send null for an option they leave out. Only at the top: deeper, null is a value, and so it is for
 * an option whose schema has a meaning for it.
 */
function withoutNulls(value: unknown, schema: z.ZodType): unknown {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return value;
  const shape: Record<string, z.ZodType> = schema instanceof z.ZodObject ? schema.shape : {};
  return Object.fromEntries(
    Object.entries(value).filter(([key, item]) => item !== null || isNullable(shape[key])),
  );
}

function isNullable(schema: z.ZodType | undefined): boolean {
  if (schema instanceof z.ZodOptional) return isNullable(schema.unwrap() as z.ZodType);
  return schema instanceof z.ZodNullable;
}
