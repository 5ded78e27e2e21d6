import { describe, expect, it } from "vitest";
import { createLogger } from "../observability/log.ts";
import type { RunEvent, RunStatus } from "../protocol/runs.ts";
import type { LeasedEvents, LogPage, LogState, RunEventRepository } from "../storage/run-events.ts";
import { EventLog, type TailEnd } from "./event-log.ts";
import { createRunWatch } from "./run-watch.ts";

interface Row {
  status: RunStatus;
  attempt: number;
  logged: boolean;
  events: RunEvent[];
}

/** A repository that keeps its rows in memory, and fails as often as it is told to. */
class RowsInMemory implements RunEventRepository {
  readonly runs = new Map<string, Row>();
  readonly payloads: string[] = [];
  failures = 0;
  reads = 0;
  /** The events of one page. */
  page = 500;

  put(runId: string, row: Partial<Row> = {}): Row {
    const full: Row = { status: "running", attempt: 1, logged: false, events: [], ...row };
    this.runs.set(runId, full);
    return full;
  }

  async append(parts: readonly LeasedEvents[], notify: { payloads: readonly string[] }) {
    if (this.failures > 0) {
      this.failures -= 1;
      throw new Error("The database is away.");
    }
    this.payloads.push(...notify.payloads);
    const held = parts.filter(({ lease }) => {
      const run = this.runs.get(lease.run_id);
      return run?.status === "running" && run.attempt === lease.attempt;
    });
    for (const { lease, events } of held) {
      const { events: rows } = this.runs.get(lease.run_id)!;
      rows.push(...events.filter(({ id }) => !rows.some((row) => row.id === id)));
      rows.sort((left, right) => left.id - right.id);
    }
    return new Set(held.map(({ lease }) => lease.run_id));
  }

  async read(runId: string, after: number): Promise<LogPage | undefined> {
    this.reads += 1;
    const run = this.runs.get(runId);
    if (!run) return undefined;
    const events = run.events.filter(({ id }) => id > after).slice(0, this.page);
    return { ...run, events, last: events.length < this.page };
  }

  async states(runIds: readonly string[]): Promise<LogState[]> {
    return runIds.flatMap((runId) => {
      const run = this.runs.get(runId);
      if (!run) return [];
      const { status, attempt, events } = run;
      return { run_id: runId, status, attempt, last_id: events.at(-1)?.id ?? -1 };
    });
  }

  async want(runId: string): Promise<boolean> {
    const run = this.runs.get(runId);
    if (!run || run.logged) return false;
    run.logged = true;
    return true;
  }

  async trim(runId: string, lastId: number): Promise<void> {
    const run = this.runs.get(runId)!;
    run.events = run.events.filter(({ id }) => id > lastId);
  }

  async sweep(): Promise<number> {
    return 0;
  }
}

const MEGABYTE = 1024 * 1024;

function setUp(repository = new RowsInMemory()) {
  const asked: string[] = [];
  const announced: string[] = [];
  const log = createLogger({ level: "silent", pretty: false });
  const watch = createRunWatch({
    states: (runIds) => repository.states(runIds),
    ask: () => {},
    pollMs: 5,
    log,
  });
  const events = new EventLog({
    repository,
    serialise: JSON.stringify,
    watch,
    askToLog: (runId) => asked.push(runId),
    announce: (runId) => announced.push(runId),
    alone: false,
    maxLoggedBytes: 8 * MEGABYTE,
    log,
  });
  const open = (
    runId: string,
    { logged = false, watched = false, attempt = 1 } = {},
  ): ReturnType<EventLog["open"]> => {
    const run = repository.runs.get(runId) ?? repository.put(runId);
    Object.assign(run, { attempt, logged: run.logged || logged });
    const lease = { run_id: runId, worker_id: "worker", attempt };
    return events.open(lease, { logged: run.logged, watched });
  };
  return { repository, log: events, open, asked, announced };
}

const part = (data: unknown) => ({ event: "custom", data });

