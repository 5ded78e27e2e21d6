import type { Logger } from "pino";
import type { DeliveryState, Sender } from "../delivery/sender.ts";
import { createSpooledSender, toDeliveryStatus, type Spool } from "../delivery/spooled-sender.ts";
import {
  closeSenders,
  createNotices,
  describeOn,
  refusals,
  type Notices,
} from "../delivery/notices.ts";
import type { AskSuperseded } from "../delivery/record.ts";
import { createHttpTransport, type TransportOptions } from "../delivery/transport.ts";
import { within } from "../delivery/within.ts";
import {
  createIdleObserver,
  createNoopObserver,
  type ObservedRun,
  type Observer,
  type ObserverStatus,
  type RunObservation,
  type TracePlace,
} from "../observer.ts";
import { createRequestEncoder } from "../otlp-protobuf.ts";
import { TurnBudget } from "../trace/turn-budget.ts";
import { toSettings, type LangfuseConfig, type LangfuseSettings } from "./config.ts";
import { createLangfuseDialect } from "./dialect.ts";
import { createCut, isSampled, traceIdOf } from "../trace/identity.ts";
import { INSTALL_COMMAND, loadPackages, type LangfusePackages } from "./packages.ts";
import { basicAuth, checkProject, type ProjectCheck } from "./project.ts";
import { createMask } from "../trace/mask.ts";
import { observeRun } from "../trace/run.ts";
import { encodeScore, SCORES_PATH } from "./scores.ts";
import { createSpanFactory } from "../trace/spans.ts";
import type { TraceEnvironment } from "../trace/run-trace.ts";

/** What the observer needs from around it. */
export interface LangfuseDeps {
  log: Logger;
  /** Where traces wait; in memory without it. */
  spool?: Spool | undefined;
  /** The largest record the spool takes; a larger span is cut. Default 16 MB. */
  maxRecordBytes?: number | undefined;
  /** Who knows what became of a run, for roots that wait for its result. */
  superseded?: AskSuperseded | undefined;
  /** Shared with other targets, so that all together leave turns of the event loop to others. */
  budget?: TurnBudget | undefined;
  /** The name of a further project: it has a status and a spool of its own. */
  project?: string | undefined;
}

function targetOf({ project }: LangfuseDeps): string {
  return project === undefined ? "langfuse" : `langfuse:${project}`;
}

/**
 * An observer that sends every run to Langfuse. Always resolves: where something is missing it says so once, and
 * the observer it gives is harmless and tells what is wrong in `status()`. The keys are checked in the
 * background. `shutdown` releases it.
 */
export async function loadLangfuseObserver(
  config: LangfuseConfig,
  deps: LangfuseDeps,
): Promise<Observer> {
  if (!config.enabled) return createNoopObserver();
  const { settings, problem, notes } = toSettings(config);
  for (const note of notes) deps.log.warn(note);
  if (problem !== undefined) {
    deps.log.warn(`Langfuse tracing is off: ${problem} Runs are not traced.`);
    return createIdleObserver({ name: targetOf(deps), host: settings.host, problem });
  }
  const packages = await loadPackages();
  if ("missing" in packages) {
    const message = `its packages are not installed. Run: ${INSTALL_COMMAND}`;
    deps.log.warn(
      `Langfuse tracing is off: ${message} (${packages.missing}). Runs are not traced.`,
    );
    return createIdleObserver({ name: targetOf(deps), host: settings.host, problem: message });
  }
  return new LangfuseObserver(settings, packages, deps);
}

/** Langfuse copies all attributes of any other scope into the metadata. */
const SCOPE = { name: "langfuse-sdk", version: "5.11.1" } as const;

/** How often an unanswered key check is repeated, at first and at most. */
const RECHECK_MS = { first: 2_000, longest: 60_000 } as const;

class LangfuseObserver implements Observer {
  readonly #settings: LangfuseSettings;
  readonly #log: Logger;
  readonly #sender: Sender;
  readonly #scores: Sender;
  readonly #deps: LangfuseDeps;
  readonly #target: string;
  readonly #environment: TraceEnvironment;
  readonly #unobserved: Observer = createNoopObserver();
  readonly #stop = new AbortController();
  readonly #ready: Promise<void>;
  readonly #notices: Notices;
  #saidDown = false;
  #recovers = false;
  #check: ProjectCheck | undefined;
  #recheck: NodeJS.Timeout | undefined;
  #checks = 0;

