import type { Span, SpanContext } from "@opentelemetry/api";
import { performance } from "node:perf_hooks";
import type { AttemptRoot } from "../delivery/record.ts";
import type { ObservedRun } from "../observer.ts";
import { createSerialiser, type Serialiser } from "./serialise.ts";
import type { TurnBudget } from "./turn-budget.ts";
import type { ObservationType } from "./classify.ts";
import type { Attributes, Dialect, FieldWriter } from "./dialect.ts";
import type { SchemaCache } from "./generation.ts";
import { createCut, metadataOf, tagsOf, TEXT_LIMITS, traceIdOf, type Cut } from "./identity.ts";
import { createMask, type Mask } from "./mask.ts";
import type { Level } from "./outcome.ts";
import type { OtelPackages } from "./otel.ts";
import type { HrTime, SpanFactory } from "./spans.ts";

/** What all runs of one observer share. */
export interface TraceEnvironment {
  settings: {
    mask: Mask | undefined;
    /** `maxChars`: the longest field; longer ones are cut, with a mark. */
    capture: { input: boolean; output: boolean; maxChars?: number | undefined };
  };
  packages: OtelPackages;
  /** How observations are said to this target. */
  dialect: Dialect;
  spans: SpanFactory;
  /** Resolves when the spans that have ended are as safe as they will be before they are sent. */
  recorded?(): Promise<void>;
  /** Tells whether the result of a root's run is stored. */
  settle?(root: AttemptRoot, stored: boolean): void;
  schemas: SchemaCache;
  /** How much of a turn of the event loop all this may take. */
  budget: TurnBudget;
  /** Says once per kind that something was cut or withheld. */
  notice(kind: "cut" | "mask", message: string): void;
}

/** Everything an observation can carry. `undefined` leaves a field alone. */
export interface ObservationFields {
  input?: unknown;
  output?: unknown;
  level?: Level | undefined;
  statusMessage?: string | undefined;
  metadata?: Readonly<Record<string, unknown>> | undefined;
  model?: string | undefined;
  parameters?: Readonly<Record<string, unknown>> | undefined;
  usage?: Record<string, number> | undefined;
  completionStart?: Date | undefined;
  prompt?: { name: string; version: number; isFallback: boolean } | undefined;
  /** The class of the error, such as `TypeError`. */
  errorType?: string | undefined;
  errorStack?: string | undefined;
}

/** An observation under way. */
export interface Observation {
  readonly span: Span;
  readonly context: SpanContext;
  readonly type: ObservationType;
  readonly name: string;
  /** Milliseconds since 1970. */
  readonly startMs: number;
}

/**
 * Writes one run's observations: the trace's attributes on every span, values bounded, masked and captured as
 * configured, times from one clock. Thrown away with the run.
 */
export class RunTrace {
  readonly traceId: string;
  readonly #environment: TraceEnvironment;
  readonly #serialiser: Serialiser;
  readonly #cut: Cut;
  readonly #mask: Mask;
  readonly #write: FieldWriter;
  readonly #epochMs = Date.now();
  readonly #zeroMs = performance.now();
  #common: Attributes;
  metadata: Readonly<Record<string, unknown>>;

