import { createSecretKeyTest, REDACTED, redactJsonText } from "./redact.ts";

/** How much of one value may leave the process. All lengths are in UTF-16 characters. */
export interface SerialiseLimits {
  /** The whole JSON text of one value. */
  fieldChars: number;
  /** One string inside it. */
  stringChars: number;
  /** Nesting below the value itself. */
  depth: number;
  /** Entries of one array, map or object. */
  entries: number;
  /** Entries looked at in one value, written or not, so that no value holds up the event loop. */
  work: number;
}

export const DEFAULT_LIMITS: SerialiseLimits = {
  fieldChars: 400_000,
  stringChars: 100_000,
  depth: 24,
  entries: 5_000,
  work: 20_000,
};

/** Turns any value at all into bounded JSON text. One per run: it remembers messages it has already written. */
export interface Serialiser {
  /** JSON text, or the text itself for a string; `undefined` for `undefined`. Never throws. */
  toText(value: unknown): string | undefined;
  /** JSON text; a string comes quoted. Never throws. */
  toJson(value: unknown): string;
  /** The text of a value under `key`, which decides whether it is a credential. Never throws. */
  entryText(key: string, value: unknown): string;
  /** True once anything was cut; the caller says so in the log, once. */
  readonly cut: boolean;
}

/** Gives the plain form of an object that has a better one than its own properties, such as a message. */
export type Simplify = (value: object) => { plain: unknown; stable: boolean } | undefined;

const DATA_URI_CHARS = 20_000;
const UNFIT = /[\0\p{Surrogate}]/u;

/**
 * A serialiser for values nobody vouches for: cycles, BigInt, Map, Set, Buffer, class instances, getters that
 * throw, Proxies, lone surrogates, 5 MB strings. Cuts are marked in place. Values under a key that names a
 * credential are replaced, in JSON that is the text of a string too.
 *
 * `simplify` may return `stable: true` for objects that do not change once made; their text is then
 * remembered by identity, because a LangGraph state repeats the same messages on every node.
 */
export function createSerialiser(
  options: { limits?: Partial<SerialiseLimits>; simplify?: Simplify } = {},
): Serialiser {
  const limits = { ...DEFAULT_LIMITS, ...options.limits };
  const writer = new Writer(limits, options.simplify);
  return {
    toText(value) {
      if (value === undefined) return undefined;
      if (typeof value === "string") return writer.bareText(value);
      return writer.field(value);
    },
    toJson: (value) => writer.field(value),
    entryText(key, value) {
      if (writer.isSecretKey(key) && isSecretValue(value)) return REDACTED;
      return typeof value === "string" ? writer.bareText(value) : writer.field(value);
    },
    get cut() {
      return writer.cut;
    },
  };
}

class Writer {
  readonly #limits: SerialiseLimits;
  readonly #simplify: Simplify | undefined;
  readonly isSecretKey = createSecretKeyTest();
  readonly #remembered = new WeakMap<object, string>();
  /** The first keys of objects that have too many: V8 takes 20 ms to list 100,000, on every node anew. */
  readonly #longLists = new WeakMap<object, { keys: string[]; length: number }>();
  #left = 0;
  #work = 0;
  #open: object[] = [];
  cut = false;

  constructor(limits: SerialiseLimits, simplify: Simplify | undefined) {
    this.#limits = limits;
    this.#simplify = simplify;
  }

  field(value: unknown): string {
    this.#left = this.#limits.fieldChars;
    this.#work = this.#limits.work;
    this.#open = [];
    try {
      return this.#write(value, 0) ?? "null";
    } catch {
      return '"<cannot be read>"';
    }
  }

  bareText(value: string): string {
    return redactJsonText(this.#shorten(value, this.#limits.fieldChars), this.isSecretKey);
  }

  #write(value: unknown, depth: number): string | undefined {
    switch (typeof value) {
      case "string":
        return this.#string(value);
      case "number":
        return this.#spend(Number.isFinite(value) ? String(value) : `"${value}"`);
      case "boolean":
        return this.#spend(value ? "true" : "false");
      case "bigint":
        return this.#bigint(value);
      case "undefined":
        return undefined;
      case "symbol":
        return this.#string(`<${String(value)}>`);
      case "function":
        return this.#string(this.#functionName(value));
      default:
        return value === null ? this.#spend("null") : this.#object(value as object, depth);
    }
  }

