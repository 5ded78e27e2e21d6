import { describe, expect, it } from "vitest";
import { Outgoing } from "./outgoing.ts";
import type { StoredRecord } from "./record.ts";

/** `a1 a2 A b1` are records of the traces a and b; a capital is a root. */
function open(text: string) {
  const queue: StoredRecord[] = text.split(" ").map((name) => ({
    traceId: name.charAt(0).toLowerCase(),
    root: /^[A-Z]/.test(name),
    bytes: Buffer.from(name),
    time: 1,
  }));
  const gone: string[] = [];
  const forgotten: string[] = [];
  const outgoing = new Outgoing<StoredRecord>(
    (records) => gone.push(...records.map(nameOf)),
    (records) => forgotten.push(...records.map(nameOf)),
  );
  const take = async (maxRecords: number) => {
    const batch = await outgoing.take(
      { maxRecords, maxBytes: 1_000 },
      { peek: () => queue[0], shift: () => queue.shift() as StoredRecord },
    );
    return batch && { ...batch, names: batch.records.map(nameOf).join(" ") };
  };
  return { outgoing, take, gone, forgotten };
}

const nameOf = (record: StoredRecord): string => record.bytes.toString();

describe("what is under way", () => {
  it("goes out in order, in batches of the size asked for", async () => {
    const { take } = open("a1 a2 b1 A");
    expect((await take(3))?.names).toBe("a1 a2 b1");
  });

  it("sends a root with its children, or after them", async () => {
    const { take, outgoing } = open("a1 a2 A b1 B");
    const first = await take(2);
    const second = await take(5);
    expect(first?.names).toBe("a1 a2");
    expect(second?.names).toBe("b1 B");
    expect(await take(5)).toBeUndefined();
    expect(outgoing.waiting).toBe(0);
    first?.settle([]);
    expect(outgoing.waiting).toBe(1);
    expect((await take(5))?.names).toBe("A");
  });

  it("holds a root as long as any of its children has to be sent again", async () => {
    const { take, gone } = open("a1 a2 A");
    const first = await take(2);
    expect(await take(2)).toBeUndefined();
    first?.settle(first.records.slice(1));
    expect(gone).toEqual(["a1"]);
    const again = await take(2);
    expect(again?.names).toBe("a2");
    expect(await take(2)).toBeUndefined();
    again?.settle([]);
    expect((await take(2))?.names).toBe("A");
    expect(gone).toEqual(["a1", "a2"]);
  });

  it("sends what came back before anything newer, as it was", async () => {
    const { take } = open("a1 b1 c1");
    const first = await take(2);
    first?.settle(first.records);
    first?.settle([]);
    expect((await take(2))?.names).toBe("a1 b1");
    expect((await take(2))?.names).toBe("c1");
  });

  it("knows when its oldest was taken in", async () => {
    const { take, outgoing } = open("a1");
    expect(outgoing.oldest).toBeUndefined();
    const batch = await take(1);
    expect(outgoing.oldest).toBe(1);
    batch?.settle([]);
    expect(outgoing.oldest).toBeUndefined();
  });
});
