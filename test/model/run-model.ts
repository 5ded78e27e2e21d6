/*
 * Runs, their threads and their workers as a model: what may happen, and what must be true whatever happens.
 * A step is one statement of `storage/runs.ts` or `storage/run-queue.ts`, or something no statement sees: time that
 * passes, a process that is frozen or dies.
 */
import type { RunStatus } from "../../src/protocol/runs.ts";

export type Ended = "success" | "error" | "timeout" | "interrupted";

export interface ModelRun {
  readonly thread: number;
  readonly status: Extract<RunStatus, "pending" | "running" | Ended>;
  readonly attempt: number;
  readonly worker: number | null;
  /** Whether its lease has run out; only of a running one. */
  readonly expired: boolean;
  /** Whether it may start; false while its `after_seconds` last. */
  readonly due: boolean;
  readonly cancel: "interrupt" | "rollback" | null;
  /** The attempts whose steps were written, in order. */
  readonly steps: readonly number[];
  /** How often a result was written. */
  readonly results: number;
  /** Whether its row is gone: rolled back before it started. */
  readonly gone?: boolean;
}

export interface ModelThread {
  /** `active_runs` of the row. */
  readonly active: number;
  readonly status: "idle" | "busy" | "interrupted" | "error";
  /** What it is while nothing is active. */
  readonly resting: "idle" | "interrupted" | "error";
  /** Whether a client holds it to write its state. */
  readonly writing: boolean;
}

/** What a worker believes it executes. */
export interface Held {
  readonly run: number;
  readonly attempt: number;
}

export interface ModelWorker {
  readonly state: "awake" | "frozen" | "dead";
  readonly held: readonly Held[];
}

export interface ModelState {
  readonly threads: readonly ModelThread[];
  readonly runs: readonly ModelRun[];
  readonly workers: readonly ModelWorker[];
}

export type Step =
  | {
      op: "create";
      thread: number;
      strategy: "enqueue" | "reject";
      claim: number | null;
      due: boolean;
    }
  | { op: "due"; run: number }
  | { op: "claim"; worker: number; run: number }
  | { op: "renew"; worker: number }
  | { op: "expire"; run: number }
  | { op: "recover"; worker: number }
  | { op: "write"; worker: number; held: Held }
  | { op: "finish"; worker: number; held: Held; as: Ended | "asks" }
  | { op: "release"; worker: number; held: Held }
  | { op: "cancel"; run: number; action: "interrupt" | "rollback" }
  | { op: "hold" | "let go" | "lapse"; thread: number }
  | { op: "freeze" | "thaw" | "die"; worker: number };

/** How much there is of everything; what is not bounded here has no end. */
export interface Bounds {
  threads: number;
  runs: number;
  workers: number;
  /** In the last of them nothing goes wrong any more. */
  attempts: number;
  endings: readonly (Ended | "asks")[];
  cancels: readonly ("interrupt" | "rollback")[];
  /** Whether runs may be asked for later. */
  delays: boolean;
  /** Whether clients write the state of threads. */
  writes: boolean;
}

export const isActive = ({ status }: ModelRun): boolean =>
  status === "pending" || status === "running";

export function initialState({ threads, workers }: Bounds): ModelState {
  return {
    threads: Array.from({ length: threads }, () => ({
      active: 0,
      status: "idle" as const,
      resting: "idle" as const,
      writing: false,
    })),
    runs: [],
    workers: Array.from({ length: workers }, () => ({ state: "awake" as const, held: [] })),
  };
}

/**
 * Whether a waiting run may start: it is due, its thread runs nothing and is not written to, and no older one that is
 * due waits.
 */
export function mayStart({ runs, threads }: ModelState, index: number): boolean {
  const run = runs[index]!;
  return (
    run.status === "pending" &&
    run.due &&
    !threads[run.thread]!.writing &&
    !runs.some(
      (other, at) =>
        other.thread === run.thread &&
        (other.status === "running" || (other.status === "pending" && other.due && at < index)),
    )
  );
}