  #object(value: object, depth: number): string {
    if (this.#exhausted) return this.#mark("cut");
    const remembered = this.#remembered.get(value);
    if (remembered !== undefined && remembered.length <= this.#left) return this.#spend(remembered);
    if (this.#open.includes(value)) return this.#string("<circular>");
    if (depth > this.#limits.depth) {
      this.cut = true;
      return this.#mark("nested too deep");
    }
    // Telling what it is takes as long as writing an entry.
    this.#work -= 1;
    this.#open.push(value);
    try {
      return this.#known(value, depth);
    } catch {
      return this.#string("<cannot be read>");
    } finally {
      this.#open.pop();
    }
  }

  #known(value: object, depth: number): string {
    const simple = this.#simplify?.(value);
    if (simple !== undefined) {
      const cutBefore = this.cut;
      this.cut = false;
      const text = this.#write(simple.plain, depth) ?? "null";
      // What was cut for lack of room here may fit elsewhere, so only a whole text is remembered.
      if (simple.stable && !this.cut) this.#remembered.set(value, text);
      this.cut ||= cutBefore;
      return text;
    }
    if (Array.isArray(value)) return this.#array(value, depth);
    const special = plainForm(value, this.#limits.entries);
    return special === undefined
      ? this.#record(value, depth)
      : (this.#write(special.plain, depth) ?? "null");
  }

  #array(value: readonly unknown[], depth: number): string {
    const length = value.length;
    const parts: string[] = [];
    for (let index = 0; index < length; index += 1) {
      if (index >= this.#limits.entries || this.#exhausted) {
        parts.push(this.#mark(`${length - index} more entries cut`));
        break;
      }
      this.#left -= 1;
      this.#work -= 1;
      parts.push(this.#entry(() => value[index], depth) ?? "null");
    }
    return `[${parts.join(",")}]`;
  }

  #record(value: object, depth: number): string {
    const parts: string[] = [];
    const { keys, length } = this.#keysOf(value);
    for (let index = 0; index < length; index += 1) {
      const key = keys[index];
      if (key === undefined || this.#exhausted) {
        parts.push(`"<cut>":${this.#mark(`${length - index} more keys cut`)}`);
        break;
      }
      this.#work -= 1;
      const text = this.#entry(() => (value as Record<string, unknown>)[key], depth, key);
      if (text === undefined) continue;
      const name = quote(this.#shorten(key, 500));
      this.#left -= name.length + 2;
      parts.push(`${name}:${text}`);
    }
    return `{${parts.join(",")}}`;
  }

  /** Listing the keys is work too, whatever becomes of them. */
  #keysOf(value: object): { keys: readonly string[]; length: number } {
    const known = this.#longLists.get(value);
    if (known !== undefined) return known;
    const keys = Object.keys(value);
    const { entries } = this.#limits;
    if (keys.length <= entries) return { keys, length: keys.length };
    // What is left is enough for the first of them.
    this.#work = Math.min(this.#work, Math.max(entries, this.#work - keys.length));
    const list = { keys: keys.slice(0, entries), length: keys.length };
    this.#longLists.set(value, list);
    return list;
  }

  /** Neither room nor time for more. */
  get #exhausted(): boolean {
    return this.#left <= 0 || this.#work <= 0;
  }

  #entry(read: () => unknown, depth: number, key?: string): string | undefined {
    let inner: unknown;
    try {
      inner = read();
    } catch {
      return this.#string("<getter threw>");
    }
    if (key !== undefined && this.isSecretKey(key) && isSecretValue(inner))
      return this.#string(REDACTED);
    return this.#write(inner, depth + 1);
  }

  #bigint(value: bigint): string {
    const small = value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER;
    return small ? this.#spend(value.toString()) : this.#string(value.toString());
  }

  #functionName(value: unknown): string {
    try {
      const { name } = value as { name?: unknown };
      return typeof name === "string" && name !== "" ? `<function ${name}>` : "<function>";
    } catch {
      return "<function>";
    }
  }

  #string(value: string): string {
    const room = Math.max(0, Math.min(this.#limits.stringChars, this.#left));
    return this.#spend(quote(redactJsonText(this.#shorten(value, room), this.isSecretKey)));
  }

  #shorten(value: string, maxChars: number): string {
    let text = value;
    if (
      text.length > DATA_URI_CHARS &&
      text.startsWith("data:") &&
      text.slice(0, 200).includes(";base64,")
    ) {
      const head = text.slice(0, text.indexOf(";base64,") + 8);
      text = `${head}<${value.length - head.length} characters left out>`;
      this.cut = true;
    }
    if (text.length > maxChars) {
      this.cut = true;
      text = `${text.slice(0, maxChars)}… <cut, ${value.length} characters in all>`;
    }
    return wellFormed(text);
  }

  #mark(text: string): string {
    this.cut = true;
    return `"<${text}>"`;
  }

  #spend(text: string): string {
    this.#left -= text.length;
    return text;
  }
}

