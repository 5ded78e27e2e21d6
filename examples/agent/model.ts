import type { BaseChatModel } from "@langchain/core/language_models/chat_models";

import { OfflineModel } from "./offline-model.ts";

/** A chat model that can be given tools. */
type ToolModel = BaseChatModel & { bindTools: NonNullable<BaseChatModel["bindTools"]> };

/** The model named by MODEL, such as `openai:gpt-5-mini`; without it one that works offline, without a key. */
export async function loadModel(): Promise<ToolModel> {
  const name = process.env["MODEL"];
  if (!name) return new OfflineModel();
  const { initChatModel } = await importLangChain(name);
  return initChatModel(name);
}

async function importLangChain(
  name: string,
): Promise<{ initChatModel: (model: string) => Promise<ToolModel> }> {
  // Only needed with MODEL, so it is no dependency of this example.
  const specifier = "langchain";
  try {
    return await import(specifier);
  } catch (cause) {
    const provider = name.split(":")[0];
    throw new Error(
      `MODEL=${name} needs two packages: npm install langchain @langchain/${provider}`,
      { cause },
    );
  }
}
