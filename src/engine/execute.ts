import type { BaseStore } from "@langchain/langgraph-checkpoint";
import { isUnknownInterruptError, type StateSnapshot } from "@langchain/langgraph";
import type { CompiledGraph } from "../graphs/compiled.ts";
import type { GraphRegistry } from "../graphs/registry.ts";
import type { RunObservation } from "../observability/observer.ts";
import type { RunCheckpointSaver } from "../storage/checkpoints.ts";
import type { RunRecord } from "../storage/run-record.ts";
import { RunCallbacks } from "./run-callbacks.ts";
import { defined, toConfigurable, toGraphInput, toRunMetadata } from "./run-config.ts";
import { needsHandlers, streamGraph, type GraphCall } from "./graph-stream.ts";
import type { StreamPart } from "./stream-modes.ts";
import { pendingInterrupts } from "./thread-state.ts";

/** Why a run was made to stop; the reason of its abort signal. */
export type Stop =
  | { kind: "cancel" | "rollback" | "lost" | "shutdown" | "unavailable" }
  | RunTimeout;

/** A run took longer than it may. Observers know it by its name. */
export class RunTimeout extends Error {
  readonly kind = "timeout";
  override readonly name = "TimeoutError";

  constructor(limitMs: number) {
    super(`The run took longer than ${limitMs / 1_000} s, which is the limit of this server.`);
  }
}

export interface ExecuteOptions {
  run: RunRecord;
  graphs: GraphRegistry;
  /** `undefined` for a run without a thread. */
  checkpointer: RunCheckpointSaver | undefined;
  store: BaseStore;
  observation: RunObservation;
  signal: AbortSignal;
  append: (part: StreamPart) => void;
  /** Told of questions before anybody reads them; of a stop without any once, with none. */
  asks: (ids: readonly string[]) => Promise<void>;
}

/** How far a graph came. */
export interface Execution {
  /** The last values of the root graph; `undefined` if it produced none. */
  values: Record<string, unknown> | undefined;
  /** Set if the graph stopped for a question or at a breakpoint. */
  interrupt: { interrupts: Record<string, unknown[]>; values: unknown[] } | undefined;
  /** What was thrown; an abort is told by the signal. */
  error: unknown;
  /** The state of the thread where the run did not come to its own end; `undefined` where it has none, or did. */
  reached?: { values: unknown; interrupts: Record<string, unknown[]> } | undefined;
  /** Set if the run was refused before it did anything: the thread waits as before, for these. */
  refused?: { interrupts: Record<string, unknown[]>; waiting: boolean };
}

/**
 * Runs the graph of a run once, handing every event the client asked for to `append`. Resolves whatever
 * happens inside the graph: what was thrown is a value.
 */
export async function executeRun(options: ExecuteOptions): Promise<Execution> {
  const { run, signal } = options;
  const progress: Execution = { values: undefined, interrupt: undefined, error: undefined };
  let bound: CompiledGraph | undefined;
  try {
    const graph = await options.graphs.bind(run.graph_id, {
      config: { configurable: toConfigurable(run) },
      context: run.kwargs.context,
      access: "threads.create_run",
      checkpointer: options.checkpointer,
      store: options.store,
    });
    bound = graph;
    if (graph.config) options.observation.bound?.(graph.config);
    const config = toGraphConfig(options);
    const input = await startingPoint(options);
    const stopped = await options.observation.within(() =>
      follow({ graph, input, config, run }, progress, options),
    );
    await options.checkpointer?.settled();
    if (stopped && options.checkpointer) {
      const snapshot = await graph.getState({ configurable: { thread_id: run.thread_id } });
      progress.interrupt = toInterrupt(snapshot);
      progress.reached = toReached(snapshot);
    }
  } catch (error) {
    progress.error = signal.aborted ? undefined : explain(error, run);
    // What it saved must be there before the run ends: the lease that lets it be written ends with it.
    await options.checkpointer?.settled().catch(() => {});
    if (bound && isUnknownInterruptError(error)) {
      const snapshot = await bound.getState({ configurable: { thread_id: run.thread_id } });
      progress.refused = {
        interrupts: pendingInterrupts(snapshot),
        waiting: snapshot.next.length > 0,
      };
    } else if (bound && options.checkpointer && staysHere(signal)) {
      // Others of its nodes may have written, and their questions still wait.
      progress.reached = await bound
        .getState({ configurable: { thread_id: run.thread_id } })
        .then(toReached, () => undefined);
    }
  }
  return progress;
}

