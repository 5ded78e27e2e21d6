import { ServerError } from "../errors.ts";
import { JSON_RPC_ERRORS, type JsonRpcAnswer, type JsonRpcError } from "../protocol/json-rpc.ts";

/** A refusal with a code that the protocol on top of JSON-RPC knows. */
export class JsonRpcRefusal extends ServerError {
  readonly rpcCode: number;

  constructor(rpcCode: number, message: string) {
    super("invalid_request", message);
    this.rpcCode = rpcCode;
  }
}

/** What a method threw, for the client: a refusal as it stands; a bug without its message. */
export function toJsonRpcError(error: unknown): JsonRpcError {
  if (error instanceof JsonRpcRefusal) return { code: error.rpcCode, message: error.message };
  if (error instanceof ServerError && error.code !== "internal") {
    return { code: toCode(error), message: error.message, data: { code: error.code } };
  }
  return { code: JSON_RPC_ERRORS.internal, message: "Internal server error" };
}

function toCode(error: ServerError): number {
  if (error.code === "invalid_json") return JSON_RPC_ERRORS.parse;
  return error.status < 500 ? JSON_RPC_ERRORS.invalid_params : JSON_RPC_ERRORS.internal;
}

/**
 * The answer to a request that was refused before its method was reached. Who may not come in is told by
 * HTTP's own status, which every client understands.
 */
export function toRefusedAnswer(error: ServerError): {
  status: number;
  headers: Record<string, string>;
  json: JsonRpcAnswer;
} {
  return {
    status: error.status === 422 ? 400 : error.status,
    headers: { ...error.headers },
    json: { jsonrpc: "2.0", id: null, error: toJsonRpcError(error) },
  };
}
