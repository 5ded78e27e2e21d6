import { expect, test } from "vitest";
import { PgliteSession } from "./pglite-session.ts";

const bytes = (text: string): Uint8Array<ArrayBuffer> => new Uint8Array(Buffer.from(text));

/** One message of the wire protocol. */
function message(type: string, body: string): Buffer {
  const head = Buffer.alloc(5);
  head.write(type, 0);
  head.writeInt32BE(4 + body.length, 1);
  return Buffer.concat([head, Buffer.from(body)]);
}

/** A session over an engine that does what the requests' texts say, and the order in which it did. */
function openSession() {
  const executed: string[] = [];
  const replies: { connection: number; text: string }[] = [];
  const failures: unknown[] = [];
  const session = new PgliteSession({
    execute: async (request, onData) => {
      const text = Buffer.from(request).toString();
      executed.push(text);
      if (text.includes("crash")) throw new Error("the engine crashed");
      onData(message("C", text));
      if (text.includes("notify")) onData(message("A", "told"));
      if (text.includes("begin")) onData(message("Z", "T"));
      else if (text.includes("fail")) onData(message("Z", "E"));
      else if (!text.includes("half")) onData(message("Z", "I"));
    },
    reply: (connection, answer) =>
      replies.push({ connection, text: Buffer.from(answer).toString("latin1") }),
    onFailure: (error) => failures.push(error),
  });
  return { session, executed, replies, failures };
}

test("answers connections in the order of their requests", async () => {
  const { session, executed, replies } = openSession();
  for (let index = 0; index < 5; index += 1) session.receive(index, bytes(`q${index}`));
  await session.idle();
  expect(executed).toEqual(["q0", "q1", "q2", "q3", "q4"]);
  expect(replies.map(({ connection }) => connection)).toEqual([0, 1, 2, 3, 4]);
});

test("lets nobody else in until a transaction has ended", async () => {
  const { session, executed } = openSession();
  session.receive(1, bytes("begin 1"));
  session.receive(2, bytes("begin 2"));
  session.receive(3, bytes("q3"));
  await session.idle();
  expect(executed).toEqual(["begin 1"]);
  session.receive(1, bytes("fail 1"));
  await session.idle();
  session.receive(1, bytes("rollback 1"));
  await session.idle();
  expect(executed).toEqual(["begin 1", "fail 1", "rollback 1", "begin 2"]);
  session.receive(2, bytes("commit 2"));
  await session.idle();
  expect(executed.slice(4)).toEqual(["commit 2", "q3"]);
});

test("lets nobody in between the halves of an exchange", async () => {
  const { session, executed } = openSession();
  session.receive(1, bytes("half"));
  session.receive(2, bytes("q2"));
  session.receive(1, bytes("sync"));
  await session.idle();
  expect(executed).toEqual(["half", "sync", "q2"]);
});

test("rolls back for a connection that is dropped, and forgets what it had queued", async () => {
  const { session, executed } = openSession();
  session.receive(1, bytes("begin"));
  await session.idle();
  session.receive(2, bytes("q2"));
  session.receive(2, bytes("q2 again"));
  session.receive(3, bytes("q3"));
  session.drop(2);
  session.drop(1);
  await session.idle();
  expect(executed.map((text) => text.replaceAll(/[^\w ]/g, ""))).toEqual([
    "begin",
    "QROLLBACK",
    "q3",
  ]);
});

test("gives notifications to the connection that asked for them, and the rest to the one that is answered", async () => {
  const { session, replies } = openSession();
  session.receive(1, bytes("notify nobody"));
  await session.idle();
  session.notify(9);
  session.receive(1, bytes("notify"));
  await session.idle();
  const told = replies.filter(({ text }) => text.includes("told"));
  expect(told.map(({ connection }) => connection)).toEqual([9]);
  expect(told[0]?.text).toBe(message("A", "told").toString("latin1"));
  expect(replies.at(-2)).toEqual({
    connection: 1,
    text: Buffer.concat([message("C", "notify"), message("Z", "I")]).toString("latin1"),
  });
  session.drop(9);
  session.receive(1, bytes("notify"));
  await session.idle();
  expect(replies.filter(({ text }) => text.includes("told"))).toHaveLength(1);
});

test("serves what arrives at any moment, also while it finishes or has nothing to do", async () => {
  const { session, replies } = openSession();
  session.drop(7);
  const rounds = 200;
  for (let round = 0; round < rounds; round += 1) {
    session.receive(1, bytes(`q${round}`));
    for (let turn = 0; turn < round % 7; turn += 1) await Promise.resolve();
    if (round % 3 === 0) session.drop(7);
  }
  await session.idle();
  expect(replies).toHaveLength(rounds);
});

test("reports a failed engine once and executes nothing more", async () => {
  const { session, executed, failures } = openSession();
  session.receive(1, bytes("crash"));
  session.receive(1, bytes("q1"));
  await new Promise((resolve) => {
    setImmediate(resolve);
  });
  session.receive(2, bytes("q2"));
  expect(executed).toEqual(["crash"]);
  expect(failures).toEqual([new Error("the engine crashed")]);
});
