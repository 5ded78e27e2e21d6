import type { SerializerProtocol } from "@langchain/langgraph-checkpoint";

const decoder = new TextDecoder();

/**
 * A value as it was saved. One that JSON has no word for, such as a function, was saved as nothing, and is not there any
 * more. What looks like LangChain's own and cannot be made again, as any client may send it, is the data it is: a thread
 * must not end with it.
 */
export async function load(
  serde: SerializerProtocol,
  type: string,
  bytes: Uint8Array,
): Promise<unknown> {
  if (type !== "json") return serde.loadsTyped(type, bytes);
  if (bytes.length === 0) return undefined;
  try {
    return (await serde.loadsTyped(type, bytes)) as unknown;
  } catch (error) {
    try {
      return JSON.parse(decoder.decode(bytes)) as unknown;
    } catch {
      throw error;
    }
  }
}