function quote(text: string): string {
  return JSON.stringify(text);
}

/** Lone surrogates and NUL are legal in JavaScript and refused, or stored as garbage, by databases behind. */
export function wellFormed(text: string): string {
  return UNFIT.test(text) ? mend(text) : text;
}

/** Unit by unit, in one pass: replacing 400,000 characters by a pattern takes 10 to 40 ms, this 3. */
function mend(text: string): string {
  const units = new Uint16Array(text.length);
  for (let at = 0; at < units.length; at += 1) {
    const unit = text.charCodeAt(at);
    const paired = isHigh(unit)
      ? isLow(text.charCodeAt(at + 1))
      : isLow(unit) && at > 0 && isHigh(units[at - 1] ?? 0);
    const fits = paired || !(unit === 0 || isHigh(unit) || isLow(unit));
    units[at] = fits ? unit : 0xff_fd;
  }
  let mended = "";
  for (let at = 0; at < units.length; at += UNITS_AT_ONCE)
    mended += String.fromCharCode(...units.subarray(at, at + UNITS_AT_ONCE));
  return mended;
}

/** As many as a call may have arguments, with room to spare. */
const UNITS_AT_ONCE = 8_192;

const isHigh = (unit: number): boolean => unit >= 0xd8_00 && unit < 0xdc_00;
const isLow = (unit: number): boolean => unit >= 0xdc_00 && unit < 0xe0_00;

/** Objects under such a key are looked into instead; numbers and flags give nothing away. */
function isSecretValue(value: unknown): boolean {
  try {
    return (
      (typeof value === "string" && value !== "") ||
      Array.isArray(value) ||
      typeof value === "function"
    );
  } catch {
    return true;
  }
}

/** The readable form of the built-in classes whose own properties say nothing. */
function plainForm(value: object, maxEntries: number): { plain: unknown } | undefined {
  if (value instanceof Date) {
    return { plain: Number.isNaN(value.getTime()) ? "<invalid date>" : value.toISOString() };
  }
  if (value instanceof Error) return { plain: errorForm(value) };
  if (value instanceof Map) return { plain: mapForm(value, maxEntries) };
  if (value instanceof Set) return { plain: setForm(value, maxEntries) };
  if (ArrayBuffer.isView(value))
    return { plain: `<${value.constructor.name}, ${value.byteLength} bytes>` };
  if (value instanceof ArrayBuffer) return { plain: `<ArrayBuffer, ${value.byteLength} bytes>` };
  if (value instanceof RegExp || value instanceof URL) return { plain: String(value) };
  if (value instanceof Promise) return { plain: "<Promise>" };
  if (value instanceof WeakMap || value instanceof WeakSet) return { plain: "<weak collection>" };
  const toJson = (value as { toJSON?: unknown }).toJSON;
  if (typeof toJson !== "function") return undefined;
  const plain: unknown = toJson.call(value);
  // An object that hands out itself, or another of its kind, would never come to an end.
  return typeof plain === "object" && plain !== null && "toJSON" in plain ? undefined : { plain };
}

/** Copies no more than will be shown, and one entry that says how many there are. */
function mapForm(value: Map<unknown, unknown>, maxEntries: number): unknown {
  const plain = Object.create(null) as Record<string, unknown>;
  let count = 0;
  for (const [key, inner] of value) {
    if (count >= maxEntries) {
      plain["<cut>"] = `<${value.size - count} more keys cut>`;
      break;
    }
    const name =
      typeof key === "object" && key !== null
        ? `<${key.constructor?.name ?? "object"}>`
        : String(key);
    plain[name in plain ? `${name} (${count})` : name] = inner;
    count += 1;
  }
  return plain;
}

function setForm(value: Set<unknown>, maxEntries: number): unknown[] {
  const plain: unknown[] = [];
  for (const entry of value) {
    if (plain.length >= maxEntries) {
      plain.push(`<${value.size - maxEntries} more entries cut>`);
      break;
    }
    plain.push(entry);
  }
  return plain;
}

function errorForm(error: Error): unknown {
  return {
    name: error.name,
    message: error.message,
    ...("code" in error ? { code: error.code } : {}),
    ...(error.cause === undefined ? {} : { cause: error.cause }),
  };
}
