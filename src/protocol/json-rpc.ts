import { z } from "zod";

/** The codes JSON-RPC 2.0 reserves, which MCP and A2A use as they stand. */
export const JSON_RPC_ERRORS = {
  parse: -32700,
  invalid_request: -32600,
  method_not_found: -32601,
  invalid_params: -32602,
  internal: -32603,
} as const;

export const JsonRpcId = z.union([z.string(), z.int()]);
export type JsonRpcId = z.infer<typeof JsonRpcId>;

/** A request, or without an id a notification, which gets no answer. */
export const JsonRpcMessage = z.object({
  jsonrpc: z.literal("2.0"),
  id: JsonRpcId.optional(),
  method: z.string(),
  params: z.record(z.string(), z.unknown()).optional(),
});
export type JsonRpcMessage = z.infer<typeof JsonRpcMessage>;

export interface JsonRpcError {
  code: number;
  message: string;
  data?: unknown;
}

/** What answers a request; `null` stands for the id of one that could not be read. */
export type JsonRpcAnswer = { jsonrpc: "2.0"; id: JsonRpcId | null } & (
  | { result: unknown }
  | { error: JsonRpcError }
);
