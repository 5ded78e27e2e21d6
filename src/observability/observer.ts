import type { BaseCallbackHandler } from "@langchain/core/callbacks/base";

/** Where a run's trace is. Decided when the run is accepted, and kept with the run. */
export interface TracePlace {
  /** 32 hex digits: the run id without dashes, or the caller's trace for a run that joins it. */
  trace_id: string;
  /** The caller's span the run hangs below, 16 hex digits; absent for a trace of its own. */
  parent_span_id?: string | undefined;
  /** The Langfuse project that was chosen for the run; absent for the default one. */
  project?: string | undefined;
}

/** What decides where a run is traced, and whether it is. */
export type TraceableRun = Pick<
  ObservedRun,
  | "run_id"
  | "thread_id"
  | "user_id"
  | "graph_id"
  | "assistant_id"
  | "metadata"
  | "headers"
  | "traceparent"
  | "place"
>;

/** What the server knows of a run when it starts. Nothing in here was chosen by the client unless it says so. */
export interface ObservedRun {
  run_id: string;
  /** The thread; a stateless run has one too, but it is not a session. */
  thread_id: string;
  /** The conversation this run belongs to: the thread, or what the client named for a stateless run. */
  session_id: string | undefined;
  /** The authenticated identity; absent for anonymous requests. */
  user_id: string | undefined;
  graph_id: string;
  assistant_id: string;
  /** The assistant's name; the graph id for a system assistant. */
  assistant_name: string;
  assistant_version: number;
  /** 1 for the first try; higher when an earlier worker was lost. 0 for a run that never started. */
  attempt: number;
  /** The attempts before, and how they were left: `lost`, or handed back by a process that could not go on. */
  left_attempts?:
    | readonly { attempt: number; started_at: Date; ended_at: Date; lost: boolean }[]
    | undefined;
  /** It ends while it waits in the queue: there is no attempt under way, and `attempt` was the last one. */
  waiting?: boolean | undefined;
  /** What caused the run: `api`, `cron`, ... */
  trigger: string;
  /** The client's own tags. */
  tags: readonly string[];
  /** The client's own metadata. May add keys to a trace, never overwrite the server's. */
  metadata: Readonly<Record<string, unknown>>;
  /** The run's input, or the command's resume value. */
  input: unknown;
  /** The checkpoint the run starts from, where the client named one. */
  checkpoint_id: string | undefined;
  /** The interrupted run this one answers. */
  resumed_from: string | undefined;
  created_at: Date;
  /** When the worker began; the difference to `created_at` is the queue wait. */
  started_at: Date;
  /** The incoming W3C `traceparent` header, verbatim. */
  traceparent: string | undefined;
  /** Request headers that may say something about tracing, with lower-case names. */
  headers?: Readonly<Record<string, string>> | undefined;
  /** The root is not sent before `settled` tells that the run's result is stored. */
  awaits_result?: boolean | undefined;
  /** Where the trace goes, if that was decided before; else it is decided at the start. */
  place?: TracePlace | undefined;
  /**
   * The signal that stops this run. An error that is its reason reads as a cancel (WARNING), or as a timeout
   * (ERROR) where the reason is named `TimeoutError`.
   */
  signal?: AbortSignal | undefined;
}

/** How a run ended. */
export interface RunOutcome {
  /**
   * `success`; `interrupted` (the graph asked a question or hit a breakpoint); `cancelled` (a client stopped
   * it); `rolled_back`; `timeout`; `error`; `lost` (this worker lost its lease, another one goes on).
   */
  status: "success" | "interrupted" | "cancelled" | "rolled_back" | "timeout" | "error" | "lost";
  /** The final state, or the state reached. */
  output?: unknown;
  /** The pending interrupts' values, for `interrupted`. */
  interrupts?: readonly unknown[];
  /** What was thrown, for `error` and `timeout`. */
  error?: unknown;
}

/** What a graph carries with it for all its runs. */
export interface BoundConfig {
  tags?: readonly string[] | undefined;
  metadata?: Readonly<Record<string, unknown>> | undefined;
}

/** One run being observed. Every method is safe to call in any order, any number of times, and never throws. */
export interface RunObservation {
  /** 32 hex digits, the run id without dashes; `undefined` when this run is not traced. */
  readonly traceId: string | undefined;
  /** Callback handlers of this run alone; pass them by reference to the graph. */
  readonly callbacks: BaseCallbackHandler[];
  /** Extra LangChain metadata for the run's config. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /**
   * Told, before the graph starts, what it says of all its runs (`graph.withConfig`). It may add to the trace, never
   * overwrite what the run says.
   */
  bound?(config: BoundConfig): void;
  /** Runs `work` in the run's own tracing context. */
  within<T>(work: () => T): T;
  /** Told when the run has given its first event: a token, an update, values. Later calls do nothing. */
  firstEvent?(): void;
  /** Ends the root and every observation still open. Later calls do nothing. */
  end(outcome: RunOutcome): void;
  /**
   * Resolves when what was observed so far outlives this process, where traces wait on disk or in the database; after
   * a while whatever happens (a quarter of a second; two seconds for the database). Never rejects.
   */
  recorded?(): Promise<void>;
  /**
   * For a run that `awaits_result`: told once after `end` whether its result is stored. Where it is not, or nobody
   * knows, the runs are asked whether a later attempt tells how the run ended.
   */
  settled?(stored: boolean): void;
}

