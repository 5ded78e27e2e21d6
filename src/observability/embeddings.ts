import { Embeddings, type EmbeddingsInterface } from "@langchain/core/embeddings";
import { RunnableLambda } from "@langchain/core/runnables";

/**
 * The same embeddings, seen in traces. LangChain tells its callbacks nothing of embedding calls, so this one runs
 * them as runnables of type `embedding` inside whatever run they are called from. `model` is the name that shows.
 */
export function traceEmbeddings(embeddings: EmbeddingsInterface, model?: string): Embeddings {
  return new TracedEmbeddings(embeddings, model ?? modelOf(embeddings));
}

class TracedEmbeddings extends Embeddings {
  readonly #inner: EmbeddingsInterface;
  readonly #model: string | undefined;

  constructor(inner: EmbeddingsInterface, model: string | undefined) {
    super({});
    this.#inner = inner;
    this.#model = model;
  }

  override async embedQuery(text: string): Promise<number[]> {
    return this.#traced(text, () => this.#inner.embedQuery(text));
  }

  override async embedDocuments(texts: string[]): Promise<number[][]> {
    return this.#traced(texts, () => this.#inner.embedDocuments(texts));
  }

  async #traced<T>(input: string | string[], work: () => Promise<T>): Promise<T> {
    let result: { value: T } | undefined;
    const step = RunnableLambda.from(async (_input: string | string[]) => {
      const value = await work();
      result = { value };
      return describe(value);
    }).withConfig({
      runName: this.#inner.constructor.name,
      metadata: {
        observation_type: "embedding",
        ...(this.#model === undefined ? {} : { ls_model_name: this.#model }),
      },
    });
    await step.invoke(input);
    if (result === undefined) throw new Error("the embedding gave no answer");
    return result.value;
  }
}

/** A trace wants to know how many vectors of what size, not a thousand numbers each. */
function describe(value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  const [first] = value as unknown[];
  return Array.isArray(first)
    ? { vectors: value.length, dimensions: first.length }
    : { vectors: 1, dimensions: value.length };
}

function modelOf(embeddings: EmbeddingsInterface): string | undefined {
  const { model, modelName } = embeddings as { model?: unknown; modelName?: unknown };
  return [model, modelName].find((name): name is string => typeof name === "string" && name !== "");
}
