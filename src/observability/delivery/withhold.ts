import { wellFormed } from "../trace/serialise.ts";

/** Takes out of a text what must not be told: the values of our own headers, and the keys in them. */
export type Withhold = (text: string) => string;

const REDACTED = "<redacted>";
/** Shorter values are no secrets, and would be found in any text. */
const SHORTEST = 4;
/** A part of a value, such as one of several cookies, is a secret of its own where it is as long as one. */
const SHORTEST_PART = 8;
/** Headers whose values everybody may know. */
const TOLD = /^(?:accept|content-.*|user-agent|x-langfuse-(?:ingestion-version|sdk-.*))$/i;

/**
 * Withholds what `headers` hold: each value, the token after a scheme, the two halves of Basic credentials, all of
 * them plain, in base64, percent-encoded and as JSON writes them.
 */
export function createWithhold(headers: Readonly<Record<string, string>>): Withhold {
  const secrets = Object.entries(headers)
    .filter(([name]) => !TOLD.test(name))
    .flatMap(([, value]) => [value.trim(), ...partsOf(value.trim())]);
  const forms = [...new Set(secrets.flatMap(formsOf))]
    .filter((form) => form.length >= SHORTEST)
    // The longest first: a shorter one may be a part of it.
    .toSorted((a, b) => b.length - a.length);
  return (text) => forms.reduce((rest, form) => rest.replaceAll(form, () => REDACTED), text);
}

function partsOf(value: string): string[] {
  const [, scheme = "", token = ""] = /^(\S+)\s+(\S.*)$/s.exec(value) ?? [];
  const parts = value.split(/[\s,;=]+/).filter((part) => part.length >= SHORTEST_PART);
  if (scheme.toLowerCase() !== "basic") return [token, ...parts];
  const pair = Buffer.from(token, "base64").toString();
  const colon = pair.indexOf(":");
  return [token, pair, ...(colon < 0 ? [] : [pair.slice(0, colon), pair.slice(colon + 1)])];
}

function formsOf(secret: string): string[] {
  const base64 = Buffer.from(secret).toString("base64");
  return [
    secret,
    secret.replace(/=+$/, ""),
    base64,
    base64.replace(/=+$/, ""),
    Buffer.from(secret).toString("base64url"),
    encodeURIComponent(wellFormed(secret)),
    JSON.stringify(secret).slice(1, -1),
    // As some write a slash in JSON.
    secret.replaceAll("/", "\\/"),
  ];
}
