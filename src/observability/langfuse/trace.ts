import type { Span, SpanContext } from "@opentelemetry/api";
import { performance } from "node:perf_hooks";
import type { ObservedRun } from "../observer.ts";
import { createSerialiser, type Serialiser } from "../serialise.ts";
import type { ObservationType } from "./classify.ts";
import type { LangfuseSettings } from "./config.ts";
import { createCut, metadataOf, tagsOf, TEXT_LIMITS, traceIdOf, type Cut } from "./identity.ts";
import { simplifyLangChain } from "./messages.ts";
import type { Level } from "./outcome.ts";
import type { LangfusePackages } from "./packages.ts";
import type { HrTime, SpanFactory } from "./spans.ts";
import type { SchemaCache } from "./generation.ts";

/** What all runs of one observer share. */
export interface TraceEnvironment {
  settings: LangfuseSettings;
  packages: LangfusePackages;
  spans: SpanFactory;
  schemas: SchemaCache;
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
}

/** An observation under way. */
export interface Observation {
  readonly span: Span;
  readonly context: SpanContext;
  readonly type: ObservationType;
}

/**
 * Writes one run's observations: the trace's attributes on every span, values bounded, masked and captured as
 * configured, times from one clock. Thrown away with the run.
 */
export class RunTrace {
  readonly traceId: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly #environment: TraceEnvironment;
  readonly #serialiser: Serialiser;
  readonly #common: Readonly<Record<string, string | string[]>>;
  readonly #cut: Cut;
  readonly #epochMs = Date.now();
  readonly #zeroMs = performance.now();

