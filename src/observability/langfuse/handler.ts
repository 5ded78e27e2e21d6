import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import {
  classifyChain,
  componentName,
  isGraph,
  TYPE_KEY,
  type ObservationType,
} from "./classify.ts";
import {
  answeredBy,
  promptOf,
  toModelCall,
  toModelInput,
  toModelOutput,
  type SchemaCache,
} from "./generation.ts";
import { isMessage, readableContent } from "./messages.ts";
import { errorStack, readFailure, type Failure, type Level } from "./outcome.ts";
import { newMetadata, tagMetadata, toolInput, unwrap, type Metadata } from "./step-details.ts";
import type { Observation, ObservationFields, RunTrace } from "./trace.ts";
import { NO_USAGE, usageOf } from "./usage.ts";

/** A LangChain run under way: an observation, or noise that lends its children its parent's observation. */
interface Step {
  observation: Observation;
  /** False for noise: its observation is an ancestor's, and is not its to end. */
  own: boolean;
  name: string;
  metadata: Metadata;
  tags: readonly string[];
  model: string | undefined;
  firstToken: Date | undefined;
  prompt: ReturnType<typeof promptOf>;
}

export interface HandlerOptions {
  trace: RunTrace;
  /** What the run's own graph is drawn as. */
  base: Observation;
  signal: AbortSignal | undefined;
  schemas: SchemaCache;
  /** Hears of a bug in here; nothing is ever thrown into the run. */
  onBug: (error: unknown) => void;
}

/**
 * Draws one run's tree from LangChain's callbacks. Parents are taken from LangChain's run ids and times from the
 * run's own clock, never from the ambient context: `awaitHandlers` keeps the events in order, and nothing can
 * mix two runs. One per run, thrown away after `sweep`.
 */
export class RunHandler extends BaseCallbackHandler {
  name = "AegraLangfuseHandler";
  override awaitHandlers = true;
  readonly #options: HandlerOptions;
  readonly #steps = new Map<string, Step>();
  readonly #explained = new WeakSet<object>();
  #closed = false;

  constructor(options: HandlerOptions) {
    super();
    this.#options = options;
  }

  /** LangChain copies handlers; a copy that drew on its own would split the run in two. */
  override copy(): this {
    return this;
  }

  /** The number of steps still open. */
  get open(): number {
    return this.#steps.size;
  }

