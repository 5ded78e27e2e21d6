/** What belongs to the connection or to the body, and is the HTTP client's own. */
const OWNED = new Set([
  "connection",
  "content-encoding",
  "content-length",
  "content-type",
  "expect",
  "host",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "transfer-encoding",
  "upgrade",
]);

/** What every request to Langfuse says of itself. */
const LANGFUSE_OWNED = new Set([
  ...OWNED,
  "authorization",
  "x-langfuse-ingestion-version",
  "x-langfuse-public-key",
  "x-langfuse-sdk-name",
  "x-langfuse-sdk-version",
]);

/** What is wrong with a header for a target, to be read after its name; never tells the value. */
export function headerProblem(
  name: string,
  value: string,
  target: "langfuse" | "otlp",
): string | undefined {
  if (!/^[\w!#$%&'*+.^`|~-]+$/u.test(name)) return "is not the name of a header";
  const owned = target === "langfuse" ? LANGFUSE_OWNED : OWNED;
  if (owned.has(name.toLowerCase()))
    return name.toLowerCase() === "authorization"
      ? "is made of LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY: leave it out"
      : "is set by the server itself: leave it out";
  if (!/^[\t\u{20}-\u{7e}\u{80}-\u{ff}]*$/u.test(value))
    return "has a value that no header can have, such as one with a line break";
  return undefined;
}

/** The first of `headers` that cannot be sent, and why; `undefined` if all can. Never tells a value. */
export function invalidHeader(
  headers: Readonly<Record<string, string>>,
  target: "langfuse" | "otlp" = "otlp",
): string | undefined {
  for (const [name, value] of Object.entries(headers)) {
    const problem = headerProblem(name, value, target);
    if (problem !== undefined) return `the header ${quoteName(name)} ${problem}`;
  }
  return undefined;
}

/** A name as it can stand in a line; what is no name may be anything. */
function quoteName(name: string): string {
  return JSON.stringify(name.length > 60 ? `${name.slice(0, 60)}…` : name);
}

/** What is wrong with a key that is no single line without spaces, to be read after its name; never tells the key. */
export function describeKey(key: string): string | undefined {
  return /^[\u{21}-\u{7e}]+$/u.test(key)
    ? undefined
    : "has a character that no key has, such as a space or a line break: copy it anew";
}
