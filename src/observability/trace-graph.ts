import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import type { Callbacks } from "@langchain/core/callbacks/manager";
import type { RunnableConfig } from "@langchain/core/runnables";
import { AsyncLocalStorageProviderSingleton } from "@langchain/core/singletons";
import { IterableReadableStream } from "@langchain/core/utils/stream";
import { v7 as uuid7 } from "@langchain/core/utils/uuid";
import { isRecord } from "./trace/messages.ts";
import type { ObservedRun, Observer, RunObservation, RunOutcome } from "./observer.ts";

/** What an application says of all runs of a graph. Each invocation's own config outranks it. */
export interface TracedGraphOptions {
  /** What traces are called. Default: the config's `runName`, else the graph's own name. */
  name?: string | undefined;
  userId?: string | undefined;
  sessionId?: string | undefined;
  tags?: readonly string[] | undefined;
  metadata?: Readonly<Record<string, unknown>> | undefined;
}

/** Interrupted runs that are remembered, so that the run which answers one can name it. */
const REMEMBERED_INTERRUPTS = 10_000;

const WATCH_NAME = "AegraRootWatch";

type Config = RunnableConfig & { runId?: string; signal?: AbortSignal };
type Method = (input: unknown, config?: Config, ...more: unknown[]) => unknown;

/** Traces graphs of this process. One per observer. */
export class GraphTracer {
  readonly #observer: Observer;
  /** The last interrupted run, by thread. */
  readonly #interrupted = new Map<string, string>();

  constructor(observer: Observer) {
    this.#observer = observer;
  }

  /** The same graph, whose `invoke`, `stream`, `streamEvents` and `batch` are traced. */
  trace<Graph extends object>(graph: Graph, options: TracedGraphOptions): Graph {
    const traced: Record<string, (method: Method) => Method> = {
      invoke:
        (method) =>
        (input, config, ...more) =>
          this.#invoke({ graph, method, options, input, config, more }),
      stream:
        (method) =>
        (input, config, ...more) =>
          this.#stream({ graph, method, options, input, config, more }),
      streamEvents:
        (method) =>
        (input, config, ...more) =>
          this.#streamEvents({ graph, method, options, input, config, more }),
    };
    return new Proxy(graph, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target);
        if (typeof value !== "function" || key === "constructor") return value;
        const wrap = typeof key === "string" ? traced[key] : undefined;
        if (wrap !== undefined) return wrap(value as Method);
        // `batch` calls `invoke` once for each input, on whatever it is called on.
        if (key === "batch") return value;
        if (key === "withConfig")
          return (config: unknown) =>
            this.trace((value as Method).call(target, config) as object, options);
        return bound(target, value as Method);
      },
    });
  }

  async #invoke(call: Call): Promise<unknown> {
    if (isInsideTrace(call.config)) return plain(call);
    const run = this.#begin(call);
    try {
      const output = await run.observation.within(() => run.start());
      run.end({ output, completed: true });
      return output;
    } catch (error) {
      run.end({ error, completed: false });
      throw error;
    }
  }

  async #stream(call: Call): Promise<unknown> {
    if (isInsideTrace(call.config)) return plain(call);
    const run = this.#begin(call);
    try {
      const stream = await run.observation.within(() => run.start());
      return isAsyncIterable(stream) ? watched(stream, run) : stream;
    } catch (error) {
      run.end({ error, completed: false });
      throw error;
    }
  }

  #streamEvents(call: Call): unknown {
    if (isInsideTrace(call.config)) return plain(call);
    const run = this.#begin(call);
    try {
      const stream = run.observation.within(() => run.start());
      if (isAsyncIterable(stream)) return watched(stream, run);
      // A run object, or the promise of one: the end of the graph itself is the end of the run.
      run.endWithGraph();
      return stream;
    } catch (error) {
      run.end({ error, completed: false });
      throw error;
    }
  }

  #begin(call: Call): TracedRun {
    const { graph, method, input, config = {}, more } = call;
    const runId = config.runId ?? uuid7();
    const about = this.#describe(call, runId);
    const observation = this.#observer.startRun(about);
    const watch = new RootWatch(runId);
    const traced: Config = {
      ...config,
      runId,
      metadata: { ...config.metadata, ...observation.metadata },
      callbacks: withHandlers(config.callbacks, [...observation.callbacks, watch]),
    };
    let ended = false;
    const end = (ending: Ending): void => {
      if (ended) return;
      ended = true;
      const outcome = toOutcome(ending, watch, config.signal);
      this.#remember(about, outcome);
      observation.end(outcome);
    };
    return {
      observation,
      start: () => method.call(graph, input, traced, ...more),
      end,
      endWithGraph: () => {
        watch.onEnd = end;
      },
    };
  }

  #describe({ graph, options, input, config: given = {} }: Call, runId: string): ObservedRun {
    const config = withBound(graph, given);
    const { thread_id: thread, user_id: user } = config.configurable ?? {};
    const { session_id: session, ...metadata } = { ...options.metadata, ...config.metadata };
    const threadId = textOf(thread);
    const graphId = options.name ?? nameOf(graph) ?? "graph";
    const resume = resumeOf(input);
    const now = new Date();
    return {
      run_id: runId,
      thread_id: threadId ?? runId,
      session_id: textOf(session) ?? threadId ?? options.sessionId,
      user_id: textOf(user) ?? options.userId,
      graph_id: graphId,
      assistant_id: graphId,
      assistant_name: config.runName ?? graphId,
      assistant_version: 1,
      attempt: 1,
      trigger: "code",
      tags: [...(options.tags ?? []), ...(config.tags ?? [])],
      metadata,
      input: resume === undefined ? input : resume.value,
      checkpoint_id: textOf(config.configurable?.["checkpoint_id"]),
      resumed_from:
        resume === undefined || threadId === undefined
          ? undefined
          : this.#interrupted.get(threadId),
      created_at: now,
      started_at: now,
      traceparent: textOf(config.configurable?.["traceparent"]),
      signal: config.signal,
    };
  }

  #remember(run: ObservedRun, outcome: RunOutcome): void {
    this.#interrupted.delete(run.thread_id);
    if (outcome.status !== "interrupted") return;
    this.#interrupted.set(run.thread_id, run.run_id);
    const [oldest] = this.#interrupted.keys();
    if (this.#interrupted.size > REMEMBERED_INTERRUPTS && oldest !== undefined)
      this.#interrupted.delete(oldest);
  }
}

