import type { ObservationType } from "./classify.ts";
import type { promptOf } from "./generation.ts";
import { errorStack, readFailure, type Failure, type Level } from "./outcome.ts";
import { newMetadata, tagMetadata, type Metadata } from "./step-details.ts";
import type { HrTime } from "./spans.ts";
import type { Observation, ObservationFields, RunTrace } from "./run-trace.ts";
import { NO_USAGE } from "./usage.ts";

/** A LangChain run under way: an observation, or noise that lends its children its parent's observation. */
export interface Step {
  observation: Observation;
  /** False for noise: its observation is an ancestor's, and is not its to end. */
  own: boolean;
  name: string;
  metadata: Metadata;
  tags: readonly string[];
  model: string | undefined;
  firstToken: Date | undefined;
  /** When it was last heard of, for a model that streams. */
  lastToken: HrTime | undefined;
  prompt: ReturnType<typeof promptOf>;
  parent: Step | undefined;
  endedAt: HrTime | undefined;
}

export interface StepsOptions {
  trace: RunTrace;
  /** What the run's own graph is drawn as. */
  base: Observation;
  signal: AbortSignal | undefined;
}

/** The steps of one run that have begun and not ended, by LangChain's run ids, and the observations they are drawn as. */
export class Steps {
  readonly #options: StepsOptions;
  readonly #steps = new Map<string, Step>();
  readonly #explained = new WeakSet<object>();
  /** Those to be swept, the last first. */
  #left: string[] | undefined;

  constructor(options: StepsOptions) {
    this.#options = options;
  }

  get open(): number {
    return this.#steps.size;
  }

  get(runId: string | undefined): Step | undefined {
    return runId === undefined ? undefined : this.#steps.get(runId);
  }

  /** The innermost observation at a step; the run's own without one. */
  observationOf(step: Step | undefined): Observation {
    return step?.observation ?? this.#options.base;
  }

  /** Begins a step that is drawn; `undefined` if it has begun before. */
  begin(
    start: {
      type: ObservationType;
      name: string;
      runId: string;
      at: HrTime;
      parent: Step | undefined;
      metadata: Metadata;
      tags: readonly string[];
      extra?: Metadata;
    },
    fields: ObservationFields,
  ): Step | undefined {
    if (this.#steps.has(start.runId)) return undefined;
    const metadata = {
      ...newMetadata(start.metadata, start.parent?.metadata, start.type),
      ...tagMetadata(start.tags, start.parent?.tags ?? []),
      ...start.extra,
    };
    const observation = this.#options.trace.open(
      {
        type: start.type,
        name: start.name,
        parent: this.observationOf(start.parent).context,
        startTime: start.at,
      },
      { ...fields, metadata },
    );
    const step = newStep({
      observation,
      own: true,
      name: start.name,
      metadata: start.metadata,
      tags: start.tags,
      parent: start.parent,
    });
    this.#steps.set(start.runId, step);
    return step;
  }

  /** Begins a step that is not drawn: its children are drawn below `step.observation`. */
  hide(
    runId: string,
    step: Pick<Step, "observation" | "name" | "metadata" | "tags" | "parent">,
  ): void {
    if (this.#steps.has(runId)) return;
    this.#steps.set(runId, newStep({ ...step, own: false }));
  }

  /** Ends a step that came to its end at `at`. */
  finish(runId: string, at: HrTime, fields: (step: Step) => ObservationFields): void {
    const step = this.#steps.get(runId);
    if (step === undefined) return;
    this.#steps.delete(runId);
    step.endedAt = at;
    if (step.own) this.#options.trace.close(step.observation, readable(step, fields), at);
  }

  /** Ends a step by an error. */
  fail(runId: string, at: HrTime, error: unknown): void {
    this.finish(runId, at, (step) => {
      const failure: Failure = readFailure(error, this.#options.signal);
      return { ...failure, ...unused(step), ...this.#stackOf(error, failure.level) };
    });
  }

  /** The stack, on the innermost observation only: the same error passes all its ancestors. */
  #stackOf(error: unknown, level: Level): { errorStack?: string } {
    if (level !== "ERROR") return {};
    if (typeof error === "object" && error !== null) {
      if (this.#explained.has(error)) return {};
      this.#explained.add(error);
    }
    const stack = errorStack(error);
    return stack === undefined ? {} : { errorStack: stack };
  }

  /** True once an observation has shown this error's stack. */
  hasExplained(error: unknown): boolean {
    return typeof error === "object" && error !== null && this.#explained.has(error);
  }

  /** Ends one of those still open, children before parents; false if there is none. Nothing may begin any more. */
  sweep(ending: { level: Level; statusMessage: string }, at: HrTime): boolean {
    this.#left ??= [...this.#steps.keys()];
    const runId = this.#left.pop();
    if (runId === undefined) return false;
    const step = this.#steps.get(runId);
    if (step !== undefined)
      this.finish(runId, earliest(at, heardOfUntil(step)), () => ({ ...ending, ...unused(step) }));
    return true;
  }
}

/** A step nobody told the end of was at work until its last token, and no longer than what it was part of. */
function heardOfUntil(step: Step): HrTime | undefined {
  let until = step.lastToken;
  for (let above = step.parent; above !== undefined; above = above.parent)
    if (above.endedAt !== undefined) until = earliest(above.endedAt, until);
  return until;
}

function earliest(left: HrTime, right: HrTime | undefined): HrTime {
  if (right === undefined) return left;
  return left[0] < right[0] || (left[0] === right[0] && left[1] <= right[1]) ? left : right;
}

function newStep(
  step: Pick<Step, "observation" | "own" | "name" | "metadata" | "tags" | "parent">,
): Step {
  return {
    ...step,
    model: undefined,
    firstToken: undefined,
    lastToken: undefined,
    prompt: undefined,
    endedAt: undefined,
  };
}

/** A value that cannot even be looked at costs its observation the output, not its end. */
function readable(step: Step, fields: (step: Step) => ObservationFields): ObservationFields {
  try {
    return fields(step);
  } catch {
    return { output: "<cannot be read>", ...unused(step) };
  }
}

/** A model call that did not come to its end: its first token, and no usage the server would have to guess. */
function unused(step: Step): ObservationFields {
  if (step.observation.type !== "generation") return {};
  return {
    completionStart: step.firstToken,
    ...(step.model === undefined ? {} : { usage: NO_USAGE }),
  };
}
