import { expect, it } from "vitest";
import { TRANSITIONS } from "../../src/engine/run-status.ts";
import { explore } from "./explore.ts";
import { take, type Bounds, type ModelState, type Step } from "./run-model.ts";

/** One run with all that can happen to it. */
const DEEP: Bounds = {
  threads: 1,
  runs: 1,
  workers: 2,
  attempts: 3,
  endings: ["success", "error", "timeout", "interrupted", "asks"],
  cancels: ["interrupt", "rollback"],
  delays: true,
  writes: true,
};

/** Two runs that wait for each other. */
const WIDE: Bounds = {
  ...DEEP,
  runs: 2,
  attempts: 2,
  endings: ["success"],
  cancels: ["interrupt"],
  delays: false,
  writes: false,
};

it.each([
  ["one run that is tried three times", DEEP, 10_000],
  ["two runs of a thread", WIDE, 40_000],
])(
  "%s, two workers: whatever happens keeps the rules, and every run can end",
  (_, bounds, most) => {
    const { states, problems, stuck } = explore(bounds);
    expect(problems).toEqual([]);
    expect(stuck).toEqual([]);
    expect(states).toBeGreaterThan(most);
  },
);

it("the model changes a run's status as the engine's table says, and in all those ways", () => {
  const { changes } = explore({ ...DEEP, attempts: 2 });
  const allowed = Object.entries(TRANSITIONS).flatMap(([from, statuses]) =>
    statuses.map((to) => `${from} ${to}`),
  );
  expect([...changes].toSorted()).toEqual(allowed.toSorted());
});

it.each([
  {
    rule: "a result is written by whoever executed the run, lease or not",
    broken: (state: ModelState, step: Step): ModelState => {
      if (step.op !== "finish") return take(state, step);
      const runs = state.runs.map((run, at) =>
        at === step.held.run ? { ...run, attempt: step.held.attempt, worker: step.worker } : run,
      );
      return take({ ...state, runs }, step);
    },
    found: /attempt 2 to 1|ended without|went from/u,
  },
  {
    rule: "a thread is free as soon as one of its runs has ended",
    broken: (state: ModelState, step: Step): ModelState => {
      const after = take(state, step);
      if (step.op !== "finish") return after;
      return { ...after, threads: after.threads.map((one) => ({ ...one, status: one.resting })) };
    },
    found: /is idle with 1 active runs/u,
  },
  {
    rule: "nobody takes over what a dead worker held",
    broken: (state: ModelState, step: Step): ModelState =>
      step.op === "recover" ? state : take(state, step),
    found: /die/u,
  },
])("the explorer finds it if $rule", ({ broken, found }) => {
  const { problems, stuck } = explore({ ...WIDE, runs: 2 }, broken);
  expect([...problems, ...stuck].join("\n")).toMatch(found);
});