/** Whether the run is over, for what its graph threw or because somebody stopped it. */
function staysHere(signal: AbortSignal): boolean {
  if (!signal.aborted) return true;
  const { kind } = signal.reason as Stop;
  return kind === "cancel" || kind === "timeout";
}

function toReached(snapshot: StateSnapshot): Execution["reached"] {
  return { values: snapshot.values ?? {}, interrupts: pendingInterrupts(snapshot) };
}

/** Whether the graph stopped before its end. */
async function follow(
  call: GraphCall,
  progress: Execution,
  { append, asks, checkpointer }: Pick<ExecuteOptions, "append" | "asks" | "checkpointer">,
): Promise<boolean> {
  let stopped = false;
  let told: Set<string> | undefined;
  for await (const step of streamGraph(call)) {
    if (step.values) progress.values = step.values;
    if (step.stopped) stopped = true;
    if (step.asked && checkpointer) {
      const fresh = step.asked.filter((id) => !told?.has(id));
      if (fresh.length > 0 || told === undefined) await asks(fresh);
      told = new Set([...(told ?? []), ...fresh]);
    }
    for (const part of step.parts) append(part);
  }
  return stopped;
}

function toGraphConfig(options: ExecuteOptions): Record<string, unknown> {
  const { run } = options;
  const { config } = run.kwargs;
  const { callbacks } = options.observation;
  return defined({
    configurable: {
      ...toConfigurable(run),
      // LangGraph's own name for it, which is not exported.
      ...(run.kwargs.strict_resume && { __pregel_strict_resume: true }),
    },
    metadata: {
      ...toRunMetadata(run),
      ...options.observation.metadata,
    },
    tags: config.tags,
    recursionLimit: config.recursion_limit,
    maxConcurrency: config.max_concurrency,
    runName: config.run_name,
    runId: run.run_id,
    context: run.kwargs.context,
    interruptBefore: run.kwargs.interrupt_before,
    interruptAfter: run.kwargs.interrupt_after,
    durability: run.temporary ? undefined : run.kwargs.durability,
    // Without a handler LangChain makes no callback managers at all, which is a fifth of a short run's time.
    callbacks:
      callbacks.length > 0 || needsHandlers(run.kwargs) ? RunCallbacks.of(callbacks) : undefined,
    signal: options.signal,
  });
}

/**
 * The input of this attempt. A run whose earlier worker was lost goes on from its last checkpoint, so that its
 * input is not applied a second time.
 */
async function startingPoint({ run, checkpointer }: ExecuteOptions): Promise<unknown> {
  if (run.attempt > 1 && checkpointer) {
    const last = await checkpointer.getTuple({ configurable: { thread_id: run.thread_id } });
    if ((last?.metadata as { run_id?: unknown } | undefined)?.run_id === run.run_id) return null;
  }
  return toGraphInput(run.kwargs);
}

function toInterrupt(snapshot: StateSnapshot): Execution["interrupt"] {
  const interrupts = pendingInterrupts(snapshot);
  const values = Object.values(interrupts)
    .flat()
    .map((interrupt) => (interrupt as { value?: unknown }).value);
  return { interrupts, values };
}

/** Says in the user's terms what LangGraph says in its own; something in any case, as nothing is no error. */
function explain(error: unknown, run: RunRecord): unknown {
  if (error === undefined || error === null) {
    return new Error(`The graph threw ${String(error)}, which does not tell what is wrong.`);
  }
  if (!run.temporary || !isMissingCheckpointer(error)) return error;
  return new Error(
    'The graph called interrupt(), but this run has no thread to wait on. Run it on a thread, or with on_completion: "keep".',
    { cause: error },
  );
}

function isMissingCheckpointer(error: unknown): boolean {
  try {
    return (error as { lc_error_code?: unknown }).lc_error_code === "MISSING_CHECKPOINTER";
  } catch {
    // A graph can throw what throws when it is looked at.
    return false;
  }
}