  constructor(environment: TraceEnvironment, run: ObservedRun) {
    this.#environment = environment;
    this.#serialiser = createSerialiser({ simplify: simplifyLangChain });
    this.#cut = createCut((what) => environment.notice("cut", what));
    this.traceId = traceIdOf(run.run_id);
    this.metadata = metadataOf(run, this.#cut);
    this.#common = this.#commonAttributes(run);
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
    },
    fields: ObservationFields,
  ): Observation {
    const span = this.#environment.spans.start({
      name:
        this.#masked(this.#cut.text(start.name, TEXT_LIMITS.observationName), "name") || "unnamed",
      traceId: this.traceId,
      ...(start.spanId === undefined ? {} : { spanId: start.spanId }),
      parent: start.parent,
      startTime: start.startTime ?? this.now(),
    });
    const observation = { span, context: span.spanContext(), type: start.type };
    span.setAttributes(this.#common);
    this.update(observation, fields);
    return observation;
  }

  update(observation: Observation, fields: ObservationFields): void {
    const { createObservationAttributes } = this.#environment.packages.langfuse;
    const { capture } = this.#environment.settings;
    observation.span.setAttributes(
      createObservationAttributes(observation.type, {
        ...(capture.input ? this.#content("input", fields.input) : {}),
        ...(capture.output ? this.#content("output", fields.output) : {}),
        ...(fields.level === undefined ? {} : { level: fields.level }),
        ...this.#statusMessage(fields.statusMessage),
        ...(fields.metadata === undefined ? {} : { metadata: this.#metadata(fields.metadata) }),
        ...(fields.model === undefined ? {} : { model: fields.model }),
        ...this.#parameters(fields.parameters),
        ...(fields.usage === undefined ? {} : { usageDetails: fields.usage }),
        ...(fields.prompt === undefined ? {} : { prompt: fields.prompt }),
      }),
    );
    if (fields.completionStart !== undefined) {
      // Not through the official mapping, which would put the date in quotes.
      const key =
        this.#environment.packages.langfuse.LangfuseOtelSpanAttributes
          .OBSERVATION_COMPLETION_START_TIME;
      observation.span.setAttribute(key, fields.completionStart.toISOString());
    }
  }

  /** Ends an observation; what it says from now on is lost. */
  close(observation: Observation, fields: ObservationFields): void {
    this.update(observation, fields);
    if (fields.level === "ERROR") {
      observation.span.setStatus({ code: this.#environment.packages.otel.SpanStatusCode.ERROR });
    }
    observation.span.end(this.now());
  }

  /** Metadata of the trace itself, beside that of its root observation. */
  describeTrace(root: Observation, metadata: Readonly<Record<string, unknown>>): void {
    const prefix = this.#environment.packages.langfuse.LangfuseOtelSpanAttributes.TRACE_METADATA;
    for (const [key, text] of Object.entries(this.#metadata(metadata))) {
      root.span.setAttribute(`${prefix}.${key}`, text);
    }
  }

  /** Says so, once per process, if anything of this run was cut. */
  finish(): void {
    if (this.#serialiser.cut) this.#environment.notice("cut", "an input or output");
  }

  #commonAttributes(run: ObservedRun): Record<string, string | string[]> {
    const names = this.#environment.packages.langfuse.LangfuseOtelSpanAttributes;
    const { settings } = this.#environment;
    const cutId = (text: string): string => this.#cut.text(text, TEXT_LIMITS.id);
    const traceName = this.#cut.text(run.assistant_name || run.graph_id, TEXT_LIMITS.traceName);
    return {
      [names.TRACE_NAME]: this.#masked(traceName, "trace.name") || "run",
      ...(run.session_id === undefined || run.session_id === ""
        ? {}
        : { [names.TRACE_SESSION_ID]: cutId(run.session_id) }),
      ...(run.user_id === undefined || run.user_id === ""
        ? {}
        : { [names.TRACE_USER_ID]: this.#masked(cutId(run.user_id), "user.id") }),
      [names.TRACE_TAGS]: tagsOf(run, this.#cut).map((tag) => this.#masked(tag, "trace.tags")),
      [names.ENVIRONMENT]: settings.environment,
      ...(settings.release === undefined ? {} : { [names.RELEASE]: cutId(settings.release) }),
      ...(settings.version === undefined ? {} : { [names.VERSION]: cutId(settings.version) }),
    };
  }

  #content(field: "input" | "output", value: unknown): { input?: string; output?: string } {
    const text = this.#serialiser.toText(value);
    return text === undefined ? {} : { [field]: this.#masked(text, field) };
  }

  #statusMessage(message: string | undefined): { statusMessage?: string } {
    if (message === undefined) return {};
    return {
      statusMessage: this.#masked(
        this.#cut.text(message, TEXT_LIMITS.statusMessage),
        "status_message",
      ),
    };
  }

  #metadata(metadata: Readonly<Record<string, unknown>>): Record<string, string> {
    const texts: Record<string, string> = {};
    for (const [key, value] of Object.entries(metadata)) {
      if (value === undefined) continue;
      const text = this.#serialiser.entryText(key, value);
      texts[key] = this.#masked(this.#cut.text(text, TEXT_LIMITS.metadataValue), `metadata.${key}`);
    }
    return texts;
  }

  #parameters(parameters: Readonly<Record<string, unknown>> | undefined): {
    modelParameters?: Record<string, string | number>;
  } {
    if (parameters === undefined || Object.keys(parameters).length === 0) return {};
    const simple: Record<string, string | number> = {};
    for (const [key, value] of Object.entries(parameters)) {
      if (typeof value === "number" && Number.isFinite(value)) simple[key] = value;
      else if (Array.isArray(value) && value.every((entry) => typeof entry === "string")) {
        simple[key] = this.#masked(value.join(", "), `model_parameters.${key}`);
      } else
        simple[key] = this.#masked(
          this.#serialiser.entryText(key, value),
          `model_parameters.${key}`,
        );
    }
    return { modelParameters: simple };
  }

  #masked(text: string, field: string): string {
    const { mask } = this.#environment.settings;
    if (mask === undefined) return text;
    try {
      const masked: unknown = mask(text, field);
      if (typeof masked === "string") return masked;
      this.#environment.notice(
        "mask",
        `it returned ${masked === null ? "null" : typeof masked} instead of a string`,
      );
    } catch (error) {
      this.#environment.notice("mask", error instanceof Error ? error.message : String(error));
    }
    return "<withheld: the mask failed>";
  }
}
