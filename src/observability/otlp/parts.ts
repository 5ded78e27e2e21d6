import { isRecord, type ChatMessage } from "../trace/messages.ts";
import { readToolCall } from "./messages.ts";

/** A message as the conventions' JSON schema wants it. */
export interface PartsMessage {
  role: string;
  parts: Record<string, unknown>[];
}

/** The parts of a message that is one text. */
export function textParts(text: string): { parts: Record<string, unknown>[] } {
  return { parts: [{ type: "text", content: text }] };
}

/** A chat message in parts: text, reasoning, tool calls and their responses. */
export function toParts(message: ChatMessage): PartsMessage {
  const { role, content, tool_calls: calls, tool_call_id: callId } = message;
  if (role === "tool") {
    return { role, parts: [{ type: "tool_call_response", id: callId, response: content }] };
  }
  const parts: Record<string, unknown>[] = [];
  for (const entry of Array.isArray(content) ? (content as unknown[]) : [content]) {
    const shown = toPart(entry);
    if (shown !== undefined) parts.push(shown);
  }
  for (const call of calls ?? []) parts.push({ type: "tool_call", ...readToolCall(call) });
  return { role, parts };
}

function toPart(entry: unknown): Record<string, unknown> | undefined {
  if (entry === undefined || entry === null || entry === "") return undefined;
  if (typeof entry === "string") return { type: "text", content: entry };
  if (!isRecord(entry)) return { type: "data", content: entry };
  // Its call is told by the message's tool calls.
  if (entry["type"] === "tool_use" || entry["type"] === "tool_call") return undefined;
  if (entry["type"] === "text") return { type: "text", content: entry["text"] };
  const thought = entry["thinking"] ?? entry["reasoning"];
  return thought === undefined ? { ...entry } : { type: "reasoning", content: thought };
}

/** A tool's definition, without the envelope of a provider. */
export function toDefinition(tool: unknown): unknown {
  const inner = isRecord(tool) && isRecord(tool["function"]) ? tool["function"] : tool;
  return isRecord(inner) ? { type: "function", ...inner } : inner;
}
