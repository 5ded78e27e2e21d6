import type { SpanContext } from "@opentelemetry/api";
import type { ObservedRun, RunObservation, RunOutcome, TracePlace } from "../observer.ts";
import { parseTraceparent } from "./traceparent.ts";
import { RunHandler } from "./handler.ts";
import { attemptSpanIdOf, rootSpanIdOf, traceIdOf } from "./identity.ts";
import { lastAnswer, lastUserMessage } from "./conversation.ts";
import {
  errorStack,
  errorText,
  errorType,
  interruptOutput,
  interruptValue,
  type Level,
} from "./outcome.ts";
import {
  RunTrace,
  type Observation,
  type ObservationFields,
  type TraceEnvironment,
} from "./run-trace.ts";
import type { HrTime } from "./spans.ts";

/** How each ending reads: on the root, and on what was still open below it. */
const ENDINGS: Record<
  RunOutcome["status"],
  { level: Level; message: string | undefined; openLevel: Level; open: string }
> = {
  success: {
    level: "DEFAULT",
    message: undefined,
    openLevel: "DEFAULT",
    open: "still open when the run ended",
  },
  interrupted: {
    level: "DEFAULT",
    message: undefined,
    openLevel: "DEFAULT",
    open: "the run was interrupted",
  },
  cancelled: {
    level: "WARNING",
    message: "cancelled",
    openLevel: "WARNING",
    open: "the run was cancelled",
  },
  rolled_back: {
    level: "WARNING",
    message: "rolled back",
    openLevel: "WARNING",
    open: "the run was rolled back",
  },
  timeout: { level: "ERROR", message: "timed out", openLevel: "ERROR", open: "the run timed out" },
  error: {
    level: "ERROR",
    message: "failed",
    openLevel: "WARNING",
    open: "the run failed elsewhere",
  },
  lost: {
    level: "WARNING",
    message: "the worker was lost",
    openLevel: "WARNING",
    open: "the attempt ended here; the run goes on from its last checkpoint",
  },
};

/** Begins to observe a run. The root is sent when the run ends; a lost run's root is another attempt's to send. */
export function observeRun(
  environment: TraceEnvironment,
  run: ObservedRun,
  onBug: (error: unknown) => void,
): RunObservation {
  const trace = new RunTrace(environment, run);
  const rootId = rootSpanIdOf(run.run_id);
  const later = run.attempt > 1 || run.waiting === true;
  // A trace that is somebody else's has no run to ask.
  const awaits = run.awaits_result === true && trace.traceId === traceIdOf(run.run_id);
  const startedMs = Math.min((later ? run.created_at : run.started_at).getTime(), Date.now());
  const root = trace.open(
    {
      type: "agent",
      name: run.assistant_name || run.graph_id,
      parent: callerSpan(run.place),
      spanId: rootId,
      startTime: trace.now(startedMs),
      links: callerLinks(run),
      attempt: awaits ? run.attempt : undefined,
    },
    { input: traceInput(run.input) },
  );
  tellOfAttempts(trace, root, run);
  const base = later && !run.waiting ? openAttempt(trace, root, run) : root;
  const handler = new RunHandler({
    trace,
    base,
    signal: run.signal,
    schemas: environment.schemas,
    budget: environment.budget,
    // An application that traces its own graphs speaks for itself.
    claims: run.trigger === "code" ? {} : run.metadata,
    onBug,
  });
  let ended = false;
  /** Until the end is written; `undefined` if it is. */
  let ending: Promise<void> | undefined;
  return {
    traceId: trace.traceId,
    callbacks: [handler],
    metadata: {},
    bound({ tags = [], metadata = {} }) {
      if (ended || (tags.length === 0 && Object.keys(metadata).length === 0)) return;
      const described = {
        ...run,
        tags: [...run.tags, ...tags.filter((tag) => !run.tags.includes(tag))],
        metadata: { ...metadata, ...run.metadata },
      };
      trace.describe(described, base === root ? [root] : [root, base]);
    },
    // Spans get their parents and times explicitly, so the ambient context stays the application's own.
    within: (work) => work(),
    end(outcome) {
      if (ended) return;
      ended = true;
      const end = { outcome, at: trace.now() };
      handler.close();
      ending = environment.budget.spend(() => {
        try {
          return finish({ trace, root, base, run, handler }, end);
        } catch (error) {
          onBug(error);
          return false;
        }
      });
    },
    async recorded() {
      await ending;
      await environment.recorded?.();
    },
    settled(stored) {
      if (!awaits) return;
      const tell = (): void =>
        environment.settle?.({ traceId: trace.traceId, attempt: run.attempt }, stored);
      if (ending === undefined) tell();
      else void ending.then(tell);
    },
  };
}

/** The caller's span, for a run that joins its trace. */
function callerSpan(place: TracePlace | undefined): SpanContext | undefined {
  return place?.parent_span_id === undefined
    ? undefined
    : { traceId: place.trace_id, spanId: place.parent_span_id, traceFlags: 1, isRemote: true };
}

