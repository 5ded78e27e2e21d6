import { expect, it } from "vitest";
import { createRandom } from "../../bench/cluster/random.ts";
import { createRunQueue } from "../../src/storage/run-queue.ts";
import { describeDatabases } from "../support/databases.ts";
import { Repositories, toRows, type Said } from "./repositories.ts";
import {
  initialState,
  isActive,
  isHeld,
  mayStart,
  possibleSteps,
  take,
  type Bounds,
  type ModelState,
  type Step,
} from "./run-model.ts";

const BOUNDS: Bounds = {
  threads: 2,
  runs: 5,
  workers: 2,
  attempts: 4,
  endings: ["success", "error", "timeout", "interrupted", "asks"],
  cancels: ["interrupt", "rollback"],
  delays: true,
  writes: true,
};

/** Everything the model knows; each has to occur. */
const OPS: Step["op"][] = [
  "create",
  "due",
  "claim",
  "renew",
  "expire",
  "recover",
  "write",
  "finish",
  "release",
  "cancel",
  "hold",
  "let go",
  "lapse",
  "freeze",
  "thaw",
  "die",
];

const WALKS = 12;
const STEPS = 50;

/** What the statement of a step answers, by the model. */
function expectedOf(step: Step, before: ModelState, after: ModelState): Said {
  switch (step.op) {
    case "create":
      return after === before ? "thread_busy" : "created";
    case "renew":
      return new Set(
        before.workers[step.worker]!.held.flatMap(({ run }) =>
          before.runs[run]!.status === "running" && before.runs[run]!.worker === step.worker
            ? [run]
            : [],
        ),
      ).size;
    case "recover":
      return after.runs.filter((run, at) => run.status !== before.runs[at]!.status).length;
    case "write":
    case "release":
      return isHeld(before, step.held, step.worker);
    case "finish": {
      if (!isHeld(before, step.held, step.worker)) return "lost";
      return after.threads[before.runs[step.held.run]!.thread]!.active > 0
        ? "followed"
        : "finished";
    }
    case "cancel":
      return before.runs[step.run]!.status === "running" ? "asked" : "ended";
    case "hold":
      return before.threads[step.thread]!.active > 0 ? "busy" : "held";
    case "let go":
      return after.threads[step.thread]!.active > 0;
    default:
      return undefined;
  }
}

describeDatabases("the model of runs", (databases) => {
  it("is what the statements do, on random walks", async () => {
    const repositories = new Repositories(await databases.open());
    const taken = new Set<string>();
    for (let walk = 1; walk <= WALKS; walk += 1) {
      const random = createRandom(walk);
      let state = initialState(BOUNDS);
      await repositories.begin(state);
      const way: string[] = [];
      for (let count = 0; count < STEPS; count += 1) {
        // A kind of step first, so that the common ones do not crowd out the others.
        const possible = possibleSteps(state, BOUNDS);
        const op = random.pick([...new Set(possible.map((step) => step.op))]);
        let step = random.pick(possible.filter((one) => one.op === op));
        const said = await repositories.take(step, state);
        way.push(`${JSON.stringify(step)} said ${String(said)}`);
        if (step.op === "claim") {
          // Which of the runs that may start is for the database to choose.
          expect(typeof said === "number" && mayStart(state, said), way.join("\n")).toBe(true);
          step = { ...step, run: said as number };
        }
        const after = take(state, step);
        if (step.op !== "claim") expect(said, way.join("\n")).toBe(expectedOf(step, state, after));
        expect(await repositories.read(), way.join("\n")).toEqual(toRows(after));
        state = after;
        taken.add(step.op);
      }
      // Nothing may start: a claim takes nothing.
      if (!state.runs.some((run, at) => isActive(run) && mayStart(state, at)))
        expect(await repositories.take({ op: "claim", worker: 0, run: 0 }, state)).toBeUndefined();
    }
    expect([...taken].toSorted()).toEqual(OPS.toSorted());
  });

  it("knows every statement of the queue", async () => {
    const reads = ["waiting", "depth"];
    // What a run asks changes nothing of how it stands.
    const known = ["ask", "claim", "renew", "recover", "release", "finish", "cancel"];
    expect(Object.keys(createRunQueue(await databases.open())).toSorted()).toEqual(
      [...reads, ...known].toSorted(),
    );
  });
});
