import { expect, test } from "vitest";
import { TurnBudget } from "./turn-budget.ts";

/** A budget of 5 ms by a clock that only work moves on. */
function openBudget() {
  let nowMs = 0;
  const done: string[] = [];
  const budget = new TurnBudget(5, () => nowMs);
  const work = (name: string, ms: number) => () => {
    nowMs += ms;
    done.push(name);
  };
  return { budget, done, work };
}

const all = (works: readonly (Promise<void> | undefined)[]): Promise<unknown> =>
  Promise.all(works.map(async (work) => work));

const nextTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test("work is done at once until the budget is spent, and the rest in later turns, in order", async () => {
  const { budget, done, work } = openBudget();
  expect(budget.spend(work("a", 3))).toBeUndefined();
  expect(budget.spend(work("b", 3))).toBeUndefined();
  const waiting = ["c", "d", "e"].map((name) => budget.spend(work(name, 3)));
  expect(done).toEqual(["a", "b"]);
  await nextTurn();
  expect(done).toEqual(["a", "b", "c", "d"]);
  await all(waiting);
  expect(done).toEqual(["a", "b", "c", "d", "e"]);
});

test("a turn has the whole budget anew", async () => {
  const { budget, done, work } = openBudget();
  void budget.spend(work("a", 100));
  await nextTurn();
  expect(budget.spend(work("b", 1))).toBeUndefined();
  expect(done).toEqual(["a", "b"]);
});

test("nothing overtakes what waits", async () => {
  const { budget, done, work } = openBudget();
  void budget.spend(work("a", 6));
  const waiting = [budget.spend(work("b", 6)), budget.spend(work("c", 1))];
  await nextTurn();
  const last = budget.spend(work("d", 1));
  expect(done).toEqual(["a", "b"]);
  await all([...waiting, last]);
  expect(done).toEqual(["a", "b", "c", "d"]);
});

test("work in many pieces is done as far as the budget goes, before what came later", async () => {
  const { budget, done, work } = openBudget();
  let pieces = 4;
  const many = budget.spend(() => {
    work(`piece ${pieces}`, 3)();
    pieces -= 1;
    return pieces > 0;
  });
  const later = budget.spend(work("later", 1));
  expect(done).toEqual(["piece 4", "piece 3"]);
  await nextTurn();
  expect(done).toEqual(["piece 4", "piece 3", "piece 2", "piece 1"]);
  await all([many, later]);
  expect(done.at(-1)).toBe("later");
  expect(budget.spend(() => false)).toBeUndefined();
});

test("it has caught up when what waited is done, and not before", async () => {
  const { budget, done, work } = openBudget();
  void budget.spend(work("a", 6));
  void budget.spend(work("b", 6));
  const caughtUp = budget.caughtUp();
  expect(done).toEqual(["a"]);
  await caughtUp;
  expect(done).toEqual(["a", "b"]);
});

test("what is charged is done whatever is left, and counts", async () => {
  const { budget, done, work } = openBudget();
  expect(budget.charge(() => "result")).toBe("result");
  budget.charge(work("a", 6));
  budget.charge(work("b", 6));
  const waiting = budget.spend(work("c", 1));
  expect(done).toEqual(["a", "b"]);
  await waiting;
  expect(done).toEqual(["a", "b", "c"]);
});

test("charged work that throws is counted, and its error passed on", async () => {
  const { budget, work } = openBudget();
  const fail = (): void => {
    work("a", 6)();
    throw new Error("of the work");
  };
  expect(() => budget.charge(fail)).toThrow("of the work");
  await expect(budget.spend(work("b", 1))).resolves.toBeUndefined();
});