  constructor(environment: TraceEnvironment, run: ObservedRun) {
    this.#environment = environment;
    const { maxChars } = environment.settings.capture;
    this.#serialiser = createSerialiser({
      simplify: environment.dialect.simplify,
      limits: maxChars === undefined ? {} : { fieldChars: maxChars },
    });
    this.#mask = createMask(environment.settings.mask, (kind, message) =>
      environment.notice(kind, message),
    );
    this.#cut = createCut((what) => environment.notice("cut", what));
    this.#write = this.#createWriter();
    this.traceId = run.place?.trace_id ?? traceIdOf(run.run_id);
    this.metadata = metadataOf(run, this.#cut);
    this.#common = this.#commonAttributes(run);
  }

  /** Describes the run anew: on what is `open`, and on every observation from now on. */
  describe(run: ObservedRun, open: readonly Observation[]): void {
    this.metadata = metadataOf(run, this.#cut);
    this.#common = this.#commonAttributes(run);
    for (const { span } of open) span.setAttributes(this.#common);
  }

  /** Whether inputs, or outputs, are sent. */
  captures(field: "input" | "output"): boolean {
    return this.#environment.settings.capture[field];
  }

  /** A time in this run's clock, which only goes forward; `epochMs` for a time known from elsewhere. */
  now(epochMs = this.#epochMs + (performance.now() - this.#zeroMs)): HrTime {
    const seconds = Math.floor(epochMs / 1_000);
    return [seconds, Math.round((epochMs - seconds * 1_000) * 1_000_000)];
  }

  open(
    start: {
      type: ObservationType;
      name: string;
      parent: SpanContext | undefined;
      spanId?: string;
      startTime?: HrTime;
      links?: readonly SpanContext[];
      attempt?: number | undefined;
    },
    fields: ObservationFields,
  ): Observation {
    const { dialect, spans } = this.#environment;
    const name =
      this.#mask(this.#cut.text(start.name, TEXT_LIMITS.observationName), "name") || "unnamed";
    const startTime = start.startTime ?? this.now();
    const span = spans.start({
      name: safely(() => dialect.spanName?.(start.type, name, fields)) ?? name,
      traceId: this.traceId,
      ...(start.spanId === undefined ? {} : { spanId: start.spanId }),
      attempt: start.attempt,
      parent: start.parent,
      startTime,
      ...(dialect.spanKind === undefined ? {} : { kind: dialect.spanKind(start.type) }),
      ...(dialect.links && start.links !== undefined ? { links: start.links } : {}),
    });
    const observation: Observation = {
      span,
      context: span.spanContext(),
      type: start.type,
      name,
      startMs: startTime[0] * 1_000 + startTime[1] / 1_000_000,
    };
    span.setAttributes(this.#common);
    const joins = start.parent?.isRemote === true;
    span.setAttributes(this.#say({ observation, phase: "open", joins }, fields));
    return observation;
  }

  /** Ends an observation; what it says from now on is lost. */
  close(observation: Observation, fields: ObservationFields, end = this.now()): void {
    const { dialect, packages } = this.#environment;
    const { span } = observation;
    span.setAttributes(this.#say({ observation, phase: "close", joins: false }, fields));
    if (fields.level === "ERROR") {
      const code = packages.otel.SpanStatusCode.ERROR;
      const message = dialect.exceptions ? this.#statusMessage(fields.statusMessage) : undefined;
      span.setStatus(message === undefined ? { code } : { code, message });
      if (dialect.exceptions) {
        span.addEvent("exception", this.#exception(fields, message ?? "failed"), end);
      }
    }
    span.end(end);
  }

  /** Metadata of the trace itself, beside that of its root observation. */
  describeTrace(root: Observation, metadata: Readonly<Record<string, unknown>>): void {
    root.span.setAttributes(this.#environment.dialect.trace(this.#metadata(metadata)));
  }

  /** Says so, once per process, if anything of this run was cut. */
  finish(): void {
    if (this.#serialiser.cut) this.#environment.notice("cut", "an input or output");
  }

  /** Inputs and outputs are other people's objects: what cannot be taken apart is told as unreadable, not lost. */
  #say(about: Parameters<Dialect["observation"]>[0], fields: ObservationFields): Attributes {
    const { dialect } = this.#environment;
    const attributes = safely(() => dialect.observation(about, fields, this.#write));
    if (attributes !== undefined) return attributes;
    const { level, statusMessage, errorType, model, usage, completionStart } = fields;
    const unreadable = "<cannot be read>";
    return dialect.observation(
      about,
      {
        ...(fields.input === undefined ? {} : { input: unreadable }),
        ...(fields.output === undefined ? {} : { output: unreadable }),
        level,
        statusMessage,
        errorType,
        model,
        usage,
        completionStart,
      },
      this.#write,
    );
  }

  #commonAttributes(run: ObservedRun): Attributes {
    const present = (id: string | undefined): string | undefined =>
      id === undefined || id === "" ? undefined : this.#cut.text(id, TEXT_LIMITS.id);
    const userId = present(run.user_id);
    const name = this.#cut.text(run.assistant_name || run.graph_id, TEXT_LIMITS.traceName);
    return this.#environment.dialect.common({
      name: this.#mask(name, "trace.name") || "run",
      sessionId: present(run.session_id),
      userId: userId === undefined ? undefined : this.#mask(userId, "user.id"),
      tags: tagsOf(run, this.#cut).map((tag) => this.#mask(tag, "trace.tags")),
      run,
    });
  }

  #createWriter(): FieldWriter {
    const { capture } = this.#environment.settings;
    return {
      captures: (field) => capture[field],
      content: (field, value) => this.#content(field, value),
      text: (field, text) => this.#mask(text, field),
      statusMessage: (message) => this.#statusMessage(message),
      metadata: (metadata) => this.#metadata(metadata),
      parameters: (parameters) => this.#parameters(parameters),
    };
  }

  #exception(fields: ObservationFields, message: string): Record<string, string> {
    const stack =
      fields.errorStack === undefined
        ? undefined
        : this.#mask(this.#cut.text(fields.errorStack, TEXT_LIMITS.statusMessage), "error_stack");
    return {
      "exception.type": fields.errorType ?? "Error",
      "exception.message": message,
      ...(stack === undefined ? {} : { "exception.stacktrace": stack }),
    };
  }

  #content(field: "input" | "output", value: unknown): string | undefined {
    if (!this.#environment.settings.capture[field]) return undefined;
    const text = this.#serialiser.toText(value);
    return text === undefined ? undefined : this.#mask(text, field);
  }

  #statusMessage(message: string | undefined): string | undefined {
    if (message === undefined) return undefined;
    return this.#mask(this.#cut.text(message, TEXT_LIMITS.statusMessage), "status_message");
  }

  #metadata(metadata: Readonly<Record<string, unknown>>): Record<string, string> {
    const texts: Record<string, string> = {};
    for (const [key, value] of Object.entries(metadata)) {
      if (value === undefined) continue;
      const text = this.#serialiser.entryText(key, value);
      texts[key] = this.#mask(this.#cut.text(text, TEXT_LIMITS.metadataValue), `metadata.${key}`);
    }
    return texts;
  }

  #parameters(
    parameters: Readonly<Record<string, unknown>> | undefined,
  ): Record<string, string | number> | undefined {
    if (parameters === undefined || Object.keys(parameters).length === 0) return undefined;
    const simple: Record<string, string | number> = {};
    for (const [key, value] of Object.entries(parameters)) {
      if (typeof value === "number" && Number.isFinite(value)) simple[key] = value;
      else if (Array.isArray(value) && value.every((entry) => typeof entry === "string")) {
        simple[key] = this.#mask(value.join(", "), `model_parameters.${key}`);
      } else
        simple[key] = this.#mask(this.#serialiser.entryText(key, value), `model_parameters.${key}`);
    }
    return simple;
  }
}

function safely<T>(read: () => T): T | undefined {
  try {
    return read();
  } catch {
    return undefined;
  }
}
