import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import { classifyChain, componentName, isGraph, TYPE_KEY } from "./classify.ts";
import {
  answeredBy,
  promptOf,
  toModelCall,
  toModelInput,
  toModelOutput,
  type SchemaCache,
} from "./generation.ts";
import { isMessage, readableContent } from "./messages.ts";
import type { Level } from "./outcome.ts";
import { toolInput, unwrap, type Metadata } from "./step-details.ts";
import { Steps, type StepsOptions } from "./steps.ts";
import { usageOf } from "./usage.ts";

export interface HandlerOptions extends StepsOptions {
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
  readonly #steps: Steps;

  constructor(options: HandlerOptions) {
    super();
    this.#options = options;
    this.#steps = new Steps(options);
  }

  /** LangChain copies handlers; a copy that drew on its own would split the run in two. */
  override copy(): this {
    return this;
  }

  /** The number of steps still open. */
  get open(): number {
    return this.#steps.open;
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
      const parent = this.#steps.get(parentRunId);
      if (parentRunId === undefined && (isGraph(chain) || this.#steps.open === 0)) {
        this.#steps.hide(runId, { observation: this.#options.base, name: "graph", metadata, tags });
        return;
      }
      const kind = classifyChain(
        { serialized: chain, runName, runType, tags, metadata },
        parent?.metadata[TYPE_KEY],
      );
      if (kind === "hidden") {
        this.#steps.hide(runId, {
          observation: this.#steps.observationOf(parent),
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
      this.#steps.begin(
        { type: kind.type, name, runId, parent, metadata, tags },
        { input: unwrap(inputs, "input"), model },
      );
    });
  }

  override handleChainEnd(outputs: unknown, runId: string): void {
    this.#guard(() => this.#steps.finish(runId, () => ({ output: unwrap(outputs, "output") })));
  }

  override handleChainError(error: unknown, runId: string): void {
    this.#guard(() => this.#steps.fail(runId, error));
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
      const parent = this.#steps.get(parentRunId);
      this.#steps.begin(
        { type: "tool", name, runId, parent, metadata, tags, extra },
        { input: toolInput(input) },
      );
    });
  }

  override handleToolEnd(output: unknown, runId: string): void {
    this.#guard(() =>
      this.#steps.finish(runId, () => {
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
    this.#guard(() => this.#steps.fail(runId, error));
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
      const parent = this.#steps.get(parentRunId);
      this.#steps.begin(
        { type: "retriever", name, runId, parent, metadata, tags },
        { input: query },
      );
    });
  }

  override handleRetrieverEnd(documents: unknown, runId: string): void {
    this.#guard(() => this.#steps.finish(runId, () => ({ output: documents })));
  }

  override handleRetrieverError(error: unknown, runId: string): void {
    this.#guard(() => this.#steps.fail(runId, error));
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
      this.#steps.finish(runId, (step) => {
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
    this.#guard(() => this.#steps.fail(runId, error));
  }

  /** Ends everything still open, children before parents, and ignores whatever comes later. */
  sweep(ending: { level: Level; statusMessage: string }): void {
    this.#steps.sweep(ending, (work) => this.#guard(work));
  }

  /** True once an observation has shown this error's stack. */
  hasExplained(error: unknown): boolean {
    return this.#steps.hasExplained(error);
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
    const parent = this.#steps.get(call.parentRunId);
    const prompt = promptOf(call.metadata) ?? parent?.prompt;
    if (parent !== undefined) parent.prompt = undefined;
    const step = this.#steps.begin(
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

  #guard(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.#options.onBug(error);
    }
  }
}

function modelName(metadata: Metadata): string | undefined {
  const name = metadata["ls_model_name"];
  return typeof name === "string" ? name : undefined;
}
