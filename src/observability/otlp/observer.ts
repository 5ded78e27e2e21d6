import type { Logger } from "pino";
import {
  closeSenders,
  createNotices,
  describeOn,
  refusals,
  type Notices,
} from "../delivery/notices.ts";
import type { AskSuperseded } from "../delivery/record.ts";
import type { DeliveryState, Sender } from "../delivery/sender.ts";
import { createSpooledSender, toDeliveryStatus, type Spool } from "../delivery/spooled-sender.ts";
import { createHttpTransport } from "../delivery/transport.ts";
import { within } from "../delivery/within.ts";
import type { Mask } from "../trace/mask.ts";
import type { Dialect } from "../trace/dialect.ts";
import { traceIdOf } from "../trace/identity.ts";
import { loadOtelPackages, OTEL_INSTALL_COMMAND, type OtelPackages } from "../trace/otel.ts";
import { observeRun } from "../trace/run.ts";
import { createSpanFactory } from "../trace/spans.ts";
import type { TraceEnvironment } from "../trace/run-trace.ts";
import {
  createIdleObserver,
  createNoopObserver,
  type ObservedRun,
  type Observer,
  type ObserverStatus,
  type RunObservation,
  type TraceableRun,
  type TracePlace,
} from "../observer.ts";
import { createRequestEncoder, createSpanEncoder } from "../otlp-protobuf.ts";
import { TurnBudget } from "../trace/turn-budget.ts";
import { genAiDialect } from "./genai.ts";
import { createJsonRequestEncoder, encodeJsonSpan } from "./json.ts";
import { createOpenInferenceDialect } from "./openinference.ts";

/** A backend that takes OTLP over HTTP, and what it is told. */
export interface OtlpConfig {
  /** `otlp` is told the GenAI conventions, `phoenix` OpenInference. */
  name: "otlp" | "phoenix";
  /** Where traces are posted, path included. */
  url: string;
  protocol: "http/protobuf" | "http/json";
  /** Sent to this target and to no other. */
  headers: Readonly<Record<string, string>>;
  /** Attributes of the OpenTelemetry resource, `service.name` among them. */
  resource: Readonly<Record<string, string>>;
  timeoutMs: number;
  /** Spans that make a batch worth sending at once. Default 256. */
  flushAt?: number | undefined;
  /** The longest a span waits for company. Default 1,000. */
  flushIntervalMs?: number | undefined;
  /** Applied to every text before it leaves the process. A field whose mask throws is withheld. */
  mask?: Mask | undefined;
  /** What content is captured (both default to true), and the longest field in characters. Default 400,000. */
  capture?:
    | { input?: boolean | undefined; output?: boolean | undefined; maxChars?: number | undefined }
    | undefined;
  /** The server's version: that of the instrumentation. */
  version?: string | undefined;
}

export interface OtlpDeps {
  log: Logger;
  /** Where traces wait; in memory without it. */
  spool?: Spool | undefined;
  /** The largest record the spool takes; a larger span is cut. Default 16 MB. */
  maxRecordBytes?: number | undefined;
  /** Who knows what became of a run, for roots that wait for its result. */
  superseded?: AskSuperseded | undefined;
  /** Shared with other targets, so that all together leave turns of the event loop to others. */
  budget?: TurnBudget | undefined;
}

const TITLES = { otlp: "the OTLP backend", phoenix: "Phoenix" } as const;

/**
 * An observer that sends every run to an OTLP backend. Always resolves: where a package is missing it says so
 * once, and the observer it gives is harmless. `shutdown` releases it.
 */
export async function loadOtlpObserver(config: OtlpConfig, deps: OtlpDeps): Promise<Observer> {
  const packages = await loadOtelPackages();
  if (!("missing" in packages)) return new OtlpObserver(config, packages, deps);
  const problem = `its packages are not installed. Run: ${OTEL_INSTALL_COMMAND}`;
  deps.log.warn(
    `Tracing to ${TITLES[config.name]} is off: ${problem} (${packages.missing}). Runs are not traced there.`,
  );
  return createIdleObserver({ name: config.name, host: hostOf(config.url), problem });
}

class OtlpObserver implements Observer {
  readonly #config: OtlpConfig;
  readonly #log: Logger;
  readonly #sender: Sender;
  readonly #environment: TraceEnvironment;
  readonly #notices: Notices;
  #saidDown = false;
  #recovers = false;
  #closed = false;