/** Everything that may happen next, within the bounds. */
export function possibleSteps(state: ModelState, bounds: Bounds): Step[] {
  const steps: Step[] = [];
  const { runs, threads, workers } = state;
  if (runs.length < bounds.runs) {
    threads.forEach((_, thread) => {
      const claims = [
        null,
        ...workers.flatMap(({ state: is }, at) => (is === "awake" ? [at] : [])),
      ];
      for (const claim of claims) {
        for (const strategy of ["enqueue", "reject"] as const)
          steps.push({ op: "create", thread, strategy, claim, due: true });
      }
      if (bounds.delays)
        steps.push({ op: "create", thread, strategy: "enqueue", claim: null, due: false });
    });
  }
  runs.forEach((run, index) => {
    if (!run.due) steps.push({ op: "due", run: index });
    if (run.status === "running" && !run.expired && run.attempt < bounds.attempts)
      steps.push({ op: "expire", run: index });
    if (isActive(run)) {
      for (const action of bounds.cancels) {
        if (run.cancel !== action) steps.push({ op: "cancel", run: index, action });
      }
    }
  });
  threads.forEach(({ writing }, thread) => {
    if (writing) steps.push({ op: "let go", thread }, { op: "lapse", thread });
    else if (bounds.writes) steps.push({ op: "hold", thread });
  });
  workers.forEach((worker, at) => steps.push(...workerSteps(state, at, worker, bounds)));
  return steps;
}

function workerSteps(
  state: ModelState,
  worker: number,
  { state: is, held }: ModelWorker,
  bounds: Bounds,
): Step[] {
  if (is === "dead") return [];
  if (is === "frozen") return [{ op: "thaw", worker }];
  const steps: Step[] = [
    { op: "freeze", worker },
    { op: "recover", worker },
  ];
  const isLast = held.some(({ attempt }) => attempt >= bounds.attempts);
  // Somebody is left to do the work.
  if (!isLast && state.workers.filter((other) => other.state !== "dead").length > 1)
    steps.push({ op: "die", worker });
  state.runs.forEach((_, index) => {
    if (mayStart(state, index)) steps.push({ op: "claim", worker, run: index });
  });
  if (held.length > 0) steps.push({ op: "renew", worker });
  for (const one of held) {
    const { steps: written } = state.runs[one.run]!;
    // Once for each attempt is enough to see an order.
    if (!written.includes(one.attempt)) steps.push({ op: "write", worker, held: one });
    for (const as of bounds.endings) steps.push({ op: "finish", worker, held: one, as });
    if (one.attempt < bounds.attempts) steps.push({ op: "release", worker, held: one });
  }
  return steps;
}

/** Whether the database takes a write of this attempt. */
export function isHeld(
  { runs }: ModelState,
  { run: index, attempt }: Held,
  worker: number,
): boolean {
  const run = runs[index]!;
  return run.status === "running" && run.attempt === attempt && run.worker === worker;
}

/** The state after a step. */
export function take(state: ModelState, step: Step): ModelState {
  switch (step.op) {
    case "create":
      return create(state, step);
    case "due":
      return withRun(state, step.run, { due: true });
    case "claim":
      return holding(
        withRun(state, step.run, {
          status: "running",
          attempt: state.runs[step.run]!.attempt + 1,
          worker: step.worker,
          expired: false,
        }),
        step.worker,
        step.run,
      );
    case "renew":
      return renew(state, step.worker);
    case "expire":
      return withRun(state, step.run, { expired: true });
    case "recover":
      return recover(state, step.worker);
    case "write": {
      if (!isHeld(state, step.held, step.worker)) return dropped(state, step.worker, step.held);
      const { steps } = state.runs[step.held.run]!;
      return withRun(state, step.held.run, { steps: [...steps, step.held.attempt] });
    }
    case "finish":
      return finish(state, step);
    case "release": {
      const after = dropped(state, step.worker, step.held);
      if (!isHeld(state, step.held, step.worker)) return after;
      return withRun(after, step.held.run, { status: "pending", worker: null, expired: false });
    }
    case "cancel":
      return cancel(state, step);
    case "hold":
      return withThread(state, step.thread, { writing: state.threads[step.thread]!.active === 0 });
    case "let go":
    case "lapse":
      return withThread(state, step.thread, { writing: false });
    case "freeze":
      return withWorker(state, step.worker, { state: "frozen" });
    case "thaw":
      return withWorker(state, step.worker, { state: "awake" });
    case "die":
      return withWorker(state, step.worker, { state: "dead", held: [] });
  }
}

