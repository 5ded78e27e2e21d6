import { AIMessage, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { Command, Send } from "@langchain/langgraph";
import { describe, expect, test } from "vitest";
import { simplifyLangChain } from "./messages.ts";
import { createSerialiser, DEFAULT_LIMITS } from "./serialise.ts";

const toJson = (value: unknown): unknown =>
  JSON.parse(createSerialiser({ simplify: simplifyLangChain }).toJson(value));

describe("readable forms", () => {
  test("plain values are JSON as it is", () => {
    const value = { a: [1, -2.5, true, null, "x"], b: { c: "ü€😀" } };
    expect(toJson(value)).toEqual(value);
    expect(toJson({ gone: undefined, list: [undefined, 1] })).toEqual({ list: [null, 1] });
  });

  test("values JSON has no form for", () => {
    const value = {
      big: 10n,
      huge: 2n ** 80n,
      nan: Number.NaN,
      when: new Date(0),
      never: new Date(Number.NaN),
      map: new Map<unknown, unknown>([
        ["k", 1],
        [{ o: 1 }, 2],
      ]),
      set: new Set([1, 2]),
      bytes: Buffer.from("hello"),
      pattern: /a+/g,
      fn: function named() {},
      symbol: Symbol("s"),
      error: new TypeError("bad", { cause: "why" }),
      url: new URL("http://a.test/"),
    };
    expect(toJson(value)).toEqual({
      big: 10,
      huge: "1208925819614629174706176",
      nan: "NaN",
      when: "1970-01-01T00:00:00.000Z",
      never: "<invalid date>",
      map: { k: 1, "<Object>": 2 },
      set: [1, 2],
      bytes: "<Buffer, 5 bytes>",
      pattern: "/a+/g",
      fn: "<function named>",
      symbol: "<Symbol(s)>",
      error: { name: "TypeError", message: "bad", cause: "why" },
      url: "http://a.test/",
    });
  });

  test("messages, commands and sends", () => {
    const call = { name: "add", args: { a: 1 }, id: "c1", type: "tool_call" as const };
    expect(
      toJson([
        new HumanMessage("hi"),
        new AIMessage({ content: "", tool_calls: [call] }),
        new ToolMessage({ content: "3", tool_call_id: "c1", name: "add" }),
        new Command({ goto: "next", update: { n: 1 } }),
        new Send("work", { item: 1 }),
      ]),
    ).toEqual([
      { role: "user", content: "hi" },
      { role: "assistant", content: "", tool_calls: [call] },
      { role: "tool", name: "add", content: "3", tool_call_id: "c1" },
      { update: { n: 1 }, goto: "next" },
      { send_to: "work", args: { item: 1 } },
    ]);
  });

  test("a string is its own text", () => {
    const serialiser = createSerialiser();
    expect(serialiser.toText("plain")).toBe("plain");
    expect(serialiser.toText(undefined)).toBeUndefined();
    expect(serialiser.toText(null)).toBe("null");
  });
});

describe("hostile values", () => {
  test("cycles, also through classes and maps, come to an end", () => {
    const cycle: Record<string, unknown> = { name: "a" };
    cycle["self"] = cycle;
    const map = new Map<string, unknown>();
    map.set("me", map);
    expect(toJson({ cycle, map })).toEqual({
      cycle: { name: "a", self: "<circular>" },
      map: { me: "<circular>" },
    });
  });

  test("the same object twice is no cycle", () => {
    const shared = { n: 1 };
    expect(toJson([shared, shared])).toEqual([{ n: 1 }, { n: 1 }]);
  });

  test("getters, proxies and toJSON that throw", () => {
    const trap = new Proxy(
      {},
      {
        ownKeys: () => {
          throw new Error("no");
        },
        get: () => {
          throw new Error("no");
        },
        getPrototypeOf: () => {
          throw new Error("no");
        },
      },
    );
    const value = {
      get bad() {
        throw new Error("no");
      },
      good: 1,
      trap,
      json: {
        toJSON() {
          throw new Error("no");
        },
      },
      self: {
        toJSON() {
          return this;
        },
      },
    };
    const result = toJson(value) as Record<string, unknown>;
    expect(result).toMatchObject({
      bad: "<getter threw>",
      good: 1,
      trap: "<cannot be read>",
      json: "<cannot be read>",
    });
  });

  test("revoked proxies, at the top and inside", () => {
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    expect(createSerialiser().toJson(proxy)).toBe('"<cannot be read>"');
    expect(toJson({ proxy })).toEqual({ proxy: "<cannot be read>" });
  });

  test("lone surrogates and NUL never leave", () => {
    const text = createSerialiser().toJson({ ["\uD800k"]: "a\uDC00b\0c", pair: "😀" });
    expect(text).not.toMatch(/\\u0000|\\ud[89a-f]/i);
    expect(text).toContain("😀");
  });

  test("depth, entries, long strings and long fields are cut with a mark", () => {
    let deep: unknown = "bottom";
    for (let level = 0; level < 5_000; level += 1) deep = { deep };
    const serialiser = createSerialiser();
    expect(serialiser.toJson(deep)).toContain("nested too deep");
    expect(serialiser.cut).toBe(true);
    expect(toJson(Array.from({ length: 20_000 }, () => 1))).toHaveLength(
      DEFAULT_LIMITS.entries + 1,
    );
    const long = createSerialiser().toJson({ text: "x".repeat(5_000_000) });
    expect(long.length).toBeLessThan(DEFAULT_LIMITS.stringChars + 200);
    expect(long).toContain("5000000 characters in all");
    expect(createSerialiser().toText("y".repeat(5_000_000))?.length).toBeLessThan(
      DEFAULT_LIMITS.fieldChars + 100,
    );
  });

  test("huge maps and sets are copied no further than they are shown", () => {
    const numbers = Array.from({ length: 50_000 }, (_, index) => index);
    const map = toJson(new Map(numbers.map((index) => [index, index]))) as Record<string, unknown>;
    expect(Object.keys(map)).toHaveLength(DEFAULT_LIMITS.entries + 1);
    expect(map["<cut>"]).toContain("more keys cut");
    expect(toJson(new Set(numbers))).toHaveLength(DEFAULT_LIMITS.entries + 1);
  });

  test("many small things are cut by their number", () => {
    const serialiser = createSerialiser();
    const text = serialiser.toJson(
      Array.from({ length: 1_000 }, () => Array.from({ length: 1_000 }, () => ({}))),
    );
    expect(text.length).toBeLessThan(DEFAULT_LIMITS.work * 4);
    expect(text).toContain("more entries cut");
    expect(serialiser.cut).toBe(true);
  });

  test("an object of 100,000 keys is listed once in a run, and read as far as it is shown", () => {
    let listed = 0;
    let read = 0;
    const keys = Array.from({ length: 100_000 }, (_, index) => `key${index}`);
    const crowd = new Proxy(Object.fromEntries(keys.map((key) => [key, 1])), {
      ownKeys: (target) => ((listed += 1), Reflect.ownKeys(target)),
      get: (target, key, receiver) => ((read += 1), Reflect.get(target, key, receiver) as unknown),
    });
    const serialiser = createSerialiser();
    for (let node = 0; node < 5; node += 1) {
      const shown = JSON.parse(serialiser.toJson({ crowd, again: crowd })) as {
        crowd: Record<string, unknown>;
      };
      expect(Object.keys(shown.crowd)).toHaveLength(DEFAULT_LIMITS.entries + 1);
      expect(shown.crowd["<cut>"]).toBe("<95000 more keys cut>");
    }
    expect(listed).toBe(1);
    expect(read).toBeLessThan(5 * 2.1 * DEFAULT_LIMITS.entries);
  });

  test("what replaces NUL and halves of pairs leaves whole pairs and everything else", () => {
    const text = "\0a\ud83d\ude00\ud83d\ude00\ude00\ud83d\ud83d\ude00b\ud83d".repeat(3_000);
    const mended = "\ufffda😀😀\ufffd\ufffd😀b\ufffd".repeat(3_000);
    expect(createSerialiser().toText(text)).toBe(mended);
  });

  test("a cut between the halves of a surrogate pair leaves no half", () => {
    const serialiser = createSerialiser({ limits: { stringChars: 3 } });
    expect(serialiser.toJson("ab😀😀")).not.toMatch(/\\ud/i);
  });
});

test("credentials are replaced wherever their key is", () => {
  const value = {
    headers: { Authorization: "Bearer x", "x-api-key": "k", cookie: "c", accept: "*/*" },
    apiKey: "k",
    clientSecret: "s",
    access_token: "t",
    password: "p",
    max_tokens: 5,
    next_page_token: "n",
    tokens: 3,
    token: "",
  };
  expect(toJson(value)).toEqual({
    headers: {
      Authorization: "<redacted>",
      "x-api-key": "<redacted>",
      cookie: "<redacted>",
      accept: "*/*",
    },
    apiKey: "<redacted>",
    clientSecret: "<redacted>",
    access_token: "<redacted>",
    password: "<redacted>",
    max_tokens: 5,
    next_page_token: "n",
    tokens: 3,
    token: "",
  });
});

test("messages are written once per run and remembered", () => {
  let reads = 0;
  const message = new HumanMessage("hi");
  const getType = message.getType.bind(message);
  Object.defineProperty(message, "getType", { value: () => ((reads += 1), getType()) });
  const serialiser = createSerialiser({ simplify: simplifyLangChain });
  const once = serialiser.toJson([message]);
  expect(serialiser.toJson([message, message])).toBe(`${once.slice(0, -1)},${once.slice(1)}`);
  expect(reads).toBe(1);
});

test("any value at all gives bounded, well-formed JSON", () => {
  for (let seed = 1; seed <= 1_500; seed += 1) {
    const limits = { fieldChars: 2_000, stringChars: 300, depth: 8, entries: 50 };
    const serialiser = createSerialiser({ limits, simplify: simplifyLangChain });
    const text = serialiser.toJson(anyValue(randomFrom(seed), 0));
    expect(() => JSON.parse(text) as unknown, `seed ${seed}`).not.toThrow();
    // Marks and the closing of what is open come on top of the limit.
    expect(text.length, `seed ${seed}`).toBeLessThan(limits.fieldChars * 4);
    expect(/\\u0000|\\ud[89a-f]/i.test(text.replaceAll("\\\\", "")), `seed ${seed}`).toBe(false);
  }
});

/** A small generator of pseudo-random numbers, so that a failing seed can be run again. */
function randomFrom(seed: number): (below: number) => number {
  let state = seed * 2_654_435_761;
  return (below) => {
    state = (Math.imul(state ^ (state >>> 15), 1 | state) + 0x6d2b79f5) | 0;
    return Math.abs(state ^ (state >>> 14)) % below;
  };
}

const POOL: unknown[] = [];

function anyValue(random: (below: number) => number, depth: number): unknown {
  const list = (): unknown[] =>
    Array.from({ length: random(8) }, () => anyValue(random, depth + 1));
  const made = make(random(depth > 10 ? 9 : 21), random, list, depth);
  if (random(4) === 0 && POOL.length < 1_000) POOL.push(made);
  return made;
}

function make(
  kind: number,
  random: (below: number) => number,
  list: () => unknown[],
  depth: number,
): unknown {
  const text = (): string =>
    Array.from({ length: random(40) }, () =>
      String.fromCharCode(random(6) === 0 ? 0xd800 + random(0x800) : random(0x250)),
    ).join("");
  switch (kind) {
    case 0:
      return undefined;
    case 1:
      return null;
    case 2:
      return random(1_000_000) / 7;
    case 3:
      return [Number.NaN, Number.POSITIVE_INFINITY, -0][random(3)];
    case 4:
      return BigInt(random(1_000)) ** BigInt(random(20));
    case 5:
      return text().repeat(1 + random(100));
    case 6:
      return [Symbol("x"), () => 1, class Named {}][random(3)];
    case 7:
      return new Date(random(2) === 0 ? Number.NaN : random(1_000_000));
    case 8:
      return Buffer.from(text());
    case 9:
      return list();
    case 10:
      return new Map(list().map((value) => [random(2) === 0 ? text() : value, value]));
    case 11:
      return new Set(list());
    case 12:
      return new AIMessage({ content: text(), additional_kwargs: { deep: list() } });
    case 13:
      return new Error(text(), { cause: anyValue(random, depth + 1) });
    case 14:
      return Object.create(
        { inherited: 1 },
        { own: { value: list(), enumerable: true } },
      ) as object;
    case 15:
      return new Proxy(
        { a: list() },
        random(2) === 0
          ? {}
          : {
              get: () => {
                throw new Error("trap");
              },
            },
      );
    case 16:
      return {
        get thrown() {
          throw new Error("getter");
        },
        list: list(),
      };
    case 17:
      return POOL[random(POOL.length + 1)];
    case 18: {
      const cycle: Record<string, unknown> = { list: list() };
      cycle[text()] = cycle;
      return cycle;
    }
    case 19:
      return {
        lc: 1,
        type: "constructor",
        id: ["langchain", text()],
        kwargs: anyValue(random, depth + 1),
      };
    default:
      return Object.fromEntries(list().map((value) => [text(), value]));
  }
}

test("credentials in JSON that is the text of a string are replaced, and nothing else", () => {
  const serialiser = createSerialiser();
  const text = '{"user": "ann", "apiKey" : "sk-\\"1", "max_tokens": "5", "n":1,"password":"';
  expect(serialiser.toText(text)).toBe(
    '{"user": "ann", "apiKey" : "<redacted>", "max_tokens": "5", "n":1,"password":"<redacted>"',
  );
  expect(serialiser.toJson({ content: '{"access_token":"abc"}' })).toBe(
    JSON.stringify({ content: '{"access_token":"<redacted>"}' }),
  );
  const cut = createSerialiser({ limits: { stringChars: 30 } });
  expect(cut.toJson({ content: `{"password":"${"s".repeat(40)}"}` })).not.toContain("ssss");
  for (const prose of ['He said: "token": fine', "the password: hunter2", '{"token": 5}'])
    expect(serialiser.toText(prose)).toBe(prose);
});
