import type { RunOutcome } from "../observability/observer.ts";
import { encodeResult, type EncodedResult, type RunResult } from "../storage/run-result.ts";
import { ServerError } from "../errors.ts";
import { toPublicError } from "./errors.ts";
import type { Execution, Stop } from "./execute.ts";

/** What an execution means for the run, its thread and its trace. */
export interface Settlement {
  /** `undefined` where nothing may be written: the run belongs to another worker, or goes back to the queue. */
  result: RunResult | undefined;
  outcome: RunOutcome;
}

/** The same, with its result in the form that is stored. */
export interface StorableSettlement {
  result: EncodedResult | undefined;
  outcome: RunOutcome;
}

/** Stops after which the run goes on elsewhere, or later. */
const UNFINISHED: ReadonlySet<Stop["kind"]> = new Set(["lost", "shutdown", "unavailable"]);

/** Judges how an execution ended: by the graph's own end, an interrupt, an error, or a stop from outside. */
export function settle(execution: Execution, stop: Stop | undefined): Settlement {
  const { values, interrupt, error, refused, reached } = execution;
  const untouched = { interrupted: false, error: undefined, interrupts: undefined };
  // The thread shows its state, in which a question may wait that is older than the run, or another node's.
  const left = reached ?? { values, interrupts: undefined };
  if (stop && UNFINISHED.has(stop.kind)) {
    return { result: undefined, outcome: { status: "lost", output: values } };
  }
  if (stop?.kind === "timeout") {
    const shown = toPublicError(stop);
    return {
      result: { ...untouched, ...left, status: "timeout", output: values, error: shown },
      outcome: { status: "timeout", output: values, error: stop },
    };
  }
  if (stop?.kind === "rollback") {
    return {
      result: {
        ...untouched,
        status: "interrupted",
        output: values,
        values: undefined,
        resting: "unchanged",
      },
      outcome: { status: "rolled_back", output: values },
    };
  }
  if (stop) {
    const waits = Object.keys(left.interrupts ?? {}).length > 0;
    const resting = reached === undefined ? "unchanged" : waits ? "interrupted" : "idle";
    return {
      result: {
        ...untouched,
        ...left,
        status: "interrupted",
        output: values,
        resting,
      },
      outcome: { status: "cancelled", output: values },
    };
  }
  if (error !== undefined) {
    const shown = toPublicError(error);
    if (refused) {
      const { interrupts, waiting } = refused;
      const resting = waiting ? "interrupted" : "idle";
      return {
        result: {
          ...untouched,
          status: "error",
          output: values,
          values: undefined,
          error: shown,
          interrupts,
          resting,
        },
        outcome: { status: "error", output: values, error },
      };
    }
    return {
      result: { ...untouched, ...left, status: "error", output: values, error: shown },
      outcome: { status: "error", output: values, error },
    };
  }
  if (interrupt) {
    const asked = Object.values(interrupt.interrupts).flat();
    return {
      result: {
        ...untouched,
        status: "success",
        interrupted: true,
        output: { ...values, __interrupt__: asked },
        values,
        interrupts: interrupt.interrupts,
      },
      outcome: { status: "interrupted", output: values, interrupts: interrupt.values },
    };
  }
  return {
    result: { ...untouched, status: "success", output: values, values, interrupts: {} },
    outcome: { status: "success", output: values },
  };
}

/**
 * What is stored of a settlement. A result that has no such form is an error of the run, and its trace says so: it ends
 * before the result is written.
 */
export function toStorable({ result, outcome }: Settlement): StorableSettlement {
  if (result === undefined) return { result, outcome };
  try {
    return { result: encodeResult(result), outcome };
  } catch (error) {
    if (!(error instanceof ServerError)) throw error;
    return {
      result: toFailure(error),
      outcome: { status: "error", output: outcome.output, error },
    };
  }
}

/** The result of a run whose own result cannot be stored. */
export function toFailure(error: ServerError): EncodedResult {
  return encodeResult({
    status: "error",
    interrupted: false,
    output: undefined,
    error: toPublicError(error),
    values: undefined,
    interrupts: undefined,
  });
}