function create(state: ModelState, step: Extract<Step, { op: "create" }>): ModelState {
  const thread = state.threads[step.thread]!;
  if (step.strategy === "reject" && thread.active > 0) return state;
  const starts = step.claim !== null && step.due && thread.active === 0 && !thread.writing;
  const run: ModelRun = {
    thread: step.thread,
    status: starts ? "running" : "pending",
    attempt: starts ? 1 : 0,
    worker: starts ? step.claim : null,
    expired: false,
    due: step.due,
    cancel: null,
    steps: [],
    results: 0,
  };
  const after = withThread({ ...state, runs: [...state.runs, run] }, step.thread, {
    active: thread.active + 1,
    status: "busy",
  });
  return starts ? holding(after, step.claim!, state.runs.length) : after;
}

function renew(state: ModelState, worker: number): ModelState {
  let after = state;
  for (const held of state.workers[worker]!.held) {
    const run = state.runs[held.run]!;
    // A lease is renewed by run and worker; an attempt that the same worker has begun anew is told by its writes.
    after =
      run.status === "running" && run.worker === worker
        ? withRun(after, held.run, { expired: false })
        : dropped(after, worker, held);
  }
  return after;
}

function recover(state: ModelState, worker: number): ModelState {
  const own = new Set(state.workers[worker]!.held.map((held) => held.run));
  let after = state;
  state.runs.forEach((run, index) => {
    if (run.status === "running" && run.expired && !own.has(index))
      after = withRun(after, index, { status: "pending", worker: null, expired: false });
  });
  return after;
}

function finish(state: ModelState, step: Extract<Step, { op: "finish" }>): ModelState {
  const { held, worker, as } = step;
  const after = dropped(state, worker, held);
  if (!isHeld(state, held, worker)) return after;
  const run = state.runs[held.run]!;
  const resting =
    as === "error" || as === "timeout" ? "error" : as === "asks" ? "interrupted" : "idle";
  const thread = state.threads[run.thread]!;
  const ended = withRun(after, held.run, {
    status: as === "asks" ? "success" : as,
    expired: false,
    results: run.results + 1,
  });
  return withThread(ended, run.thread, {
    active: thread.active - 1,
    resting,
    status: thread.active > 1 ? "busy" : resting,
  });
}

function cancel(state: ModelState, step: Extract<Step, { op: "cancel" }>): ModelState {
  const run = state.runs[step.run]!;
  if (run.status === "running") return withRun(state, step.run, { cancel: step.action });
  if (run.status !== "pending") return state;
  const thread = state.threads[run.thread]!;
  const ended = withRun(state, step.run, {
    status: "interrupted",
    results: run.results + 1,
    gone: step.action === "rollback",
  });
  return withThread(ended, run.thread, {
    active: thread.active - 1,
    status: thread.active > 1 ? "busy" : thread.resting,
  });
}

function holding(state: ModelState, worker: number, run: number): ModelState {
  const { held } = state.workers[worker]!;
  const { attempt } = state.runs[run]!;
  return withWorker(state, worker, { held: [...held, { run, attempt }] });
}

function dropped(state: ModelState, worker: number, gone: Held): ModelState {
  const held = state.workers[worker]!.held.filter(
    (one) => one.run !== gone.run || one.attempt !== gone.attempt,
  );
  return withWorker(state, worker, { held });
}

function withRun(state: ModelState, index: number, change: Partial<ModelRun>): ModelState {
  const runs = state.runs.map((run, at) => (at === index ? { ...run, ...change } : run));
  return { ...state, runs };
}

function withThread(state: ModelState, index: number, change: Partial<ModelThread>): ModelState {
  const threads = state.threads.map((one, at) => (at === index ? { ...one, ...change } : one));
  return { ...state, threads };
}

function withWorker(state: ModelState, index: number, change: Partial<ModelWorker>): ModelState {
  const workers = state.workers.map((one, at) => (at === index ? { ...one, ...change } : one));
  return { ...state, workers };
}
