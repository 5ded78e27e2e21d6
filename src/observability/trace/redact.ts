/** What stands in for a credential. */
export const REDACTED = "<redacted>";

const SECRET_KEY =
  /^(?:.*apikey|.*authorization|(?:set)?cookies?|.*passw(?:or)?d|.*passphrase|.*secret|.*secretkey|.*privatekey|credentials?|token|(?:access|refresh|id|auth|bearer|session|api|service|csrf|xsrf)token|x(?:auth|access|csrf|xsrf)token|xservicekey|connectionstring|databaseurl)$/;

const REMEMBERED_KEYS = 5_000;

/** What every key that names a credential has in it. */
const SECRET_WORD =
  /api.?key|authorization|cookie|passw|passphrase|secret|private.?key|credential|token|connection.?string|database.?url/gi;
const MAX_KEY_CHARS = 100;
/** What is between a key of JSON and a text that is its value. */
const COLON = /"\s{0,20}:\s{0,20}"/y;
/** The rest of a text in JSON, which may be cut off. */
const REST = /(?:[^"\\]|\\.)*(?:"|$)/sy;

/**
 * A text with the credentials in it replaced, where it is JSON with texts under keys that name one: so tools and models
 * hand objects on. Only keys with a telling word are looked at, as most texts have none.
 */
export function redactJsonText(text: string, isSecretKey: (key: string) => boolean): string {
  if (!text.includes('":') && !text.includes('" :')) return text;
  let redacted = "";
  let at = 0;
  for (const { index } of text.matchAll(SECRET_WORD)) {
    if (index < at) continue;
    const before = text.slice(Math.max(at, index - MAX_KEY_CHARS), index);
    const start = index - before.length + before.lastIndexOf('"') + 1;
    const end = text.indexOf('"', index);
    if (!before.includes('"') || end === -1) continue;
    if (end - start > MAX_KEY_CHARS || !isSecretKey(text.slice(start, end))) continue;
    const value = endOf(COLON, text, end);
    if (value === undefined) continue;
    redacted += `${text.slice(at, value)}${REDACTED}"`;
    at = endOf(REST, text, value) ?? text.length;
  }
  return at === 0 ? text : redacted + text.slice(at);
}

/** Where what `pattern` finds at `at` ends. */
function endOf(pattern: RegExp, text: string, at: number): number | undefined {
  pattern.lastIndex = at;
  return pattern.test(text) ? pattern.lastIndex : undefined;
}

/**
 * A test for key names that hold a credential (`authorization`, `x-api-key`, `api_key`, `password`,
 * `clientSecret`, `access_token`, ...), whatever their case and separators. `max_tokens`, `next_page_token` and the like
 * are not. Answers are remembered, since the same keys come back on every node.
 */
export function createSecretKeyTest(): (key: string) => boolean {
  const remembered = new Map<string, boolean>();
  return (key) => {
    const known = remembered.get(key);
    if (known !== undefined) return known;
    const answer = key.length < 100 && SECRET_KEY.test(key.toLowerCase().replaceAll(/[-_. ]/g, ""));
    if (remembered.size < REMEMBERED_KEYS) remembered.set(key, answer);
    return answer;
  };
}
