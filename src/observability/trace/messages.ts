import type { Simplify } from "./serialise.ts";

/** A chat message as a person reads it, and as Langfuse draws it. */
export interface ChatMessage {
  role: string;
  content: unknown;
  name?: string;
  tool_calls?: unknown[];
  tool_call_id?: string;
  status?: string;
}

const ROLES: Readonly<Record<string, string>> = {
  human: "user",
  ai: "assistant",
  AIMessageChunk: "assistant",
  HumanMessageChunk: "user",
  SystemMessageChunk: "system",
  ToolMessageChunk: "tool",
};

interface MessageLike {
  content: unknown;
  name?: unknown;
  tool_calls?: unknown;
  tool_call_id?: unknown;
  status?: unknown;
  role?: unknown;
  additional_kwargs?: { tool_calls?: unknown; function_call?: unknown } | undefined;
  getType?: () => string;
  _getType?: () => string;
}

/** True for a LangChain message of any copy of `@langchain/core`. */
export function isMessage(value: unknown): value is MessageLike {
  return (
    typeof value === "object" &&
    value !== null &&
    typeof (value as MessageLike)._getType === "function" &&
    "content" in value
  );
}

/** The readable form of a LangChain message: role, content, tool calls; no ids, no serialised constructor. */
export function toChatMessage(message: MessageLike): ChatMessage {
  const type = message.getType?.() ?? message._getType?.() ?? "unknown";
  const role =
    type === "generic" || type === "chat"
      ? typeof message.role === "string"
        ? message.role
        : "user"
      : (ROLES[type] ?? type);
  const calls = toolCalls(message);
  return {
    role,
    ...(typeof message.name === "string" && message.name !== "" ? { name: message.name } : {}),
    content: message.content,
    ...(calls.length > 0 ? { tool_calls: calls } : {}),
    ...(typeof message.tool_call_id === "string" ? { tool_call_id: message.tool_call_id } : {}),
    ...(message.status === "error" ? { status: "error" } : {}),
  };
}

function toolCalls(message: MessageLike): unknown[] {
  const own = message.tool_calls;
  if (Array.isArray(own) && own.length > 0) return own;
  const raw = message.additional_kwargs?.tool_calls;
  if (Array.isArray(raw)) return raw;
  const single = message.additional_kwargs?.function_call;
  return single === undefined ? [] : [single];
}

/** The text of a message's content, where it is nothing but text; else the content as it is. */
export function readableContent(content: unknown): unknown {
  if (!Array.isArray(content)) return content;
  const texts: string[] = [];
  for (const part of content as unknown[]) {
    if (typeof part === "string") texts.push(part);
    else if (isRecord(part) && part["type"] === "text" && typeof part["text"] === "string")
      texts.push(part["text"]);
    else return content;
  }
  return texts.join("");
}

/**
 * The role and content of whatever LangGraph accepts as a message: an instance, `{role, content}`,
 * `{type, content}`, `[role, content]`, a serialised constructor, or a plain string (a user message).
 */
export function parseMessage(value: unknown): ChatMessage | undefined {
  if (typeof value === "string") return { role: "user", content: value };
  if (isMessage(value)) return toChatMessage(value);
  if (Array.isArray(value)) {
    const [role, content] = value as unknown[];
    return typeof role === "string" && value.length === 2
      ? { role: ROLES[role] ?? role, content }
      : undefined;
  }
  if (!isRecord(value)) return undefined;
  const kwargs = value["lc"] === 1 && isRecord(value["kwargs"]) ? value["kwargs"] : value;
  const type =
    value["lc"] === 1 && Array.isArray(value["id"])
      ? messageType(String(value["id"].at(-1)))
      : undefined;
  const role = type ?? kwargs["role"] ?? kwargs["type"];
  if (typeof role !== "string" || !("content" in kwargs)) return undefined;
  const calls = kwargs["tool_calls"];
  return {
    role: ROLES[role] ?? role,
    content: kwargs["content"],
    ...(Array.isArray(calls) && calls.length > 0 ? { tool_calls: calls as unknown[] } : {}),
  };
}

function messageType(name: string): string {
  return name.replace(/Message(Chunk)?$/, "").toLowerCase();
}

/** LangChain's and LangGraph's own objects in readable form, for the serialiser. */
export const simplifyLangChain: Simplify = (value) => {
  const prototype: unknown = Object.getPrototypeOf(value);
  if (prototype === Array.prototype) return undefined;
  if (prototype === Object.prototype || prototype === null)
    return simplifyRecord(value as Record<string, unknown>);
  if (isMessage(value)) return { plain: toChatMessage(value), stable: true };
  return simplifyInstance(value as Record<string, unknown>);
};

function simplifyRecord(value: Record<string, unknown>): ReturnType<Simplify> {
  if (value["lc"] !== 1 || !("id" in value)) return undefined;
  const message = parseMessage(value);
  if (message !== undefined) return { plain: message, stable: false };
  const name = Array.isArray(value["id"]) ? String(value["id"].at(-1)) : "object";
  if (value["type"] === "constructor") return { plain: { [name]: value["kwargs"] }, stable: false };
  return { plain: `<${name}>`, stable: false };
}

function simplifyInstance(value: Record<string, unknown>): ReturnType<Simplify> {
  const kind = value["lg_name"];
  if (kind === "Command") return { plain: commandForm(value), stable: false };
  if (kind === "Send")
    return { plain: { send_to: value["node"], args: value["args"] }, stable: false };
  if (typeof value["pageContent"] === "string" && "metadata" in value) {
    const { id, pageContent, metadata } = value;
    return { plain: { ...(id === undefined ? {} : { id }), pageContent, metadata }, stable: false };
  }
  if (typeof value["toChatMessages"] === "function") {
    return { plain: (value["toChatMessages"] as () => unknown).call(value), stable: false };
  }
  // Models, tools, prompts and graphs: their name says more than their insides, which may hold keys.
  if (value["lc_runnable"] === true || value["lc_serializable"] !== undefined) {
    const name = typeof value["name"] === "string" ? value["name"] : className(value);
    return { plain: `<${name}>`, stable: false };
  }
  return undefined;
}

/** A LangGraph `Command` as what it asks for. */
export function commandForm(command: Record<string, unknown>): Record<string, unknown> {
  const form: Record<string, unknown> = {};
  for (const key of ["update", "goto", "resume", "graph"]) {
    const value = command[key];
    if (value === undefined || (Array.isArray(value) && value.length === 0)) continue;
    if (key === "graph") {
      // Anything else is a checkpoint namespace, which says nothing to a reader.
      if (value === "__parent__") form["graph"] = "parent";
      continue;
    }
    form[key] =
      key === "goto" && Array.isArray(value) && value.length === 1
        ? (value as unknown[])[0]
        : value;
  }
  return form;
}

function className(value: object): string {
  return value.constructor?.name ?? "object";
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