  constructor(config: OtlpConfig, packages: OtelPackages, deps: OtlpDeps) {
    this.#config = config;
    this.#log = deps.log;
    this.#notices = createNotices(deps.log);
    const dialect = config.name === "phoenix" ? createOpenInferenceDialect() : genAiDialect;
    const scope = { name: "aegra", version: config.version ?? "0" };
    this.#sender = this.#createSender(scope, deps);
    this.#environment = {
      settings: {
        mask: config.mask,
        capture: {
          input: config.capture?.input ?? true,
          output: config.capture?.output ?? true,
          maxChars: config.capture?.maxChars,
        },
      },
      packages,
      dialect: dialect satisfies Dialect,
      spans: createSpanFactory(packages, {
        scope,
        onSpan: (span) => this.#sender.put(span),
        maxBytes: deps.maxRecordBytes,
        onCut: (what) => this.#notices.notice("cut", what),
        encode: config.protocol === "http/json" ? encodeJsonSpan : createSpanEncoder(),
      }),
      recorded: () => this.#sender.recorded(),
      settle: (root, stored) => this.#sender.settle(root, stored),
      schemas: new WeakMap(),
      budget: deps.budget ?? new TurnBudget(),
      notice: this.#notices.notice,
    };
  }

  place(run: TraceableRun): TracePlace {
    return run.place ?? { trace_id: traceIdOf(run.run_id) };
  }

  startRun(run: ObservedRun): RunObservation {
    if (this.#closed) return createNoopObserver().startRun(run);
    try {
      return this.#environment.budget.charge(() =>
        observeRun(this.#environment, run, (error) => this.#notices.bug(error)),
      );
    } catch (error) {
      this.#notices.bug(error);
      return createNoopObserver().startRun(run);
    }
  }

  /** OTLP has no scores. */
  async score(): Promise<void> {}

  traceUrl(): undefined {
    return undefined;
  }

  status(): ObserverStatus[] {
    const { state, lastError } = this.#sender;
    const title = TITLES[this.#config.name];
    const host = hostOf(this.#config.url);
    const told: Record<DeliveryState, Pick<ObserverStatus, "state" | "message">> = {
      idle: { state: "on", message: describeOn(`${title} at ${host}`, state) },
      up: { state: "on", message: describeOn(`${title} at ${host}`, state) },
      recovering: { state: "on", message: describeOn(`${title} at ${host}`, state) },
      down: {
        state: "unreachable",
        message: `${capital(title)} at ${host} does not accept traces now (${lastError}). They wait and are tried again.`,
      },
      refused: {
        state: "misconfigured",
        message: `${capital(title)} at ${host} refuses the traces (${lastError}): check its keys. They wait in the meantime.`,
      },
    };
    return [
      {
        name: this.#config.name,
        ...told[state],
        host,
        scores: false,
        spans: this.#sender.counts(),
        last_error: lastError,
        delivery: toDeliveryStatus(this.#sender),
      },
    ];
  }

  async ready(): Promise<void> {}

  async flush(timeoutMs: number): Promise<boolean> {
    const deadline = Date.now() + timeoutMs;
    await within(timeoutMs, this.#environment.budget.caughtUp());
    return this.#sender.flush(Math.max(0, deadline - Date.now()));
  }

  async shutdown(timeoutMs: number): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const title = TITLES[this.#config.name];
    await this.#environment.budget.caughtUp();
    await closeSenders({ spans: this.#sender }, { title, log: this.#log, timeoutMs });
  }

  #createSender(scope: { name: string; version: string }, deps: OtlpDeps): Sender {
    const { name, protocol, url, headers, timeoutMs } = this.#config;
    const json = protocol === "http/json";
    const origin = { resource: this.#config.resource, scope };
    const title = TITLES[name];
    return createSpooledSender({
      spool: deps.spool,
      superseded: deps.superseded,
      // What waits is in one form or the other.
      target: json ? `${name}-json` : name,
      stream: "spans",
      log: this.#log,
      transport: createHttpTransport({
        url,
        headers,
        timeoutMs,
        contentType: json ? "application/json" : "application/x-protobuf",
      }),
      encode: json ? createJsonRequestEncoder(origin) : createRequestEncoder(origin),
      flushAt: this.#config.flushAt ?? 256,
      flushIntervalMs: this.#config.flushIntervalMs ?? 1_000,
      onState: (state, message) => this.#onDelivery(state, message),
      ...refusals(title, "spans", this.#log),
    });
  }

  /** One line per change of state. */
  #onDelivery(state: DeliveryState, message: string): void {
    const title = capital(TITLES[this.#config.name]);
    if (state === "recovering" || state === "up") {
      if (this.#saidDown)
        this.#log.info(`${title} accepts traces again; what waited is being sent.`);
      this.#saidDown = false;
      if (state === "up" && this.#recovers) this.#log.info(`${title} has all traces that waited.`);
      this.#recovers = state === "recovering";
      return;
    }
    this.#saidDown = true;
    this.#log.warn(
      state === "refused"
        ? `${title} refuses the traces (${message}): check its keys. They wait in the meantime.`
        : `${title} does not accept traces (${message}). They wait and are tried again.`,
    );
  }
}

function hostOf(url: string): string {
  return URL.canParse(url) ? new URL(url).origin : url;
}

function capital(title: string): string {
  return title.charAt(0).toUpperCase() + title.slice(1);
}