interface Call {
  graph: object;
  method: Method;
  options: TracedGraphOptions;
  input: unknown;
  config: Config | undefined;
  more: unknown[];
}

interface TracedRun {
  observation: RunObservation;
  start(): unknown;
  end(ending: Ending): void;
  /** For callers that hand out something other than a stream. */
  endWithGraph(): void;
}

/** How a call ended, as far as the caller saw it. */
interface Ending {
  /** False if the call was left early, or failed. */
  completed: boolean;
  output?: unknown;
  error?: unknown;
}

/** Sees the end of the graph itself, which a stream does not show: the final state, and its questions. */
class RootWatch extends BaseCallbackHandler {
  name = WATCH_NAME;
  override awaitHandlers = true;
  readonly #runId: string;
  interrupts: unknown[] = [];
  output: unknown;
  onEnd: ((ending: Ending) => void) | undefined;

  constructor(runId: string) {
    super();
    this.#runId = runId;
  }

  override copy(): this {
    return this;
  }

  override handleChainEnd(output: unknown, runId: string): void {
    if (runId !== this.#runId) return;
    this.output = output;
    this.onEnd?.({ completed: true });
  }

  override handleChainError(error: unknown, runId: string): void {
    const { is_bubble_up: bubbles, interrupts } = (error ?? {}) as {
      is_bubble_up?: unknown;
      interrupts?: unknown;
    };
    if (bubbles === true && Array.isArray(interrupts)) {
      for (const interrupt of interrupts as unknown[])
        if (!this.interrupts.includes(interrupt)) this.interrupts.push(interrupt);
    }
    if (runId === this.#runId) this.onEnd?.({ completed: false, error });
  }
}

/** A traced graph called in a run that is traced is part of that run's trace, not another one. */
function isInsideTrace(config: Config | undefined): boolean {
  const ambient = AsyncLocalStorageProviderSingleton.getRunnableConfig() as Config | undefined;
  return [config?.callbacks, ambient?.callbacks].some((callbacks) => {
    const handlers = Array.isArray(callbacks) ? callbacks : callbacks?.handlers;
    return handlers?.some((handler) => "name" in handler && handler.name === WATCH_NAME) ?? false;
  });
}

function plain({ graph, method, input, config, more }: Call): unknown {
  return method.call(graph, input, config, ...more);
}

function watched(stream: AsyncIterable<unknown>, run: TracedRun): unknown {
  return IterableReadableStream.fromAsyncGenerator(follow(stream, run));
}

async function* follow(stream: AsyncIterable<unknown>, run: TracedRun): AsyncGenerator {
  let completed = false;
  let failure: unknown;
  try {
    for await (const chunk of stream) {
      run.observation.firstEvent?.();
      yield chunk;
    }
    completed = true;
  } catch (error) {
    failure = error;
    throw error;
  } finally {
    run.end({ completed, error: failure });
  }
}

function toOutcome(
  { completed, output: returned, error }: Ending,
  watch: RootWatch,
  signal: AbortSignal | undefined,
): RunOutcome {
  const { __interrupt__: asked, ...state } = isRecord(returned) ? returned : {};
  const output = isRecord(returned) ? state : (returned ?? watch.output);
  if (!completed && error === undefined) return { status: "cancelled", output };
  if (error !== undefined) {
    const reason: unknown = signal?.aborted === true ? signal.reason : undefined;
    if (isNamed(error, "TimeoutError") || isNamed(reason, "TimeoutError"))
      return { status: "timeout", output, error };
    if (isNamed(error, "AbortError") || signal?.aborted === true)
      return { status: "cancelled", output };
    return { status: "error", output, error };
  }
  const interrupts = Array.isArray(asked) && asked.length > 0 ? asked : watch.interrupts;
  return interrupts.length > 0
    ? { status: "interrupted", output, interrupts }
    : { status: "success", output };
}

/** A call's config on top of the one its graph carries (`withConfig`). */
function withBound(graph: object, given: Config): Config {
  const { config: carried = {} } = graph as { config?: Config };
  return {
    ...carried,
    ...given,
    tags: [...new Set([...(carried.tags ?? []), ...(given.tags ?? [])])],
    metadata: { ...carried.metadata, ...given.metadata },
    configurable: { ...carried.configurable, ...given.configurable },
  };
}

/** What somebody called the graph; LangChain's `createAgent` has it among its options. */
function nameOf(graph: object): string | undefined {
  const { name, options } = graph as { name?: unknown; options?: unknown };
  const names = [name, isRecord(options) ? options["name"] : undefined].map(textOf);
  return names.find((candidate) => candidate !== undefined && candidate !== "LangGraph");
}

function isNamed(error: unknown, name: string): boolean {
  return isRecord(error) && error["name"] === name;
}

function withHandlers(
  callbacks: Callbacks | undefined,
  handlers: BaseCallbackHandler[],
): Callbacks {
  if (callbacks === undefined) return handlers;
  if (Array.isArray(callbacks)) return [...callbacks, ...handlers];
  const copy = callbacks.copy();
  for (const handler of handlers) copy.addHandler(handler, true);
  return copy;
}

/** The answer in a `Command` that resumes; `undefined` for any other input. */
function resumeOf(input: unknown): { value: unknown } | undefined {
  if (!isRecord(input) || input["lg_name"] !== "Command") return undefined;
  return input["resume"] === undefined ? undefined : { value: input["resume"] };
}

function isAsyncIterable(value: unknown): value is AsyncIterable<unknown> {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}

/** Methods that use private fields only work on the graph itself. */
function bound(target: object, method: Method): Method {
  return method.bind(target);
}

function textOf(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
