import { ServerError } from "../errors.ts";
import type { ModuleReference } from "../config/schema.ts";
import { loadConfigured } from "./function.ts";
import { loadPackage } from "./load.ts";

/** What makes vectors of texts: a function, or LangChain's Embeddings. */
type Embed =
  | ((texts: string[]) => number[][] | Promise<number[][]>)
  | {
      embedDocuments(texts: string[]): Promise<number[][]>;
      embedQuery(text: string): Promise<number[]>;
    };

const OPTION = "store.index.embed";

/** LangChain's packages by provider, as in the langgraph.json format, and their class. */
const PROVIDERS: Readonly<Record<string, readonly [packageName: string, className: string]>> = {
  openai: ["@langchain/openai", "OpenAIEmbeddings"],
  azure_openai: ["@langchain/openai", "AzureOpenAIEmbeddings"],
  bedrock: ["@langchain/aws", "BedrockEmbeddings"],
  cohere: ["@langchain/cohere", "CohereEmbeddings"],
  google_genai: ["@langchain/google-genai", "GoogleGenerativeAIEmbeddings"],
  google_vertexai: ["@langchain/google-vertexai", "VertexAIEmbeddings"],
  mistralai: ["@langchain/mistralai", "MistralAIEmbeddings"],
  ollama: ["@langchain/ollama", "OllamaEmbeddings"],
};

/**
 * The embeddings that `store.index.embed` names: a module's export, or `provider:model`, for which LangChain's
 * package of the provider is loaded from the project. Rejects with `startup_failed`, which says what to write or
 * to install.
 */
export async function loadEmbeddings(
  embed: string,
  options: { cwd: string; toReference: (embed: string) => ModuleReference },
): Promise<Embed> {
  if (/\.[cm]?[jt]sx?(?::|$)/u.test(embed)) {
    const reference = options.toReference(embed);
    const value = await loadConfigured(reference, { cwd: options.cwd, option: OPTION });
    if (isEmbed(value)) return value;
    throw failure(
      `"${embed}" is neither a function from texts to vectors nor a LangChain Embeddings object.`,
    );
  }
  const colon = embed.indexOf(":");
  const model = embed.slice(colon + 1);
  const provider = PROVIDERS[embed.slice(0, colon)];
  if (colon < 0 || !provider || model === "") {
    const known = Object.keys(PROVIDERS).join(", ");
    throw failure(
      `"${embed}" is not known. Write "./embed.ts:embeddings", a module and its export, or "openai:text-embedding-3-small", a provider and its model. The providers are: ${known}.`,
    );
  }
  return create(embed, { provider, model, cwd: options.cwd });
}

async function create(
  embed: string,
  options: { provider: readonly [string, string]; model: string; cwd: string },
): Promise<Embed> {
  const [name, className] = options.provider;
  const loaded = await loadPackage(name, { cwd: options.cwd });
  if ("missing" in loaded) {
    throw failure(`"${embed}" needs the package ${name}. Install it: npm install ${name}`);
  }
  if ("error" in loaded) {
    throw failure(`${name} cannot be loaded: ${loaded.error.message}`, loaded.error);
  }
  const constructor: unknown = Reflect.get(loaded.module, className);
  if (typeof constructor !== "function") {
    throw failure(`${name} has no ${className}; another version of it may.`);
  }
  try {
    return Reflect.construct(constructor, [{ model: options.model }]) as Embed;
  } catch (cause) {
    // Such as a key that is missing from the environment.
    throw failure(`"${embed}": ${cause instanceof Error ? cause.message : String(cause)}`, cause);
  }
}

function isEmbed(value: unknown): value is Embed {
  if (typeof value === "function") return true;
  return (
    typeof value === "object" &&
    value !== null &&
    typeof Reflect.get(value, "embedDocuments") === "function" &&
    typeof Reflect.get(value, "embedQuery") === "function"
  );
}

function failure(message: string, cause?: unknown): ServerError {
  return new ServerError("startup_failed", `${OPTION}: ${message}`, { cause });
}
