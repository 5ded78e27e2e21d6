import { ServerError } from "../errors.ts";
import { flattenMessage } from "./message-json.ts";

/** PostgreSQL's own recursion, and JavaScript's, end somewhere above this. */
const MAX_DEPTH = 1_000;

/**
 * The text of a `json` or `jsonb` parameter: what `toWireJson` gives, but for what `jsonb` refuses: NUL characters and
 * lone surrogates become U+FFFD.
 *
 * @throws ServerError `invalid_request` when the value is nested deeper than 1,000 levels.
 */
export function toJson(value: unknown): string {
  const text = toWireJson(value);
  return text.includes(String.raw`\u`) ? withoutRefused(text) : text;
}

/**
 * JSON as clients get it: what `JSON.stringify` gives, except that
 * - LangChain messages are flat, `{type, content, id, ...}`, as the LangGraph API has them;
 * - what JSON has no word for is written so that it can be read: BigInt as a string, Map as an object (as an
 *   array of entries where a key is not a string), Set as an array, Error as `{error, message}`, bytes as
 *   base64, a cycle as "[Circular]", a missing value as null.
 *
 * Half of a surrogate pair stays what it is: a model's tokens may part a pair, and whoever joins them has it whole.
 *
 * @throws ServerError `invalid_request` when the value is nested deeper than 1,000 levels.
 */
export function toWireJson(value: unknown): string {
  // `stringify` has no text for undefined and functions, which its type does not say.
  const text = JSON.stringify(toPlain(value, [])) as string | undefined;
  return text ?? "null";
}

/**
 * In JSON text a refused character is always an escape of six characters. A backslash before it may itself be
 * escaped, so pairs of backslashes are matched first and left alone.
 */
function withoutRefused(text: string): string {
  return text.replaceAll(/\\\\|\\u0000|\\ud[89a-f][0-9a-f]{2}/g, (match) =>
    match === "\\\\" ? match : "\u{FFFD}",
  );
}

/** The value itself where `JSON.stringify` does the right thing with all of it, else a copy of that path. */
function toPlain(value: unknown, ancestors: object[]): unknown {
  if (typeof value === "bigint") return value.toString();
  if (typeof value !== "object" || value === null) return value;
  if (ancestors.includes(value)) return "[Circular]";
  if (ancestors.length >= MAX_DEPTH) {
    throw new ServerError(
      "invalid_request",
      `The value is nested deeper than ${MAX_DEPTH} levels, which the database does not store.`,
    );
  }
  ancestors.push(value);
  const plain = Array.isArray(value)
    ? toPlainArray(value, ancestors)
    : toPlainObject(value, ancestors);
  ancestors.pop();
  return plain;
}

function toPlainArray(array: unknown[], ancestors: object[]): unknown[] {
  let copy: unknown[] | undefined;
  for (let index = 0; index < array.length; index += 1) {
    const item = array[index];
    const plain = toPlain(item, ancestors);
    if (plain === item) continue;
    copy ??= [...array];
    copy[index] = plain;
  }
  return copy ?? array;
}

function toPlainObject(object: object, ancestors: object[]): unknown {
  const prototype: unknown = Object.getPrototypeOf(object);
  if (prototype !== Object.prototype && prototype !== null) {
    const message = flattenMessage(object);
    if (message !== undefined) return message;
    const converted = convert(object);
    if (converted !== object) return toPlain(converted, ancestors);
  } else if ("toDict" in object || "toJSON" in object) {
    const converted = callConversion(object);
    if (converted !== object) return toPlain(converted, ancestors);
  }
  let copy: Record<string, unknown> | undefined;
  for (const [key, item] of Object.entries(object) as [string, unknown][]) {
    const plain = toPlain(item, ancestors);
    if (plain === item) continue;
    // No prototype: a key named __proto__ must stay a key.
    copy ??= Object.assign(Object.create(null) as Record<string, unknown>, object);
    copy[key] = plain;
  }
  return copy ?? object;
}

/** An instance of a class as plain data; the instance itself where its own properties are that data. */
function convert(object: object): unknown {
  if (object instanceof Map) {
    const entries = [...object] as [unknown, unknown][];
    return entries.every(([key]) => typeof key === "string")
      ? Object.fromEntries(entries)
      : entries;
  }
  if (object instanceof Set) return [...object];
  if (ArrayBuffer.isView(object)) {
    return Buffer.from(object.buffer, object.byteOffset, object.byteLength).toString("base64");
  }
  if (object instanceof ArrayBuffer) return Buffer.from(object).toString("base64");
  const converted = callConversion(object);
  if (converted === object && object instanceof Error) {
    return { error: object.name, message: object.message };
  }
  return converted;
}

/** `toDict` is what LangChain's messages have; `toJSON` is JavaScript's convention, dates included. */
function callConversion(object: {
  toDict?: unknown;
  toJSON?: unknown;
  content?: unknown;
}): unknown {
  if (typeof object.toDict === "function") {
    const dict = (object as { toDict: () => unknown }).toDict();
    // A message that was made of content blocks has its content nowhere else, and clients read nothing else.
    if (isMessageDict(dict)) return { content: object.content, ...dict.data, type: dict.type };
  }
  if (object instanceof Date) return Number.isNaN(object.getTime()) ? null : object.toISOString();
  if (typeof object.toJSON === "function") return (object as { toJSON: () => unknown }).toJSON();
  return object;
}

function isMessageDict(dict: unknown): dict is { type: unknown; data: object } {
  return typeof dict === "object" && dict !== null && "type" in dict && "data" in dict;
}
