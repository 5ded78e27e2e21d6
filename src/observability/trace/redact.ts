/** What stands in for a credential. */
export const REDACTED = "<redacted>";

const SECRET_KEY =
  /^(?:.*apikey|.*authorization|(?:set)?cookies?|.*passw(?:or)?d|.*passphrase|.*secret|.*secretkey|.*privatekey|credentials?|token|(?:access|refresh|id|auth|bearer|session|api|service|csrf|xsrf)token|x(?:auth|access|csrf|xsrf)token|xservicekey|connectionstring|databaseurl)$/;

const REMEMBERED_KEYS = 5_000;

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
