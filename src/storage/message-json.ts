/*
 * LangChain's `toDict` takes a message apart for its constructor: aliases, secrets and attributes of every class above
 * it, keys in snake case, values searched for what could be mistaken for LangChain's own. Nearly every message has none
 * of that, and its constructor's arguments are its wire form already: three to four times as fast (`bench/parts.ts`), for
 * every token of a stream.
 */

/** Deeper values are left to LangChain. */
const MAX_DEPTH = 32;
/** What `toDict` would write as it is. */
const SNAKE_CASE = /^_?[a-z0-9]+(?:_[a-z0-9]+)*$/;
/** Whoever has one of these on top of LangChain's own writes messages in a way of its own. */
const CUSTOMISED = ["toDict", "toJSON", "lc_attributes", "lc_secrets"] as const;

interface Message {
  lc_kwargs: Record<string, unknown>;
  lc_serializable: boolean;
  lc_aliases?: Record<string, string> | undefined;
  getType(): string;
}

/** The aliases of a class whose messages can be written here; `undefined` for a class whose cannot. */
const CLASSES = new WeakMap<object, Readonly<Record<string, string>> | undefined>();

/**
 * A LangChain message as the LangGraph API has it, `{content, id, ..., type}`, with nothing in it but plain data: what
 * `{...message.toDict().data, type}` gives. `undefined` where only `toDict` itself can tell, and for what is not a message.
 */
export function flattenMessage(object: object): Record<string, unknown> | undefined {
  if (!isMessage(object)) return undefined;
  const prototype: object = Object.getPrototypeOf(object) as object;
  if (!CLASSES.has(prototype)) CLASSES.set(prototype, aliasesOf(object));
  const aliases = CLASSES.get(prototype);
  if (aliases === undefined) return undefined;
  const { lc_kwargs: kwargs } = object;
  const own = object as unknown as Record<string, unknown>;
  const flat: Record<string, unknown> = {};
  for (const key of Object.keys(kwargs)) {
    if ((aliases[key] ?? key) !== key || !SNAKE_CASE.test(key)) return undefined;
    const value = key in own ? own[key] : kwargs[key];
    if (!isPlain(value, 0)) return undefined;
    flat[key] = value;
  }
  flat["type"] = object.getType();
  return flat;
}

function isMessage(object: object): object is Message {
  const { lc_serializable, lc_kwargs, getType } = object as Partial<Message>;
  return (
    lc_serializable === true &&
    typeof lc_kwargs === "object" &&
    lc_kwargs !== null &&
    !Array.isArray(lc_kwargs) &&
    typeof getType === "function"
  );
}

function aliasesOf(message: Message): Readonly<Record<string, string>> | undefined {
  const aliases: Record<string, string> = {};
  const owners = new Map<string, number>();
  let current: object | null = Object.getPrototypeOf(message) as object;
  while (current !== null && current !== Object.prototype) {
    for (const name of CUSTOMISED)
      if (Object.hasOwn(current, name)) owners.set(name, (owners.get(name) ?? 0) + 1);
    Object.assign(aliases, Reflect.get(current, "lc_aliases", message));
    current = Object.getPrototypeOf(current) as object | null;
  }
  return CUSTOMISED.every((name) => owners.get(name) === 1) ? aliases : undefined;
}

/** Whether a value is what JSON has, all the way down, and nothing LangChain would write otherwise. */
function isPlain(value: unknown, depth: number): boolean {
  if (typeof value === "string" || typeof value === "number" || typeof value === "boolean")
    return true;
  if (value === undefined || value === null) return true;
  if (typeof value !== "object" || depth === MAX_DEPTH) return false;
  if (Array.isArray(value)) return value.every((item) => isPlain(item, depth + 1));
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype !== Object.prototype && prototype !== null) return false;
  if ("lc" in value || "__lc_escaped__" in value || "toDict" in value || "toJSON" in value)
    return false;
  return Object.values(value).every((item) => isPlain(item, depth + 1));
}
