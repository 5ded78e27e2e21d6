import { isRecord, parseMessage, type ChatMessage } from "./messages.ts";

/** What the user said last, in a state or input that has `messages`; `undefined` where there is none. */
export function lastUserMessage(state: unknown): unknown {
  for (const message of messagesFromEnd(state))
    if (message.role === "user") return spoken(message.content);
  return undefined;
}

/**
 * The answer in a final state that has `messages`: the last message that is not the user's. `asked` is what the user said
 * in this run; what was said before it answers something else. `undefined` where there is no answer.
 */
export function lastAnswer(state: unknown, asked: unknown): unknown {
  for (const message of messagesFromEnd(state)) {
    if (message.role === "user") {
      if (asked !== undefined && isSame(spoken(message.content), asked)) return undefined;
    } else if (message.role !== "system") return answerOf(message);
  }
  return undefined;
}

function answerOf({ content, tool_calls: calls }: ChatMessage): unknown {
  const said = spoken(content);
  const silent = said === "" || (Array.isArray(said) && textsOf(said).length === 0);
  return silent && calls !== undefined ? { tool_calls: calls } : said;
}

/** Blocks that say something to others than the reader: thoughts, and calls that are told apart. */
const UNSPOKEN = /think|reasoning|tool_|_tool|function_call/;
const MEDIA = /image|audio|video|file|document|media/;

/** A message's content as it reads: its text, with a word for each picture or file. What has no text is left as it is. */
function spoken(content: unknown): unknown {
  if (!Array.isArray(content)) return content;
  const texts = textsOf(content as unknown[]);
  if (texts.length === 0) return content;
  const pieces: string[] = [];
  for (const block of content as unknown[]) {
    const text = textOf(block);
    if (text !== undefined) pieces.push(text);
    else {
      const type = typeOf(block) ?? "";
      const medium = UNSPOKEN.test(type) ? undefined : MEDIA.exec(type)?.[0];
      if (medium !== undefined) pieces.push(`[${medium}]`);
    }
  }
  return pieces.join(pieces.length > texts.length ? "\n" : "");
}

function textsOf(blocks: readonly unknown[]): string[] {
  return blocks.map(textOf).filter((text) => text !== undefined);
}

function textOf(block: unknown): string | undefined {
  if (typeof block === "string") return block;
  if (!isRecord(block) || typeof block["text"] !== "string") return undefined;
  const type = typeOf(block) ?? "text";
  return type === "text" || type.endsWith("_text") ? block["text"] : undefined;
}

function typeOf(block: unknown): string | undefined {
  return isRecord(block) && typeof block["type"] === "string" ? block["type"] : undefined;
}

function isSame(left: unknown, right: unknown): boolean {
  return left === right || JSON.stringify(left) === JSON.stringify(right);
}

function* messagesFromEnd(state: unknown): Generator<ChatMessage> {
  if (!isRecord(state)) return;
  const { messages } = state;
  const list = Array.isArray(messages) && !isPair(messages) ? (messages as unknown[]) : [messages];
  for (let index = list.length - 1; index >= 0; index -= 1) {
    const message = parseMessage(list[index]);
    if (message !== undefined) yield message;
  }
}

function isPair(value: readonly unknown[]): boolean {
  return (
    value.length === 2 &&
    typeof value[0] === "string" &&
    value[0] in { user: 1, human: 1, ai: 1, assistant: 1, system: 1 }
  );
}