async function all(
  stream: AsyncGenerator<RunEvent[], unknown, void> | undefined,
): Promise<[number, unknown][]> {
  const events: [number, unknown][] = [];
  for await (const batch of stream ?? []) {
    for (const { id, data } of batch) events.push([id, JSON.parse(data)]);
  }
  return events;
}

async function toEnd(
  stream: AsyncGenerator<RunEvent[], TailEnd, void>,
): Promise<{ ids: number[]; end: TailEnd }> {
  const ids: number[] = [];
  for (;;) {
    const { done, value } = await stream.next();
    if (done) return { ids, end: value };
    ids.push(...value.map(({ id }) => id));
  }
}

describe("the event log", () => {
  it("numbers events from 0 and gives them to every reader, each from its own place", async () => {
    const { log, open, repository } = setUp();
    expect(log.read("run", -1)).toBeUndefined();
    const writer = open("run");
    const early = all(log.read("run", -1));
    writer.append(part("a"));
    const middle = all(log.read("run", -1));
    const later = all(log.read("run", 0));
    writer.append(part("b"));
    writer.append(part("c"));
    await writer.close(true);
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
    // Nobody asked for them elsewhere.
    expect(repository.runs.get("run")!.events).toEqual([]);
  });

  it("gives a slow reader all that came meanwhile, in one batch", async () => {
    const { log, open } = setUp();
    const writer = open("run");
    const reader = log.read("run", -1)!;
    writer.append(part(1));
    expect((await reader.next()).value).toHaveLength(1);
    for (let index = 0; index < 50; index += 1) writer.append(part(index));
    expect((await reader.next()).value).toHaveLength(50);
    await writer.close(true);
    expect(await reader.next()).toEqual({ done: true, value: true });
  });

  it("lets go of a reader who leaves, before or while it waits", async () => {
    const { log, open } = setUp();
    open("run");
    const leaving = new AbortController();
    const waiting = log.read("run", -1, leaving.signal)!.next();
    leaving.abort();
    expect((await waiting).done).toBe(true);
    expect((await log.read("run", -1, leaving.signal)!.next()).done).toBe(true);
  });

  it("ends its readers when a run is forgotten, and takes nothing more from the writer", async () => {
    const { log, open, repository } = setUp();
    const writer = open("run", { logged: true });
    writer.append(part("a"));
    await writer.flush();
    const reader = all(log.read("run", -1));
    log.forget("run");
    expect(await reader).toEqual([[0, "a"]]);
    expect(log.has("run")).toBe(false);
    writer.append(part("too late"));
    await writer.close(true);
    expect(repository.runs.get("run")!.events).toHaveLength(1);
    expect(log.has("run")).toBe(false);
  });

  it("numbers each attempt from its own start, whatever the lost one had written", async () => {
    const { log, open, repository } = setUp();
    const lost = open("run", { logged: true });
    lost.append(part("a"));
    lost.append(part("b"));
    await lost.flush();
    lost.append(part("not written"));
    const next = open("run", { attempt: 2 });
    lost.append(part("of the lost one"));
    next.append(part("c"));
    await lost.close(false);
    await next.flush();
    await next.close(true);
    const whole = [
      [0, "a"],
      [1, "b"],
      [10_000_000, "c"],
    ];
    expect(await all(log.read("run", 1))).toEqual(whole.slice(2));
    expect(await all(log.read("run", 2))).toEqual(whole.slice(2));
    expect(await all(log.read("run", -1))).toEqual(whole);
    // Also where the earlier attempt was another process's.
    const elsewhere = setUp(repository);
    const third = elsewhere.open("run", { attempt: 3 });
    third.append(part("d"));
    await third.flush();
    await third.close(true);
    expect(await all(elsewhere.log.read("run", 1))).toEqual([whole[2], [20_000_000, "d"]]);
  });

  it("writes nothing of an attempt whose run is in other hands", async () => {
    const { open, repository } = setUp();
    const writer = open("run", { logged: true });
    writer.append(part("a"));
    await writer.flush();
    repository.runs.get("run")!.attempt = 2;
    writer.append(part("b"));
    await writer.flush();
    expect(repository.runs.get("run")!.events).toHaveLength(1);
  });

  it("keeps a logged run's events in the database, also when it is away for a moment", async () => {
    const { open, repository } = setUp();
    const writer = open("run", { logged: true });
    repository.failures = 1;
    writer.append(part("a"));
    await expect(writer.flush()).rejects.toThrow("away");
    writer.append(part("b"));
    await writer.flush();
    expect(repository.runs.get("run")!.events.map(({ data }) => data)).toEqual(['"a"', '"b"']);
    repository.failures = 1;
    writer.append(part("c"));
    // A stream that cannot be kept ends all the same.
    await writer.close(true);
  });

  it("keeps the newest 16 MB of a run in memory", async () => {
    const { log, open } = setUp();
    const writer = open("run");
    for (let index = 0; index < 40; index += 1) writer.append(part("x".repeat(MEGABYTE)));
    await writer.close(true);
    const ids = (await all(log.read("run", -1))).map(([id]) => id);
    expect(ids.at(-1)).toBe(39);
    expect(ids.length).toBeLessThanOrEqual(17);
    // Whoever comes back for more is told what is missing.
    const [gap, ...rest] = await all(log.read("run", 3));
    expect(gap).toEqual([rest[0]![0] - 1, { error: "EventsExpired", message: expect.any(String) }]);
  });

  it("loses nothing for a reader that is far behind: the database takes what memory cannot", async () => {
    const { log, open, repository } = setUp();
    const writer = open("run");
    const reader = log.read("run", -1)!;
    const ids: number[] = [];
    const next = async (): Promise<boolean> => {
      const { done, value } = await reader.next();
      if (!done) ids.push(...value.map(({ id }) => id));
      return !done;
    };
    writer.append(part("first"));
    await next();
    // Within what the database keeps.
    for (let index = 0; index < 200; index += 1) writer.append(part("x".repeat(MEGABYTE / 10)));
    expect(writer.logged).toBe(true);
    repository.page = 3;
    const rest = (async () => {
      while (await next());
    })();
    await writer.flush();
    await writer.close(true);
    await rest;
    expect(ids).toContain(200);
    expect(ids).toEqual(ids.toSorted((left, right) => left - right));
  });

  it("keeps so much of a run in the database, and tells who wants older events", async () => {
    const { open, repository } = setUp();
    const writer = open("run", { logged: true });
    for (let index = 0; index < 20; index += 1) {
      writer.append(part("x".repeat(MEGABYTE)));
      await writer.flush();
    }
    await writer.close(true);
    const { events } = repository.runs.get("run")!;
    expect(events.length).toBeLessThanOrEqual(8);
    expect(events.at(-1)!.id).toBe(19);
    repository.runs.get("run")!.status = "success";
    const { ids, end } = await toEnd(setUp(repository).log.tail("run", 2));
    expect(ids).toEqual([events[0]!.id - 1, ...events.map(({ id }) => id)]);
    expect(end).toEqual({ kind: "ended", complete: true });
  });

  it("forgets the oldest finished runs beyond 64 MB, and no others", async () => {
    const { log, open } = setUp();
    const running = open("running");
    running.append(part("x".repeat(MEGABYTE)));
    for (let run = 0; run < 10; run += 1) {
      // What was forgotten before its writer was done counts for nothing.
      const forgotten = open(`forgotten ${run}`);
      for (let index = 0; index < 10; index += 1) forgotten.append(part("x".repeat(MEGABYTE)));
      log.forget(`forgotten ${run}`);
      await forgotten.close(true);
    }
    for (let run = 0; run < 8; run += 1) {
      const writer = open(`run ${run}`);
      for (let index = 0; index < 10; index += 1) writer.append(part("x".repeat(MEGABYTE)));
      await writer.close(true);
    }
    expect(log.has("running")).toBe(true);
    const kept = Array.from({ length: 8 }, (_, run) => log.has(`run ${run}`));
    expect(kept).toEqual([false, false, true, true, true, true, true, true]);
  });
});

