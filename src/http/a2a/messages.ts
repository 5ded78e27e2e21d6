import { Role, type Message, type Part } from "@a2a-js/sdk";
import { ContentTypeNotSupportedError, RequestMalformedError } from "@a2a-js/sdk/errors";

/** A LangChain message as the API has it. */
export interface GraphMessage {
  type: string;
  id?: string | null | undefined;
  content: unknown;
}

/** Which task of which conversation a message belongs to. */
export interface TaskPlace {
  taskId: string;
  contextId: string;
}

/**
 * What a graph gets for a message: its texts as one human message under the client's own id, so that a message
 * sent twice is one message; its data as further fields of the input.
 */
export function toGraphInput(message: Message): Record<string, unknown> {
  const texts: string[] = [];
  const input: Record<string, unknown> = {};
  for (const { content } of message.parts) {
    if (content?.$case === "text") texts.push(content.value);
    else if (content?.$case === "data") Object.assign(input, toFields(content.value));
    else throw noFiles();
  }
  if (texts.length > 0) {
    const { messageId: id, metadata } = message;
    input["messages"] = [
      {
        type: "human",
        ...(id && { id }),
        content: texts.join("\n"),
        ...(metadata && { additional_kwargs: { metadata } }),
      },
    ];
  }
  return input;
}

/** The answer to a graph's question: the data if there is some, else the text. */
export function toResume(message: Message): unknown {
  const texts: string[] = [];
  for (const { content } of message.parts) {
    if (content?.$case === "data") return content.value;
    if (content?.$case !== "text") throw noFiles();
    texts.push(content.value);
  }
  return texts.join("\n");
}

/** A conversation without what only the agent itself needs to know: tool calls, their results, instructions. */
export function toHistory(messages: readonly GraphMessage[], place: TaskPlace): Message[] {
  return messages.flatMap((message) => {
    const role = toRole(message.type);
    const text = toText(message.content);
    if (role === undefined || text === "") return [];
    return [toMessage({ id: message.id ?? "", role, parts: [textPart(text)] }, place)];
  });
}

/** A message of the agent itself: a question, or what went wrong. */
export function agentMessage(id: string, parts: Part[], place: TaskPlace): Message {
  return toMessage({ id, role: Role.ROLE_AGENT, parts }, place);
}

export function textPart(text: string): Part {
  return part({ $case: "text", value: text }, "text/plain");
}

export function dataPart(value: unknown): Part {
  return part({ $case: "data", value }, "application/json");
}

/** The text of a message's content, whose other blocks are left out. */
export function toText(content: unknown): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return "";
  return content
    .map((block: unknown) => (block as { text?: unknown } | null)?.text)
    .filter((text) => typeof text === "string")
    .join("");
}

export function isAgent(message: GraphMessage): boolean {
  return toRole(message.type) === Role.ROLE_AGENT;
}

function toRole(type: string): Role | undefined {
  if (type === "human" || type === "HumanMessageChunk") return Role.ROLE_USER;
  return type === "ai" || type === "AIMessageChunk" ? Role.ROLE_AGENT : undefined;
}

function toFields(value: unknown): object {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value;
  throw new RequestMalformedError(
    "A data part must be an object: its fields are fields of the agent's input.",
  );
}

function noFiles(): ContentTypeNotSupportedError {
  return new ContentTypeNotSupportedError(
    "This agent takes text and data parts; files are not supported.",
  );
}

function part(content: NonNullable<Part["content"]>, mediaType: string): Part {
  return { content, metadata: undefined, filename: "", mediaType };
}

function toMessage(
  { id, role, parts }: { id: string; role: Role; parts: Part[] },
  { taskId, contextId }: TaskPlace,
): Message {
  return {
    messageId: id,
    contextId,
    taskId,
    role,
    parts,
    metadata: undefined,
    extensions: [],
    referenceTaskIds: [],
  };
}