  constructor(settings: LangfuseSettings, packages: LangfusePackages, deps: LangfuseDeps) {
    this.#settings = settings;
    this.#log = deps.log;
    this.#target = targetOf(deps);
    this.#deps = deps;
    this.#sender = this.#createSender();
    this.#scores = this.#createScoreSender();
    this.#notices = createNotices(deps.log);
    const { notice } = this.#notices;
    const cut = createCut((what) => notice("cut", what));
    this.#environment = {
      settings,
      packages,
      dialect: createLangfuseDialect(packages, settings, cut),
      spans: createSpanFactory(packages, {
        scope: SCOPE,
        onSpan: (span) => this.#sender.put(span),
        maxBytes: deps.maxRecordBytes,
        onCut: (what) => notice("cut", what),
      }),
      recorded: () => this.#sender.recorded(),
      settle: (root, stored) => this.#sender.settle(root, stored),
      schemas: new WeakMap(),
      budget: deps.budget ?? new TurnBudget(),
      notice,
    };
    this.#ready = this.#checkKeys();
  }

  place(run: Pick<ObservedRun, "run_id" | "place">): TracePlace | undefined {
    const place = run.place ?? { trace_id: traceIdOf(run.run_id) };
    return isSampled(place.trace_id, this.#settings.sampleRate) ? place : undefined;
  }

  startRun(run: ObservedRun): RunObservation {
    try {
      if (this.#stop.signal.aborted || this.place(run) === undefined) {
        return this.#unobserved.startRun(run);
      }
      return this.#environment.budget.charge(() =>
        observeRun(this.#environment, run, (error) => this.#notices.bug(error)),
      );
    } catch (error) {
      this.#notices.bug(error);
      return this.#unobserved.startRun(run);
    }
  }

  async score(score: Parameters<Observer["score"]>[0]): Promise<void> {
    const mask = createMask(this.#settings.mask, this.#notices.notice);
    this.#scores.put(
      encodeScore(score, this.#settings, (comment) => mask(comment, "score.comment")),
    );
    await this.#scores.recorded();
  }

  traceUrl(runId: string, place?: TracePlace): string | undefined {
    const projectId = this.#check?.kind === "ok" ? this.#check.projectId : undefined;
    const traced = this.place({ run_id: runId, place });
    if (projectId === undefined || traced === undefined) return undefined;
    return `${this.#settings.host}/project/${encodeURIComponent(projectId)}/traces/${traced.trace_id}`;
  }

  status(): ObserverStatus[] {
    const { state, message } = this.#state();
    return [
      {
        name: this.#target,
        state,
        message,
        host: this.#settings.host,
        scores: true,
        spans: this.#sender.counts(),
        last_error:
          this.#sender.lastError ?? (this.#check?.kind === "ok" ? undefined : this.#check?.message),
        delivery: toDeliveryStatus(this.#sender, this.#scores),
      },
    ];
  }

  ready(): Promise<void> {
    return this.#ready;
  }

  async flush(timeoutMs: number): Promise<boolean> {
    const deadline = Date.now() + timeoutMs;
    await within(timeoutMs, this.#environment.budget.caughtUp());
    const leftMs = Math.max(0, deadline - Date.now());
    const [spans, scores] = await Promise.all([
      this.#sender.flush(leftMs),
      this.#scores.flush(leftMs),
    ]);
    return spans && scores;
  }

  async shutdown(timeoutMs: number): Promise<void> {
    if (this.#stop.signal.aborted) return;
    await this.#environment.budget.caughtUp();
    await closeSenders(
      { spans: this.#sender, scores: this.#scores },
      { title: "Langfuse", log: this.#log, timeoutMs },
    );
    this.#stop.abort();
    clearTimeout(this.#recheck);
  }

  #state(): { state: ObserverStatus["state"]; message: string } {
    const { host } = this.#settings;
    const delivery = this.#sender.state;
    const accepted = delivery === "up" || delivery === "recovering";
    if (delivery === "refused" || (this.#check?.kind === "refused" && !accepted)) {
      const message =
        this.#check?.kind === "refused"
          ? this.#check.message
          : `Langfuse at ${host} refuses the traces (${this.#sender.lastError}): check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY. Traces wait in the meantime.`;
      return { state: "misconfigured", message };
    }
    if (delivery === "down" || (this.#check?.kind === "unreachable" && !accepted)) {
      const message =
        delivery === "down" || this.#check?.kind !== "unreachable"
          ? `Langfuse at ${host} does not accept traces now (${this.#sender.lastError}). They wait and are tried again.`
          : this.#check.message;
      return { state: "unreachable", message };
    }
    if (this.#check === undefined && !accepted) {
      return { state: "checking", message: `Checking the keys with ${host}.` };
    }
    return { state: "on", message: this.#onMessage() };
  }

  #onMessage(): string {
    const name = this.#check?.kind === "ok" ? this.#check.projectName : undefined;
    const { host } = this.#settings;
    const where = name === undefined ? host : `the project "${name}" at ${host}`;
    return describeOn(where, this.#sender.state);
  }

  async #checkKeys(): Promise<void> {
    const before = this.#check?.kind;
    const answer = await checkProject(this.#settings, this.#stop.signal);
    if (this.#stop.signal.aborted) return;
    this.#check = answer;
    this.#checks += 1;
    if (answer.kind === "ok") {
      if (before !== undefined) this.#log.info(`Langfuse is back. ${this.#onMessage()}`);
      return;
    }
    if (before !== answer.kind) this.#log.warn(answer.message);
    const waitMs = Math.min(
      RECHECK_MS.longest,
      RECHECK_MS.first * 2 ** Math.min(this.#checks - 1, 10),
    );
    this.#recheckIn(waitMs);
  }

  #recheckIn(waitMs: number): void {
    clearTimeout(this.#recheck);
    this.#recheck = setTimeout(() => void this.#checkKeys(), waitMs);
    this.#recheck.unref();
  }

  #createSender(): Sender {
    const settings = this.#settings;
    return createSpooledSender({
      ...this.#streamOptions("spans", "application/x-protobuf"),
      encode: createRequestEncoder({ resource: { "service.name": "aegra" }, scope: SCOPE }),
      flushAt: settings.flushAt,
      flushIntervalMs: settings.flushIntervalMs,
      onState: (state, message) => this.#onDelivery(state, message),
    });
  }

  /** One score per request, one request at a time: the later of two scores with one id has to arrive later. */
  #createScoreSender(): Sender {
    return createSpooledSender({
      ...this.#streamOptions("scores", "application/json"),
      encode: ([score]) => Buffer.from(score ?? []),
      flushAt: 1,
      maxInFlight: 1,
      flushIntervalMs: 0,
      onState: () => {},
    });
  }

  #streamOptions(stream: "spans" | "scores", contentType: TransportOptions["contentType"]) {
    const settings = this.#settings;
    const path = stream === "spans" ? "/api/public/otel/v1/traces" : SCORES_PATH;
    return {
      spool: this.#deps.spool,
      superseded: this.#deps.superseded,
      target: this.#target.replace(":", "-"),
      stream,
      log: this.#log,
      transport: createHttpTransport({
        url: `${settings.host}${path}`,
        headers: {
          ...settings.headers,
          authorization: basicAuth(settings),
          "x-langfuse-ingestion-version": "4",
          "x-langfuse-sdk-name": "javascript",
          "x-langfuse-sdk-version": SCOPE.version,
          "x-langfuse-public-key": settings.publicKey,
        },
        timeoutMs: settings.timeoutMs,
        contentType,
      }),
      ...refusals("Langfuse", stream, this.#log),
    };
  }

  /** One line per change. What the key check has already said at the start is not said again. */
  #onDelivery(state: DeliveryState, message: string): void {
    if (state === "recovering" || state === "up") {
      if (this.#check !== undefined && this.#check.kind !== "ok") this.#recheckIn(0);
      else if (this.#saidDown)
        this.#log.info(`Langfuse accepts traces again; what waited is being sent.`);
      this.#saidDown = false;
      if (state === "up" && this.#recovers) this.#log.info("Langfuse has all traces that waited.");
      this.#recovers = state === "recovering";
      return;
    }
    const said =
      state === "refused" ? this.#check?.kind === "refused" : this.#check?.kind === "unreachable";
    if (said) return;
    this.#saidDown = true;
    this.#log.warn(
      state === "refused"
        ? `Langfuse refuses the traces (${message}): check LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY. Traces wait in the meantime.`
        : `Langfuse does not accept traces (${message}). They wait and are tried again.`,
    );
  }
}
