import type { SpanKind } from "@opentelemetry/api";
import type { ObservedRun } from "../observer.ts";
import type { Simplify } from "../serialise.ts";
import type { ObservationType } from "./classify.ts";
import type { LangfuseSettings } from "./config.ts";
import { TEXT_LIMITS, type Cut } from "./identity.ts";
import { simplifyLangChain } from "./messages.ts";
import type { LangfusePackages } from "./packages.ts";
import type { Observation, ObservationFields } from "./trace.ts";

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

/** Langfuse's own attributes, by the official packages' mapping. */
export function createLangfuseDialect(
  packages: LangfusePackages,
  settings: LangfuseSettings,
  cut: Cut,
): Dialect {
  const { createObservationAttributes, LangfuseOtelSpanAttributes: names } = packages.langfuse;
  const deployment: Attributes = {
    [names.ENVIRONMENT]: settings.environment,
    ...(settings.release === undefined
      ? {}
      : { [names.RELEASE]: cut.text(settings.release, TEXT_LIMITS.id) }),
    ...(settings.version === undefined
      ? {}
      : { [names.VERSION]: cut.text(settings.version, TEXT_LIMITS.id) }),
  };
  return {
    simplify: simplifyLangChain,
    exceptions: false,
    links: false,
    common: ({ name, sessionId, userId, tags }) => ({
      [names.TRACE_NAME]: name,
      ...(sessionId === undefined ? {} : { [names.TRACE_SESSION_ID]: sessionId }),
      ...(userId === undefined ? {} : { [names.TRACE_USER_ID]: userId }),
      [names.TRACE_TAGS]: tags,
      ...deployment,
    }),
    observation({ observation, joins }, fields, write) {
      const attributes = createObservationAttributes(
        observation.type,
        toLangfuse(fields, write),
      ) as Attributes;
      if (fields.completionStart !== undefined) {
        // Not through the official mapping, which would put the date in quotes.
        attributes[names.OBSERVATION_COMPLETION_START_TIME] = fields.completionStart.toISOString();
      }
      // Its parent is the caller's, who may not send to Langfuse: the trace's input and output are this one's.
      if (joins) attributes[names.AS_ROOT] = true;
      return attributes;
    },
    trace: (metadata) =>
      Object.fromEntries(
        Object.entries(metadata).map(([key, text]) => [`${names.TRACE_METADATA}.${key}`, text]),
      ),
  };
}

type LangfuseFields = Parameters<LangfusePackages["langfuse"]["createObservationAttributes"]>[1];

function toLangfuse(fields: ObservationFields, write: FieldWriter): LangfuseFields {
  const metadata = withStack(fields);
  return defined({
    input: write.content("input", fields.input),
    output: write.content("output", fields.output),
    level: fields.level,
    statusMessage: write.statusMessage(fields.statusMessage),
    metadata: metadata === undefined ? undefined : write.metadata(metadata),
    model: fields.model,
    modelParameters: write.parameters(fields.parameters),
    usageDetails: fields.usage,
    prompt: fields.prompt,
  });
}

/** Langfuse has no place for a stack of its own. */
function withStack(fields: ObservationFields): ObservationFields["metadata"] {
  return fields.errorStack === undefined
    ? fields.metadata
    : { ...fields.metadata, error_stack: fields.errorStack };
}

function defined<T extends object>(fields: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as {
    [K in keyof T]: Exclude<T[K], undefined>;
  };
}