describe("the event log of a run that another process executes", () => {
  /** Two processes, `there` executes. A demand reaches it like a message. */
  const processes = () => {
    const there = setUp();
    const here = setUp(there.repository);
    const pass = (): void => {
      for (const runId of here.asked.splice(0)) {
        there.log.follow(runId);
        there.log.log(runId);
      }
    };
    return { there, here, pass, repository: there.repository };
  };

  it("is asked for, and is then whole from what was in memory on", async () => {
    const { there, here, pass, repository } = processes();
    const writer = there.open("run");
    writer.append(part("early"));
    const reading = toEnd(here.log.tail("run", -1));
    await expect.poll(() => here.asked).toEqual(["run"]);
    expect(repository.runs.get("run")!.logged).toBe(true);
    pass();
    writer.append(part("late"));
    await writer.flush();
    expect(repository.payloads).toEqual(['{"kind":"changed","run_ids":["run"]}']);
    await writer.close(true);
    expect(there.announced).toEqual(["run"]);
    repository.runs.get("run")!.status = "success";
    expect(await reading).toEqual({ ids: [0, 1], end: { kind: "ended", complete: true } });
  });

  it("is read once for all readers, each from its own place", async () => {
    const { there, here, pass, repository } = processes();
    const writer = there.open("run");
    const count = 1_234;
    for (let index = 0; index < count; index += 1) writer.append(part(index));
    const readers = [-1, -1, 100, count - 2].map((after) => toEnd(here.log.tail("run", after)));
    await expect.poll(() => here.asked).toEqual(["run"]);
    pass();
    await writer.flush();
    repository.runs.get("run")!.status = "success";
    const results = await Promise.all(readers);
    const ids = Array.from({ length: count }, (_, id) => id);
    expect(results.map((result) => result.ids)).toEqual([ids, ids, ids.slice(101), [count - 1]]);
  });

  it("goes on with the next attempt, and says if the last one is not there", async () => {
    const { here, repository } = processes();
    const row = repository.put("run", { logged: true });
    const event = (id: number): RunEvent => ({ id, event: "custom", data: "0" });
    row.events.push(event(0), event(1));
    const reader = here.log.tail("run", -1);
    expect((await reader.next()).value).toHaveLength(2);
    row.status = "pending";
    const rest = toEnd(reader);
    row.attempt = 2;
    row.status = "running";
    row.events.push(event(10_000_000));
    row.status = "success";
    expect(await rest).toEqual({ ids: [10_000_000], end: { kind: "ended", complete: true } });
    row.events = [];
    const late = await toEnd(here.log.tail("run", -1));
    expect(late).toEqual({ ids: [], end: { kind: "ended", complete: false } });
  });

  it("is left for memory when this process takes the run, and when the run is gone", async () => {
    const { here, repository } = processes();
    repository.put("run", { status: "pending", attempt: 0 });
    const reading = toEnd(here.log.tail("run", -1));
    here.open("run");
    expect(await reading).toEqual({ ids: [], end: { kind: "here" } });
    repository.put("other", { status: "pending", attempt: 0 });
    const other = toEnd(here.log.tail("other", -1));
    repository.runs.delete("other");
    expect(await other).toEqual({ ids: [], end: { kind: "gone" } });
  });

  it("is not read any more when its readers have left", async () => {
    const { here, repository } = processes();
    repository.put("run");
    const leaving = new AbortController();
    const reading = toEnd(here.log.tail("run", -1, leaving.signal));
    await expect.poll(() => repository.reads).toBeGreaterThan(0);
    leaving.abort();
    expect((await reading).end).toEqual({ kind: "gone" });
    const { reads } = repository;
    repository.put("run", { status: "pending" });
    await new Promise((resolve) => setTimeout(resolve, 30));
    expect(repository.reads).toBe(reads);
  });
});
