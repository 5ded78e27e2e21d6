import { z } from "zod";
import { JsonRpcId } from "./json-rpc.ts";

/** Newest first. All of them have tools over streamable HTTP in the form that is answered here. */
export const MCP_VERSIONS = ["2025-11-25", "2025-06-18", "2025-03-26"] as const;

export const McpInitialize = z.object({ protocolVersion: z.string() });

export const McpToolsList = z.object({ cursor: z.string().optional() });

export const McpToolsCall = z.object({
  name: z.string(),
  arguments: z.record(z.string(), z.unknown()).optional(),
  _meta: z.object({ progressToken: JsonRpcId.optional() }).optional(),
});
export type McpToolsCall = z.infer<typeof McpToolsCall>;

export const McpCancelled = z.object({ requestId: JsonRpcId, reason: z.string().optional() });

export interface McpTool {
  name: string;
  title: string;
  description: string;
  inputSchema: object;
}

export interface McpToolResult {
  content: { type: "text"; text: string }[];
  /** The graph's output, where it is an object. */
  structuredContent?: Record<string, unknown>;
  isError: boolean;
}