  override handleChainStart(
    chain: unknown,
    inputs: unknown,
    runId: string,
    parentRunId?: string,
    tags: string[] = [],
    metadata: Metadata = {},
    runType?: string,
    runName?: string,
  ): void {
    this.#guard(() => {
      const parent = this.#parent(parentRunId);
      if (parentRunId === undefined && (isGraph(chain) || this.#steps.size === 0)) {
        this.#hide(runId, { observation: this.#options.base, name: "graph", metadata, tags });
        return;
      }
      const kind = classifyChain(
        { serialized: chain, runName, runType, tags, metadata },
        parent?.metadata[TYPE_KEY],
      );
      if (kind === "hidden") {
        this.#hide(runId, {
          observation: this.#observationOf(parent),
          name: parent?.name ?? "graph",
          metadata,
          tags,
        });
        const prompt = promptOf(metadata);
        if (prompt !== undefined && parent !== undefined) parent.prompt = prompt;
        return;
      }
      const name = kind.name ?? parent?.name ?? "graph";
      const model = kind.type === "embedding" ? modelName(metadata) : undefined;
      this.#begin(
        { type: kind.type, name, runId, parent, metadata, tags },
        { input: unwrap(inputs, "input"), model },
      );
    });
  }

  override handleChainEnd(outputs: unknown, runId: string): void {
    this.#guard(() => this.#finish(runId, () => ({ output: unwrap(outputs, "output") })));
  }

  override handleChainError(error: unknown, runId: string): void {
    this.#guard(() => this.#fail(runId, error));
  }

  override handleToolStart(
    tool: unknown,
    input: string,
    runId: string,
    parentRunId?: string,
    tags: string[] = [],
    metadata: Metadata = {},
    runName?: string,
    toolCallId?: string,
  ): void {
    this.#guard(() => {
      const name = componentName(tool, runName, "tool");
      const extra = toolCallId === undefined ? {} : { tool_call_id: toolCallId };
      const parent = this.#parent(parentRunId);
      this.#begin(
        { type: "tool", name, runId, parent, metadata, tags, extra },
        { input: toolInput(input) },
      );
    });
  }

  override handleToolEnd(output: unknown, runId: string): void {
    this.#guard(() =>
      this.#finish(runId, () => {
        if (!isMessage(output)) return { output };
        const content = readableContent(output.content);
        if (output.status !== "error") return { output: content };
        return {
          output: content,
          level: "ERROR",
          statusMessage: typeof content === "string" ? content : "tool error",
        };
      }),
    );
  }

  override handleToolError(error: unknown, runId: string): void {
    this.#guard(() => this.#fail(runId, error));
  }

  override handleRetrieverStart(
    retriever: unknown,
    query: string,
    runId: string,
    parentRunId?: string,
    tags: string[] = [],
    metadata: Metadata = {},
    runName?: string,
  ): void {
    this.#guard(() => {
      const name = componentName(retriever, runName, "retriever");
      const parent = this.#parent(parentRunId);
      this.#begin({ type: "retriever", name, runId, parent, metadata, tags }, { input: query });
    });
  }

  override handleRetrieverEnd(documents: unknown, runId: string): void {
    this.#guard(() => this.#finish(runId, () => ({ output: documents })));
  }

  override handleRetrieverError(error: unknown, runId: string): void {
    this.#guard(() => this.#fail(runId, error));
  }

  override handleChatModelStart(
    model: unknown,
    messages: unknown[][],
    runId: string,
    parentRunId?: string,
    extra?: Record<string, unknown>,
    tags: string[] = [],
    metadata: Metadata = {},
    runName?: string,
  ): void {
    const input = messages.length === 1 ? messages[0] : messages;
    this.#guard(() =>
      this.#beginModel({ model, input, runId, parentRunId, extra, tags, metadata, runName }),
    );
  }

  override handleLLMStart(
    model: unknown,
    prompts: string[],
    runId: string,
    parentRunId?: string,
    extra?: Record<string, unknown>,
    tags: string[] = [],
    metadata: Metadata = {},
    runName?: string,
  ): void {
    const input = prompts.length === 1 ? prompts[0] : prompts;
    this.#guard(() =>
      this.#beginModel({ model, input, runId, parentRunId, extra, tags, metadata, runName }),
    );
  }

  override handleLLMNewToken(_token: string, _index: unknown, runId: string): void {
    const step = this.#steps.get(runId);
    if (step !== undefined) step.firstToken ??= new Date();
  }

  override handleChatModelStreamEvent(_event: unknown, runId: string): void {
    const step = this.#steps.get(runId);
    if (step !== undefined) step.firstToken ??= new Date();
  }

  override handleLLMEnd(result: unknown, runId: string): void {
    this.#guard(() =>
      this.#finish(runId, (step) => {
        const { model, finishReason } = answeredBy(result);
        return {
          output: toModelOutput(result),
          model: model ?? step.model,
          usage: usageOf(result),
          completionStart: step.firstToken,
          ...(finishReason === undefined ? {} : { metadata: { finish_reason: finishReason } }),
        };
      }),
    );
  }

  override handleLLMError(error: unknown, runId: string): void {
    this.#guard(() => this.#fail(runId, error));
  }

  /** Ends everything still open, children before parents, and ignores whatever comes later. */
  sweep(ending: { level: Level; statusMessage: string }): void {
    if (this.#closed) return;
    for (const runId of [...this.#steps.keys()].toReversed()) {
      this.#guard(() => this.#finish(runId, (step) => ({ ...ending, ...unused(step) })));
    }
    this.#closed = true;
    this.#steps.clear();
  }

  #beginModel(call: {
    model: unknown;
    input: unknown;
    runId: string;
    parentRunId: string | undefined;
    extra: Record<string, unknown> | undefined;
    tags: string[];
    metadata: Metadata;
    runName: string | undefined;
  }): void {
    const about = toModelCall(call.extra, call.metadata, {
      serialized: call.model,
      schemas: this.#options.schemas,
    });
    const parent = this.#parent(call.parentRunId);
    const prompt = promptOf(call.metadata) ?? parent?.prompt;
    if (parent !== undefined) parent.prompt = undefined;
    const step = this.#begin(
      {
        type: "generation",
        name: componentName(call.model, call.runName, "model"),
        runId: call.runId,
        parent,
        metadata: call.metadata,
        tags: call.tags,
      },
      {
        input: toModelInput(call.input, about),
        model: about.model,
        parameters: about.parameters,
        prompt,
      },
    );
    if (step !== undefined) step.model = about.model;
  }

  #begin(
    start: {
      type: ObservationType;
      name: string;
      runId: string;
      parent: Step | undefined;
      metadata: Metadata;
      tags: readonly string[];
      extra?: Metadata;
    },
    fields: ObservationFields,
  ): Step | undefined {
    if (this.#closed || this.#steps.has(start.runId)) return undefined;
    const metadata = {
      ...newMetadata(start.metadata, start.parent?.metadata, start.type),
      ...tagMetadata(start.tags, start.parent?.tags ?? []),
      ...start.extra,
    };
    const observation = this.#options.trace.open(
      { type: start.type, name: start.name, parent: this.#observationOf(start.parent).context },
      { ...fields, metadata },
    );
    const step = newStep({
      observation,
      own: true,
      name: start.name,
      metadata: start.metadata,
      tags: start.tags,
    });
    this.#steps.set(start.runId, step);
    return step;
  }

  #hide(runId: string, step: Pick<Step, "observation" | "name" | "metadata" | "tags">): void {
    if (this.#closed || this.#steps.has(runId)) return;
    this.#steps.set(runId, newStep({ ...step, own: false }));
  }

  #finish(runId: string, fields: (step: Step) => ObservationFields): void {
    const step = this.#steps.get(runId);
    if (step === undefined) return;
    this.#steps.delete(runId);
    if (step.own) this.#options.trace.close(step.observation, readable(step, fields));
  }

  #fail(runId: string, error: unknown): void {
    this.#finish(runId, (step) => {
      const failure: Failure = readFailure(error, this.#options.signal);
      return { ...failure, ...unused(step), ...this.#stackOf(error, failure.level) };
    });
  }

  /** The stack, on the innermost observation only: the same error passes all its ancestors. */
  #stackOf(error: unknown, level: Level): { errorStack?: string } {
    if (level !== "ERROR") return {};
    if (typeof error === "object" && error !== null) {
      if (this.#explained.has(error)) return {};
      this.#explained.add(error);
    }
    const stack = errorStack(error);
    return stack === undefined ? {} : { errorStack: stack };
  }

  /** True once an observation has shown this error's stack. */
  hasExplained(error: unknown): boolean {
    return typeof error === "object" && error !== null && this.#explained.has(error);
  }

  #parent(runId: string | undefined): Step | undefined {
    return runId === undefined ? undefined : this.#steps.get(runId);
  }

  #observationOf(step: Step | undefined): Observation {
    return step?.observation ?? this.#options.base;
  }

  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#options.onBug(error);
    }
  }
}

function newStep(step: Pick<Step, "observation" | "own" | "name" | "metadata" | "tags">): Step {
  return { ...step, model: undefined, firstToken: undefined, prompt: undefined };
}

function modelName(metadata: Metadata): string | undefined {
  const name = metadata["ls_model_name"];
  return typeof name === "string" ? name : undefined;
}

/** A value that cannot even be looked at costs its observation the output, not its end. */
function readable(step: Step, fields: (step: Step) => ObservationFields): ObservationFields {
  try {
    return fields(step);
  } catch {
    return { output: "<cannot be read>", ...unused(step) };
  }
}

/** A model call that did not come to its end: its first token, and no usage the server would have to guess. */
function unused(step: Step): ObservationFields {
  if (step.observation.type !== "generation") return {};
  return {
    completionStart: step.firstToken,
    ...(step.model === undefined ? {} : { usage: NO_USAGE }),
  };
}
