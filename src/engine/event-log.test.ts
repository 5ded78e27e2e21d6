import { describe, expect, it } from "vitest";
import type { RunEvent } from "../protocol/runs.ts";
import type { RunEventRepository } from "../storage/run-events.ts";
import { EventLog } from "./event-log.ts";

/** A repository that keeps its rows in memory, and fails as often as it is told to. */
class RowsInMemory implements RunEventRepository {
  readonly rows = new Map<string, RunEvent[]>();
  failures = 0;

  async append(runId: string, events: readonly RunEvent[]): Promise<void> {
    if (this.failures > 0) {
      this.failures -= 1;
      throw new Error("The database is away.");
    }
    const rows = this.rows.get(runId) ?? [];
    const fresh = events.filter(({ id }) => !rows.some((row) => row.id === id));
    this.rows.set(
      runId,
      [...rows, ...fresh].toSorted((left, right) => left.id - right.id),
    );
  }

  async read(runId: string, after: number, limit: number): Promise<RunEvent[]> {
    return (this.rows.get(runId) ?? []).filter(({ id }) => id > after).slice(0, limit);
  }

  async lastId(runId: string): Promise<number> {
    return this.rows.get(runId)?.at(-1)?.id ?? -1;
  }

  async sweep(): Promise<number> {
    return 0;
  }
}

const MEGABYTE = 1024 * 1024;

function setUp() {
  const repository = new RowsInMemory();
  return { repository, log: new EventLog({ repository, serialise: JSON.stringify }) };
}

const part = (data: unknown) => ({ event: "custom", data });

async function all(
  stream: AsyncGenerator<RunEvent[], void, void> | undefined,
): Promise<[number, unknown][]> {
  const events: [number, unknown][] = [];
  for await (const batch of stream ?? []) {
    for (const { id, data } of batch) events.push([id, JSON.parse(data)]);
  }
  return events;
}

