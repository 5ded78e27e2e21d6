import { expect, test } from "vitest";
import { composeObservers } from "../../src/observability/compose.ts";
import {
  createNoopObserver,
  type Observer,
  type RunObservation,
} from "../../src/observability/observer.ts";
import { single } from "../langfuse/graphs.ts";
import { observedRun } from "../langfuse/harness.ts";
import { createRecordingObserver } from "../support/recording-observer.ts";

const broken = (): never => {
  throw new Error("broken target");
};

/** Breaks every promise of the contract. */
function createBrokenObserver(): Observer {
  return {
    place: broken,
    startRun: broken,
    score: async () => broken(),
    traceUrl: broken,
    status: broken,
    ready: async () => broken(),
    flush: async () => broken(),
    shutdown: async () => broken(),
  };
}

/** Starts runs, and then fails in each of their methods. */
function createRottenObserver(): Observer {
  const rotten: RunObservation = {
    traceId: undefined,
    callbacks: [],
    metadata: {},
    within: broken,
    firstEvent: broken,
    end: broken,
    recorded: async () => broken(),
  };
  return { ...createNoopObserver(), startRun: () => rotten };
}

function compose(...others: Observer[]) {
  const errors: unknown[] = [];
  const recorder = createRecordingObserver();
  const observer = composeObservers([...others, recorder], (error) => void errors.push(error));
  return { observer, recorder, errors };
}

test("none is the no-op", async () => {
  const observer = composeObservers([], () => {});
  expect(observer.startRun(observedRun())).toMatchObject({ traceId: undefined, callbacks: [] });
  expect(observer.status()).toEqual([]);
});

test("every observer sees the run, its events and its end", async () => {
  const second = createRecordingObserver();
  const { observer, recorder } = compose(second);
  const observation = observer.startRun(observedRun());
  expect(observation.callbacks).toHaveLength(2);
  const graph = single(() => ({ count: 1 }));
  await observation.within(() => graph.invoke({ count: 1 }, { callbacks: observation.callbacks }));
  observation.end({ status: "success" });
  for (const { runs } of [second, recorder]) {
    expect(runs).toMatchObject([{ within: 1, outcome: { status: "success" } }]);
    expect(runs[0]?.events.length).toBeGreaterThan(2);
  }
  expect(recorder.runs[0]?.events).toEqual(second.runs[0]?.events);
});

test.each([
  ["fails at the start", createBrokenObserver],
  ["fails in a run", createRottenObserver],
])("one that %s touches neither the others nor the run", async (_name, create) => {
  const { observer, recorder, errors } = compose(create());
  const observation = observer.startRun(observedRun());
  let calls = 0;
  const result = observation.within(() => {
    calls += 1;
    return "mine";
  });
  expect([result, calls]).toEqual(["mine", 1]);
  expect(() =>
    observation.within(() => {
      throw new RangeError("mine");
    }),
  ).toThrow(RangeError);
  observation.firstEvent?.();
  observation.end({ status: "success" });
  await observation.recorded?.();
  await observer.ready();
  await observer.flush(10);
  const score = { id: "1", run_id: "r", name: "n", value: 1, data_type: "NUMERIC" } as const;
  await observer.score({ ...score, comment: undefined });
  expect(observer.traceUrl("r")).toBe("http://traces.test/r");
  expect(observer.status().map(({ name }) => name)).toEqual(["recorder"]);
  await observer.shutdown(10);
  expect(recorder.runs).toMatchObject([{ within: 2, outcome: { status: "success" } }]);
  expect(recorder.scores).toHaveLength(1);
  expect(recorder.shutdowns).toBe(1);
  expect(errors.length).toBeGreaterThan(2);
  expect(errors.every((error) => String(error).includes("broken target"))).toBe(true);
});

test("what an observer throws after the work does not replace what the work gave", () => {
  const late: Observer = {
    ...createNoopObserver(),
    startRun: () => ({
      ...createNoopObserver().startRun(observedRun()),
      within(work) {
        work();
        return broken();
      },
    }),
  };
  const { observer, errors } = compose(late);
  expect(observer.startRun(observedRun()).within(() => 7)).toBe(7);
  expect(errors).toHaveLength(1);
});

test("a score that nobody took is a failure; a target that never answers holds nobody up", async () => {
  const errors: unknown[] = [];
  const onError = (error: unknown): void => void errors.push(error);
  const refusing = composeObservers([createBrokenObserver()], onError);
  const score = { id: "1", run_id: "r", name: "n", value: 1, data_type: "NUMERIC" } as const;
  await expect(refusing.score({ ...score, comment: undefined })).rejects.toThrow("broken target");
  const recorder = createRecordingObserver();
  const silent = { ...createNoopObserver(), shutdown: () => new Promise<void>(() => {}) };
  await composeObservers([silent, recorder], onError).shutdown(10);
  expect(recorder.shutdowns).toBe(1);
});
