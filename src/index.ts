/** The public API: everything a program needs to embed the server. */
export { ERRORS, ServerError, type ErrorCode } from "./errors.ts";
export { loadConfig, type LoadConfigOptions } from "./config/load.ts";
export type { Config } from "./config/schema.ts";
export { createLogger, type Logger } from "./observability/log.ts";
export { openServer, type OpenServerOptions, type Server } from "./server.ts";
