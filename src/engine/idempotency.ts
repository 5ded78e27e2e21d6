import { createHash } from "node:crypto";
import { ServerError } from "../errors.ts";
import type { RunCreate } from "../protocol/runs.ts";
import { toCanonicalJson } from "./canonical-json.ts";

/** What is kept with a run, so that its request can be sent again. */
export interface Idempotency {
  /** The client's key. */
  key: string;
  /** Of what was asked for, so that a key is not taken for another request. */
  hash: string;
}

const KEY = /^[\x21-\x7e]{1,255}$/;

/** The `Idempotency-Key` of a request for a run; `undefined` without one. Throws `invalid_request`. */
export function toIdempotency(
  headers: Headers,
  asked: { threadId: string | undefined; body: RunCreate; index?: number },
): Idempotency | undefined {
  const key = headers.get("idempotency-key");
  if (key === null) return undefined;
  if (!KEY.test(key)) {
    throw new ServerError(
      "invalid_request",
      "Idempotency-Key: must be 1 to 255 visible ASCII characters",
    );
  }
  const { threadId, body, index } = asked;
  const text = toCanonicalJson({ threadId, body });
  return {
    // The runs of a batch are told apart by their place in it; no key of a client's has a space.
    key: index === undefined ? key : `${key} ${index}`,
    hash: createHash("sha256").update(text).digest("hex"),
  };
}