describe("the event log", () => {
  it("numbers events from 0 and gives them to every reader, each from its own place", async () => {
    const { log } = setUp();
    expect(log.read("run", -1)).toBeUndefined();
    const writer = await log.open("run", { resumable: false, attempt: 1 });
    const early = all(log.read("run", -1));
    writer.append(part("a"));
    const middle = all(log.read("run", -1));
    const later = all(log.read("run", 0));
    writer.append(part("b"));
    writer.append(part("c"));
    await writer.close();
    const whole = [
      [0, "a"],
      [1, "b"],
      [2, "c"],
    ];
    expect(await early).toEqual(whole);
    expect(await middle).toEqual(whole);
    expect(await later).toEqual(whole.slice(1));
    expect(await all(log.read("run", -1))).toEqual(whole);
    expect(await all(log.read("run", 2))).toEqual([]);
    expect(await all(log.read("run", 500))).toEqual([]);
  });

  it("gives a slow reader all that came meanwhile, in one batch", async () => {
    const { log } = setUp();
    const writer = await log.open("run", { resumable: false, attempt: 1 });
    const reader = log.read("run", -1)!;
    writer.append(part(1));
    expect((await reader.next()).value).toHaveLength(1);
    for (let index = 0; index < 50; index += 1) writer.append(part(index));
    expect((await reader.next()).value).toHaveLength(50);
    await writer.close();
    expect((await reader.next()).done).toBe(true);
  });

  it("lets go of a reader who leaves, before or while it waits", async () => {
    const { log } = setUp();
    await log.open("run", { resumable: false, attempt: 1 });
    const leaving = new AbortController();
    const waiting = log.read("run", -1, leaving.signal)!.next();
    leaving.abort();
    expect((await waiting).done).toBe(true);
    expect((await log.read("run", -1, leaving.signal)!.next()).done).toBe(true);
  });

  it("ends its readers when a run is forgotten, and takes nothing more from the writer", async () => {
    const { log, repository } = setUp();
    const writer = await log.open("run", { resumable: true, attempt: 1 });
    writer.append(part("a"));
    await writer.flush();
    const reader = all(log.read("run", -1));
    log.forget("run");
    expect(await reader).toEqual([[0, "a"]]);
    expect(log.has("run")).toBe(false);
    writer.append(part("too late"));
    await writer.close();
    expect(repository.rows.get("run")).toHaveLength(1);
    expect(log.has("run")).toBe(false);
  });

  it("goes on counting in a later attempt, whose events are not those of the lost one", async () => {
    const { log, repository } = setUp();
    const lost = await log.open("run", { resumable: true, attempt: 1 });
    lost.append(part("a"));
    lost.append(part("b"));
    await lost.flush();
    const next = await log.open("run", { resumable: true, attempt: 2 });
    lost.append(part("of the lost one"));
    next.append(part("c"));
    await lost.close();
    await next.close();
    expect(await all(log.read("run", 1))).toEqual([[2, "c"]]);
    expect(await all(log.read("run", -1))).toEqual([
      [0, "a"],
      [1, "b"],
      [2, "c"],
    ]);
    expect(repository.rows.get("run")!.map(({ data }) => data)).toEqual(['"a"', '"b"', '"c"']);
    // Also where the earlier attempt was another process's.
    const elsewhere = new EventLog({ repository, serialise: JSON.stringify });
    const third = await elsewhere.open("run", { resumable: true, attempt: 3 });
    third.append(part("d"));
    await third.close();
    expect(await all(elsewhere.read("run", 2))).toEqual([[3, "d"]]);
  });

  it("keeps a resumable run's events in the database, also when it is away for a moment", async () => {
    const { log, repository } = setUp();
    const writer = await log.open("run", { resumable: true, attempt: 1 });
    repository.failures = 1;
    writer.append(part("a"));
    await expect(writer.flush()).rejects.toThrow("away");
    writer.append(part("b"));
    await writer.flush();
    expect(await all(log.stored("run", -1))).toEqual([
      [0, "a"],
      [1, "b"],
    ]);
    expect(await log.isStored("run")).toBe(true);
    repository.failures = 1;
    writer.append(part("c"));
    // A stream that cannot be kept ends all the same.
    await writer.close();
    expect(await all(log.read("run", 1))).toEqual([[2, "c"]]);
    const plain = await log.open("plain", { resumable: false, attempt: 1 });
    plain.append(part("a"));
    await plain.close();
    expect(await log.isStored("plain")).toBe(false);
  });

  it("reads many stored events in order", async () => {
    const { log, repository } = setUp();
    const count = 1_234;
    await repository.append(
      "run",
      Array.from({ length: count }, (_, id) => ({ id, event: "custom", data: String(id) })),
    );
    const events = await all(log.stored("run", -1));
    expect(events).toHaveLength(count);
    expect(events.every(([id, data], index) => id === index && data === index)).toBe(true);
    expect(await all(log.stored("run", count - 2))).toHaveLength(1);
  });

  it("keeps the newest 16 MB of a run in memory; the rest of a resumable one is in the database", async () => {
    for (const resumable of [true, false]) {
      const { log } = setUp();
      const writer = await log.open("run", { resumable, attempt: 1 });
      for (let index = 0; index < 40; index += 1) writer.append(part("x".repeat(MEGABYTE)));
      await writer.close();
      const ids = (await all(log.read("run", -1))).map(([id]) => id);
      expect(ids.at(-1)).toBe(39);
      expect(ids).toEqual(ids.toSorted((left, right) => left - right));
      if (resumable) expect(ids).toHaveLength(40);
      else expect(ids.length).toBeLessThanOrEqual(17);
    }
  });

  it("forgets the oldest finished runs beyond 64 MB, and no others", async () => {
    const { log } = setUp();
    const running = await log.open("running", { resumable: false, attempt: 1 });
    running.append(part("x".repeat(MEGABYTE)));
    for (let run = 0; run < 10; run += 1) {
      // What was forgotten before its writer was done counts for nothing.
      const forgotten = await log.open(`forgotten ${run}`, { resumable: false, attempt: 1 });
      for (let index = 0; index < 10; index += 1) forgotten.append(part("x".repeat(MEGABYTE)));
      log.forget(`forgotten ${run}`);
      await forgotten.close();
    }
    for (let run = 0; run < 8; run += 1) {
      const writer = await log.open(`run ${run}`, { resumable: false, attempt: 1 });
      for (let index = 0; index < 10; index += 1) writer.append(part("x".repeat(MEGABYTE)));
      await writer.close();
    }
    expect(log.has("running")).toBe(true);
    const kept = Array.from({ length: 8 }, (_, run) => log.has(`run ${run}`));
    expect(kept).toEqual([false, false, true, true, true, true, true, true]);
  });

  it("tells when a run's stream is opened, that it waited long enough, or that nobody waits", async () => {
    const { log } = setUp();
    const opened = log.whenOpened("run", 60_000);
    await log.open("run", { resumable: false, attempt: 1 });
    await opened;
    await log.whenOpened("run", 60_000);
    await log.whenOpened("another", 1);
    const leaving = new AbortController();
    const left = log.whenOpened("another", 60_000, leaving.signal);
    leaving.abort();
    await left;
  });
});