/** A judgement on a run, such as a thumbs up. */
export interface Score {
  /** Makes the score idempotent: the same id replaces the earlier value. */
  id: string;
  run_id: string;
  name: string;
  value: number | string;
  data_type: "NUMERIC" | "BOOLEAN" | "CATEGORICAL";
  comment: string | undefined;
  /** Where the run's trace is, if it is known. */
  place?: TracePlace | undefined;
}

/** The state of one tracing target, for the start banner and `/info`. */
export interface ObserverStatus {
  /** Such as `langfuse`. */
  name: string;
  /**
   * `off`: not asked for. `checking`: the key check is under way. `on`: traces are being accepted.
   * `misconfigured`: cannot work until a person changes something. `unreachable`: will be retried.
   */
  state: "off" | "checking" | "on" | "misconfigured" | "unreachable";
  /** One plain sentence for a person: the project's name, or what is wrong and what to do. */
  message: string;
  /** Where traces go; no credentials. */
  host: string | undefined;
  /** Whether judgements of runs become scores there. */
  scores?: boolean;
  /** Spans made, delivered, waiting and given up since the start. */
  spans: { made: number; sent: number; pending: number; dropped: number };
  last_error: string | undefined;
  /** How delivery goes, where there is any. */
  delivery?: DeliveryStatus | undefined;
}

/** How one stream of records goes to a target; counts are since the start of the process. */
export interface StreamStatus {
  pending_bytes: number;
  /** Age of the oldest record that waits, in milliseconds. */
  oldest_ms: number | undefined;
  last_success_at: string | undefined;
  last_error_at: string | undefined;
  /** Records put into a further request. */
  retried: number;
  /** Records the target will not take, kept as dead letters. They count as dropped too. */
  dead_lettered: number;
  /** Records of another process that was killed or stopped, and dead letters that were put back. */
  adopted: number;
  /** Files of a killed process that ended in half a record, or could not be read. */
  torn: number;
}

/** How delivery to one target goes: that of spans, and that of scores where there are any. */
export interface DeliveryStatus extends StreamStatus {
  /** Where records wait: files or a table, which outlive the process, or memory. */
  spool: "disk" | "database" | "memory";
  scores?:
    | (StreamStatus & ObserverStatus["spans"] & { last_error: string | undefined })
    | undefined;
}

/**
 * The observability seam. The engine knows only this interface; Langfuse, OTLP, the no-op and a test recorder
 * implement it, and one contract suite tests them all. No method throws, blocks a run, or slows it noticeably.
 */
export interface Observer {
  /** Where a run would be traced; `undefined` where it would not be. Left out: nowhere but by its run id. */
  place?(run: TraceableRun): TracePlace | undefined;
  startRun(run: ObservedRun): RunObservation;
  /** Queues a score; resolves when it is accepted for delivery. */
  score(score: Score): Promise<void>;
  /** A browser link to the run's trace, once the target's project is known. */
  traceUrl(runId: string, place?: TracePlace): string | undefined;
  status(): ObserverStatus[];
  /** Resolves when the first check of the target has an answer; never rejects. */
  ready(): Promise<void>;
  /** Sends what is waiting; true if nothing is left after at most `timeoutMs`. */
  flush(timeoutMs: number): Promise<boolean>;
  /** Flushes for at most `timeoutMs`, then releases everything. */
  shutdown(timeoutMs: number): Promise<void>;
}

const unobserved: RunObservation = {
  traceId: undefined,
  callbacks: [],
  metadata: {},
  within: (work) => work(),
  end: () => {},
};

/** An observer that watches nothing: tracing is off. */
export function createNoopObserver(): Observer {
  return {
    place: () => undefined,
    startRun: () => unobserved,
    score: async () => {},
    traceUrl: () => undefined,
    status: () => [],
    ready: async () => {},
    flush: async () => true,
    shutdown: async () => {},
  };
}

/** An observer that does nothing and says why: `problem` is what is wrong with the target, and what to do. */
export function createIdleObserver(about: {
  name: string;
  host: string;
  problem: string;
}): Observer {
  return {
    ...createNoopObserver(),
    status: () => [
      {
        name: about.name,
        state: "misconfigured",
        message: `Tracing is off: ${about.problem}`,
        host: about.host,
        spans: { made: 0, sent: 0, pending: 0, dropped: 0 },
        last_error: about.problem,
      },
    ],
  };
}
