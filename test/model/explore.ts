import { brokenBetween, brokenIn } from "./invariants.ts";
import {
  initialState,
  isActive,
  possibleSteps,
  take,
  type Bounds,
  type ModelState,
  type Step,
} from "./run-model.ts";

/** What was found: every state within the bounds, or what is wrong with one of them. */
export interface Explored {
  states: number;
  steps: number;
  /** With the steps that lead there; it ends with the first state that has any. */
  problems: string[];
  /** States from which no sequence of steps without new runs ends all runs. */
  stuck: string[];
  /** The changes of status that occurred, as `pending running`. */
  changes: Set<string>;
}

interface Known {
  state: ModelState;
  from: string | undefined;
  by: Step | undefined;
}

const MOST_STUCK = 5;

/**
 * Visits every state that can be reached, breadth first, so that the way to a problem is a shortest one. `next` is
 * the model's own rule, unless another one is tried.
 */
export function explore(bounds: Bounds, next: typeof take = take): Explored {
  const first = initialState(bounds);
  const known = new Map<string, Known>([
    [keyOf(first), { state: first, from: undefined, by: undefined }],
  ]);
  /** Which states a state is reached from by work, not by trouble or by new runs. */
  const reachedFrom = new Map<string, string[]>();
  const explored: Explored = { states: 0, steps: 0, problems: [], stuck: [], changes: new Set() };
  // The map grows while it is walked, which a map's iterator follows.
  for (const [key, { state }] of known) {
    if (explored.problems.length > 0) break;
    for (const step of possibleSteps(state, bounds)) {
      explored.steps += 1;
      const after = next(state, step);
      const afterKey = keyOf(after);
      if (!known.has(afterKey)) known.set(afterKey, { state: after, from: key, by: step });
      if (isWork(step)) {
        const before = reachedFrom.get(afterKey);
        if (before) before.push(key);
        else reachedFrom.set(afterKey, [key]);
      }
      noteChanges(state, after, explored.changes);
      const problems = [...brokenBetween(state, after), ...brokenIn(after)];
      if (problems.length > 0)
        explored.problems.push(
          `${problems.join("; ")}, after ${wayTo(known, key)}, then ${said(step)}`,
        );
    }
  }
  explored.states = known.size;
  if (explored.problems.length === 0) explored.stuck = findStuck(known, reachedFrom);
  return explored;
}

/** What goes on by itself while at least one process is awake. */
function isWork({ op }: Step): boolean {
  return !["create", "cancel", "hold", "freeze", "die"].includes(op);
}

function findStuck(known: Map<string, Known>, reachedFrom: Map<string, string[]>): string[] {
  const good = new Set<string>();
  const left = [...known].flatMap(([key, { state }]) => (state.runs.some(isActive) ? [] : [key]));
  for (let key = left.pop(); key !== undefined; key = left.pop()) {
    if (good.has(key)) continue;
    good.add(key);
    left.push(...(reachedFrom.get(key) ?? []));
  }
  const stuck = [...known.keys()].filter((key) => !good.has(key));
  return stuck.slice(0, MOST_STUCK).map((key) => wayTo(known, key));
}

function noteChanges(before: ModelState, after: ModelState, changes: Set<string>): void {
  after.runs.forEach((run, index) => {
    const was = before.runs[index]?.status;
    if (was !== undefined && was !== run.status) changes.add(`${was} ${run.status}`);
  });
}

function wayTo(known: Map<string, Known>, to: string): string {
  const steps: string[] = [];
  for (let at = known.get(to); at?.by; at = known.get(at.from!)) steps.unshift(said(at.by));
  return steps.join(", ");
}

function said(step: Step): string {
  const { op, ...rest } = step;
  return `${op} ${JSON.stringify(rest)}`;
}

function keyOf(state: ModelState): string {
  return JSON.stringify(state);
}
