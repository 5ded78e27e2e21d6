import { wellFormed } from "../trace/serialise.ts";
import type { Withhold } from "./withhold.ts";

const MOST_CHARS = 200;

/** What cannot be read from OpenSSL's own words. */
const NO_TLS = "the server speaks no TLS: is the address http://, not https://?";
const WORDS: Readonly<Record<string, string>> = {
  ERR_SSL_WRONG_VERSION_NUMBER: NO_TLS,
  ERR_SSL_PACKET_LENGTH_TOO_LONG: NO_TLS,
};

/** Somebody else's text as one short line, without what `withhold` takes out. */
export function toLine(text: string, withhold: Withhold = (whole) => whole): string {
  // Before anything is cut or folded, or what is left of a secret would not be known as one.
  const line = withhold(text).replaceAll(/\s+/g, " ").trim();
  return line.length <= MOST_CHARS ? line : `${wellFormed(line.slice(0, MOST_CHARS - 1))}…`;
}

/** One short sentence for a failed request; `fetch` hides the reason in its cause. */
export function reasonOf(error: unknown, timeoutMs: number, withhold?: Withhold): string {
  if (!(error instanceof Error)) return toLine(String(error), withhold);
  if (error.name === "TimeoutError") return `no answer within ${timeoutMs} ms`;
  const { cause } = error;
  const code = cause instanceof Error && "code" in cause ? String(cause.code) : "";
  if (WORDS[code] !== undefined) return WORDS[code];
  const said = (cause instanceof Error && (cause.message || code)) || error.message;
  // What fetch says of a header before it asks for anything quotes the value, which may be a key.
  const early = code === "" || code === "UND_ERR_INVALID_ARG";
  if (early && /\bheaders?\b|ByteString/i.test(said))
    return "a header of the request cannot be sent";
  return toLine(said, withhold);
}
