import type { SpanKind } from "@opentelemetry/api";
import type { ObservedRun } from "../observer.ts";
import type { ObservationType } from "./classify.ts";
import type { Observation, ObservationFields } from "./run-trace.ts";
import type { Simplify } from "./serialise.ts";

/** Attributes of a span; `undefined` is left out. */
export type Attributes = Record<string, string | number | boolean | string[] | undefined>;

/** Who and what a trace is about; texts are cut and masked already. */
export interface TraceIdentity {
  name: string;
  sessionId: string | undefined;
  userId: string | undefined;
  tags: string[];
  run: ObservedRun;
}

/** Turns values into texts that may leave the process: bounded, redacted, masked. The only way to write one. */
export interface FieldWriter {
  /** Whether inputs, or outputs, may be sent at all. */
  captures(field: "input" | "output"): boolean;
  /** JSON text, or the text itself for a string; `undefined` if it is not captured. */
  content(field: "input" | "output", value: unknown): string | undefined;
  /** A short text that is bounded already, masked as `field`. */
  text(field: string, text: string): string;
  statusMessage(message: string | undefined): string | undefined;
  metadata(metadata: Readonly<Record<string, unknown>>): Record<string, string>;
  parameters(
    parameters: Readonly<Record<string, unknown>> | undefined,
  ): Record<string, string | number> | undefined;
}

/**
 * How one kind of target wants observations told. Everything else of a trace (the tree, times, levels, limits,
 * masks) is the same for all of them.
 */
export interface Dialect {
  /** The readable form of LangChain's objects in inputs and outputs. */
  readonly simplify: Simplify;
  /** Whether errors are told as status messages and exception events too. */
  readonly exceptions: boolean;
  /** Whether spans of other traces are named as OpenTelemetry's links. */
  readonly links: boolean;
  /** On every span of the trace. */
  common(identity: TraceIdentity): Attributes;
  /** What `fields` say of one observation, when it begins and when it ends. */
  observation(
    about: {
      observation: Observation;
      phase: "open" | "close";
      /** True for the root of a run that joins its caller's trace. */
      joins: boolean;
    },
    fields: ObservationFields,
    write: FieldWriter,
  ): Attributes;
  /** Metadata of the trace itself, said on its root. */
  trace(metadata: Readonly<Record<string, string>>): Attributes;
  /** The span's name, where it is not the observation's. */
  spanName?(type: ObservationType, name: string, fields: ObservationFields): string | undefined;
  /** All internal where left out. */
  spanKind?(type: ObservationType): SpanKind;
}
