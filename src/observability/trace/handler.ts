import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import type { TurnBudget } from "./turn-budget.ts";
import { classifyChain, componentName, isGraph, isPromptTemplate, TYPE_KEY } from "./classify.ts";
import {
  answeredBy,
  PROMPT_KEY,
  promptOf,
  toModelCall,
  toModelInput,
  toModelOutput,
  type SchemaCache,
} from "./generation.ts";
import { isMessage, readableContent } from "./messages.ts";
import type { Level } from "./outcome.ts";
import { toolInput, unwrap, type Metadata } from "./step-details.ts";
import type { HrTime } from "./spans.ts";
import { Steps, type Step, type StepsOptions } from "./steps.ts";
import { usageOf } from "./usage.ts";

export interface HandlerOptions extends StepsOptions {
  schemas: SchemaCache;
  budget: TurnBudget;
  /** What the client says of the run: none of it is a fact about a model call or its prompt. */
  claims: Metadata;
  /** Hears of a bug in here; nothing is ever thrown into the run. */
  onBug: (error: unknown) => void;
}

/** When a callback's observation is written; `undefined` if it is. */
type Written = Promise<void> | undefined;

/**
 * Draws one run's tree from LangChain's callbacks. Parents are taken from LangChain's run ids and times from the
 * run's own clock, never from the ambient context: `awaitHandlers` keeps the events in order, and nothing can
 * mix two runs. What a turn of the event loop has no room for is written in a later one, with the time it happened
 * at; the run awaits it. One per run, thrown away when all is swept.
 */
