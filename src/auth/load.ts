import { relative } from "node:path";

import type { ModuleReference } from "../config/schema.ts";
import { ServerError } from "../errors.ts";
import { formatPosition } from "../modules/failure.ts";
import { loadExport } from "../modules/load.ts";
import { createAuthenticator } from "./authenticate.ts";
import type { AuthHandlers, Authenticator, AuthorizationHandler } from "./authenticate.ts";

/**
 * The authenticator of the config's `auth.path`: a module that exports an `Auth` of
 * `@langchain/langgraph-sdk/auth` with an `authenticate` handler.
 *
 * Rejects with `startup_failed`, which names the file and the reason. There is no way around it: a server
 * whose authentication cannot load must not start.
 */
export async function loadAuth(
  reference: ModuleReference,
  options: { cwd: string; letStudioIn?: boolean },
): Promise<Authenticator> {
  const file = relative(options.cwd, reference.path);
  const found = await loadExport(reference, options);
  if ("error" in found) {
    const { message, excerpt } = found.error;
    const reason =
      excerpt === undefined ? message : `${message}\n${excerpt.replaceAll(/^/gmu, "    ")}`;
    throw refuse(formatPosition(found.error, options.cwd), reason);
  }
  let exported: unknown;
  try {
    exported = await found.value;
  } catch (thrown) {
    throw refuse(file, thrown instanceof Error ? thrown.message : String(thrown));
  }
  const handlers = toHandlers(exported);
  if (handlers === "no-auth") {
    throw refuse(
      file,
      `export "${reference.exportName}" is not an Auth; create it with new Auth() of @langchain/langgraph-sdk/auth`,
    );
  }
  if (handlers === "no-authenticate") {
    throw refuse(file, "the Auth has no authenticate handler, so every request would be anonymous");
  }
  return createAuthenticator(handlers, options);
}

function refuse(place: string, reason: string): ServerError {
  return new ServerError(
    "startup_failed",
    `The authentication handler cannot be loaded, so the server does not start.\n  ${place}: ${reason}`,
  );
}

/** Asks for the shape, because the project may carry its own copy of the SDK. */
function toHandlers(exported: unknown): AuthHandlers | "no-auth" | "no-authenticate" {
  if (typeof exported !== "object" || exported === null) return "no-auth";
  const cache: unknown = Reflect.get(exported, "~handlerCache");
  if (typeof cache !== "object" || cache === null) return "no-auth";
  const authenticate: unknown = Reflect.get(cache, "authenticate");
  if (!isFunction(authenticate)) return "no-authenticate";
  const callbacks = new Map<string, AuthorizationHandler>();
  for (const [event, handler] of Object.entries(Reflect.get(cache, "callbacks") ?? {})) {
    if (isFunction(handler)) callbacks.set(event, handler);
  }
  return { authenticate, callbacks };
}

function isFunction(value: unknown): value is (argument: unknown) => unknown {
  return typeof value === "function";
}
