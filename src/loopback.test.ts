import { afterEach, expect, test } from "vitest";

import { openLoopback, type Loopback } from "./loopback.ts";

const FETCH = Symbol.for("langgraph_api:fetch");
const place = globalThis as { [FETCH]?: typeof fetch };
const opened: Loopback[] = [];

afterEach(() => {
  for (const loopback of opened.splice(0)) loopback.close();
});

/** A server that answers with its name and the path it was asked for. */
function open(name: string): Loopback {
  const loopback = openLoopback();
  loopback.bind((request) => new Response(`${name} ${new URL(request.url).pathname}`));
  opened.push(loopback);
  return loopback;
}

const ask = async (path: string): Promise<string> =>
  (await place[FETCH]!(`http://localhost:8123${path}`)).text();

test("work of a server reaches that server, also from a client that was made before", async () => {
  const a = open("a");
  const b = open("b");
  const made = place[FETCH]!;
  expect(await a.within(() => ask("/x"))).toBe("a /x");
  expect(await b.within(() => ask("/y"))).toBe("b /y");
  const later = await b.within(async () => {
    await new Promise((resolve) => setTimeout(resolve, 1));
    return (await made("http://localhost:8123/later")).text();
  });
  expect(later).toBe("b /later");
});

test("work of none reaches the only server, and is told where there are several", async () => {
  open("a");
  expect(await ask("/x")).toBe("a /x");
  const b = open("b");
  await expect(ask("/x")).rejects.toThrow("Several Aegra servers run in this process");
  b.close();
  expect(await ask("/x")).toBe("a /x");
});

test("a closed server is not reached, and the last one takes everything away", async () => {
  const before = (): Promise<Response> => Promise.resolve(new Response("before"));
  place[FETCH] = before as typeof fetch;
  try {
    const a = open("a");
    const b = open("b");
    a.close();
    a.close();
    expect(await a.within(() => ask("/x"))).toBe("b /x");
    b.close();
    expect(place[FETCH]).toBe(before);
  } finally {
    delete place[FETCH];
  }
  const c = openLoopback();
  opened.push(c);
  await expect(ask("/x")).rejects.toThrow("it is starting or has been closed");
  c.close();
  expect(place[FETCH]).toBeUndefined();
});

test("an aborted request rejects, and its answer is given up", async () => {
  const loopback = openLoopback();
  opened.push(loopback);
  let cancelled = 0;
  const endless = (): Response =>
    new Response(new ReadableStream({ cancel: () => void (cancelled += 1) }));
  loopback.bind(endless);
  const controller = new AbortController();
  const response = await place[FETCH]!("http://x/", { signal: controller.signal });
  const reading = response.text();
  controller.abort(new Error("enough"));
  await expect(reading).rejects.toThrow("enough");
  expect(cancelled).toBe(1);

  let answerLate = (_: Response): void => {};
  loopback.bind(() => new Promise((resolve) => (answerLate = resolve)));
  const second = new AbortController();
  const waiting = place[FETCH]!("http://x/", { signal: second.signal });
  second.abort(new Error("too late"));
  await expect(waiting).rejects.toThrow("too late");
  answerLate(endless());
  await expect.poll(() => cancelled).toBe(2);
  await expect(place[FETCH]!("http://x/", { signal: second.signal })).rejects.toThrow("too late");
});