export class RunHandler extends BaseCallbackHandler {
  name = "AegraLangfuseHandler";
  override awaitHandlers = true;
  readonly #options: HandlerOptions;
  readonly #steps: Steps;
  #closed = false;

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
  ): Written {
    return this.#write((at) => {
      const parent = this.#steps.get(parentRunId);
      if (parentRunId === undefined && (isGraph(chain) || this.#steps.open === 0)) {
        this.#steps.hide(runId, {
          observation: this.#options.base,
          name: "graph",
          metadata,
          tags,
          parent: undefined,
        });
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
          parent,
        });
        this.#promise(parent, metadata);
        return;
      }
      if (isPromptTemplate(chain)) this.#promise(parent, metadata);
      const name = kind.name ?? parent?.name ?? "graph";
      const model = kind.type === "embedding" ? modelName(metadata) : undefined;
      this.#steps.begin(
        { type: kind.type, name, runId, at, parent, metadata, tags },
        { input: unwrap(inputs, "input"), model },
      );
    });
  }

  override handleChainEnd(outputs: unknown, runId: string): Written {
    return this.#write((at) =>
      this.#steps.finish(runId, at, () => ({ output: unwrap(outputs, "output") })),
    );
  }

  override handleChainError(error: unknown, runId: string): Written {
    return this.#write((at) => this.#steps.fail(runId, at, error));
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
  ): Written {
    return this.#write((at) => {
      const name = componentName(tool, runName, "tool");
      const extra = toolCallId === undefined ? {} : { tool_call_id: toolCallId };
      const parent = this.#steps.get(parentRunId);
      this.#steps.begin(
        { type: "tool", name, runId, at, parent, metadata, tags, extra },
        { input: toolInput(input) },
      );
    });
  }

  override handleToolEnd(output: unknown, runId: string): Written {
    return this.#write((at) =>
      this.#steps.finish(runId, at, () => {
        if (!isMessage(output)) return { output };
        const content = readableContent(output.content);
        if (output.status !== "error") return { output: content };
        // The content is the output, whatever else it says.
        const told = typeof content === "string" && this.#options.trace.captures("output");
        return { output: content, level: "ERROR", statusMessage: told ? content : "tool error" };
      }),
    );
  }

  override handleToolError(error: unknown, runId: string): Written {
    return this.#write((at) => this.#steps.fail(runId, at, error));
  }

  override handleRetrieverStart(
    retriever: unknown,
    query: string,
    runId: string,
    parentRunId?: string,
    tags: string[] = [],
    metadata: Metadata = {},
    runName?: string,
  ): Written {
    return this.#write((at) => {
      const name = componentName(retriever, runName, "retriever");
      const parent = this.#steps.get(parentRunId);
      this.#steps.begin(
        { type: "retriever", name, runId, at, parent, metadata, tags },
        { input: query },
      );
    });
  }

  override handleRetrieverEnd(documents: unknown, runId: string): Written {
    return this.#write((at) => this.#steps.finish(runId, at, () => ({ output: documents })));
  }

  override handleRetrieverError(error: unknown, runId: string): Written {
    return this.#write((at) => this.#steps.fail(runId, at, error));
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
  ): Written {
    const input = messages.length === 1 ? messages[0] : messages;
    return this.#write((at) =>
      this.#beginModel({ model, input, runId, at, parentRunId, extra, tags, metadata, runName }),
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
  ): Written {
    const input = prompts.length === 1 ? prompts[0] : prompts;
    return this.#write((at) =>
      this.#beginModel({ model, input, runId, at, parentRunId, extra, tags, metadata, runName }),
    );
  }

  override handleLLMNewToken(_token: string, _index: unknown, runId: string): void {
    this.#hear(runId);
  }

  override handleChatModelStreamEvent(_event: unknown, runId: string): void {
    this.#hear(runId);
  }

  override handleLLMEnd(result: unknown, runId: string): Written {
    return this.#write((at) =>
      this.#steps.finish(runId, at, (step) => {
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

  override handleLLMError(error: unknown, runId: string): Written {
    return this.#write((at) => this.#steps.fail(runId, at, error));
  }

  /** Takes nothing more. What was taken and waits for its turn is written. */
  close(): void {
    this.#closed = true;
  }

  /** Ends one step that is still open, children before parents; false if there is none. */
  sweep(ending: { level: Level; statusMessage: string }, at: HrTime): boolean {
    return this.#steps.sweep(ending, at);
  }

  /** True once an observation has shown this error's stack. */
  hasExplained(error: unknown): boolean {
    return this.#steps.hasExplained(error);
  }

  #beginModel(call: {
    model: unknown;
    input: unknown;
    runId: string;
    at: HrTime;
    parentRunId: string | undefined;
    extra: Record<string, unknown> | undefined;
    tags: string[];
    metadata: Metadata;
    runName: string | undefined;
  }): void {
    const facts = this.#factsIn(call.metadata);
    const about = toModelCall(call.extra, facts, {
      serialized: call.model,
      schemas: this.#options.schemas,
    });
    const parent = this.#steps.get(call.parentRunId);
    const prompt = promptOf(facts) ?? parent?.prompt;
    if (parent !== undefined) parent.prompt = undefined;
    const step = this.#steps.begin(
      {
        type: "generation",
        name: componentName(call.model, call.runName, "model"),
        runId: call.runId,
        at: call.at,
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

  #hear(runId: string): void {
    const step = this.#steps.get(runId);
    if (step === undefined) return;
    step.firstToken ??= new Date();
    step.lastToken = this.#options.trace.now();
  }

  /** The next model call in `parent` is made with the prompt in `metadata`, if there is one. */
  #promise(parent: Step | undefined, metadata: Metadata): void {
    // Every step passes here, so only the one key is looked at.
    if (metadata[PROMPT_KEY] === this.#options.claims[PROMPT_KEY]) return;
    const prompt = promptOf(metadata);
    if (prompt !== undefined && parent !== undefined) parent.prompt = prompt;
  }

  /** Metadata without what the client said of the run, which every step of it inherits. */
  #factsIn(metadata: Metadata): Metadata {
    const { claims } = this.#options;
    return Object.fromEntries(
      Object.entries(metadata).filter(([key, value]) => claims[key] !== value),
    );
  }

  /** Does `work` when it has its turn, with the time it is now. */
  #write(work: (at: HrTime) => void): Written {
    if (this.#closed) return undefined;
    const { trace, budget, onBug } = this.#options;
    const at = trace.now();
    return budget.spend(() => {
      try {
        work(at);
      } catch (error) {
        onBug(error);
      }
    });
  }
}

function modelName(metadata: Metadata): string | undefined {
  const name = metadata["ls_model_name"];
  return typeof name === "string" ? name : undefined;
}