/** The caller's span, for a run with a trace of its own. */
function callerLinks(run: ObservedRun): SpanContext[] {
  const caller = parseTraceparent(run.traceparent);
  return caller === undefined || run.place?.parent_span_id !== undefined
    ? []
    : [{ ...caller, traceFlags: 1, isRemote: true }];
}

/** The layer of a further attempt. */
function openAttempt(trace: RunTrace, root: Observation, run: ObservedRun): Observation {
  const { attempt } = run;
  return trace.open(
    {
      type: "span",
      name: `attempt ${attempt}`,
      parent: root.context,
      spanId: attemptSpanIdOf(run.run_id, attempt),
      startTime: trace.now(Math.min(run.started_at.getTime(), Date.now())),
    },
    { metadata: { attempt } },
  );
}

/** The most attempts that are told of: a run that servers hand on and on has any number of them. */
const MOST_TOLD = 20;

/**
 * A word on each attempt that did not end the run. Only later ones say it: the worker itself may be gone, and what had
 * hung under its attempt has to have its parent all the same. Each says it of all before it, with the same bytes,
 * because the one that said it first may be gone as well.
 */
function tellOfAttempts(trace: RunTrace, root: Observation, run: ObservedRun): void {
  const last = run.waiting ? run.attempt : run.attempt - 1;
  if (last < 1) return;
  const { started_at: at } = run;
  const unknown = { attempt: last, started_at: at, ended_at: at, lost: true };
  const left = run.left_attempts?.length ? run.left_attempts : [unknown];
  for (const { attempt, started_at: startedAt, ended_at: endedAt, lost } of left.slice(
    -MOST_TOLD,
  )) {
    const note = trace.open(
      {
        type: "span",
        name: `attempt ${attempt} ${lost ? "lost" : "handed back"}`,
        parent: root.context,
        spanId: attemptSpanIdOf(run.run_id, attempt),
        startTime: trace.now(Math.min(startedAt.getTime(), endedAt.getTime())),
      },
      { metadata: { attempt } },
    );
    const told: ObservationFields = lost
      ? {
          level: "WARNING",
          statusMessage: "the worker was lost; the run goes on from its last checkpoint",
        }
      : { statusMessage: "its process could not go on; the run goes on from its last checkpoint" };
    trace.close(note, told, trace.now(endedAt.getTime()));
  }
}

/** Writes the next piece of a run's end: what is still open, one by one, then its root. True while there is more. */
function finish(
  parts: {
    trace: RunTrace;
    root: Observation;
    base: Observation;
    run: ObservedRun;
    handler: RunHandler;
  },
  { outcome, at }: { outcome: RunOutcome; at: HrTime },
): boolean {
  const { trace, root, base, run, handler } = parts;
  const ending = ENDINGS[outcome.status];
  if (handler.sweep({ level: ending.openLevel, statusMessage: ending.open }, at)) return true;
  // The attempt that goes on tells of this one, and how the run ended.
  if (outcome.status === "lost") {
    trace.finish();
    return false;
  }
  const metadata = { ...trace.metadata, status: outcome.status };
  const story: ObservationFields = {
    level: ending.level,
    statusMessage: statusMessage(outcome, toMessage(run, ending.message)),
    ...(outcome.error === undefined ? {} : { errorType: errorType(outcome.error) }),
    output: traceOutput(run.input, outcome),
  };
  if (base !== root) {
    const { level, statusMessage: message, errorType: type } = story;
    trace.close(base, { level, statusMessage: message, errorType: type }, at);
  }
  trace.describeTrace(root, metadata);
  const stack =
    ending.level === "ERROR" && !handler.hasExplained(outcome.error)
      ? errorStack(outcome.error)
      : undefined;
  trace.close(root, { ...story, metadata, errorStack: stack }, at);
  trace.finish();
  return false;
}

function toMessage(run: ObservedRun, message: string | undefined): string | undefined {
  if (message === undefined || run.waiting !== true) return message;
  return `${message} ${run.attempt === 0 ? "before it started" : "while it waited to go on"}`;
}

function statusMessage(outcome: RunOutcome, otherwise: string | undefined): string | undefined {
  if (outcome.error === undefined || otherwise === undefined) return otherwise;
  const text = errorText(outcome.error);
  return outcome.status === "error" ? text : `${otherwise}: ${text}`;
}

/** The last user message where the input has messages; else the input itself. */
function traceInput(input: unknown): unknown {
  return safely(() => lastUserMessage(input)) ?? input;
}

/** The question of an interrupt; else the answer to this run's input where the state has messages; else the state. */
function traceOutput(input: unknown, outcome: RunOutcome): unknown {
  if (
    outcome.status === "interrupted" &&
    outcome.interrupts !== undefined &&
    outcome.interrupts.length > 0
  ) {
    return interruptOutput(outcome.interrupts.map(interruptValue));
  }
  return safely(() => lastAnswer(outcome.output, lastUserMessage(input))) ?? outcome.output;
}

/** States are the user's own objects, whose getters may throw. */
function safely(read: () => unknown): unknown {
  try {
    return read();
  } catch {
    return undefined;
  }
}
