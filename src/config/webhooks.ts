import type { Variables } from "./env.ts";
import type { ReadConfigFile } from "./file.ts";
import type { Problem } from "./problems.ts";
import type { WebhooksConfig } from "./schema.ts";

/** What a variable in a header must begin with, so that a config file cannot send away just any of them. */
const ENV_PREFIX = "LG_WEBHOOK_";
const TEMPLATE = /\$\{\{\s*env\.([A-Za-z_]\w*)\s*\}\}/g;

/**
 * Where webhooks go and what they carry, with all variables looked up. One that is not set, or that does not
 * begin with the prefix, is a problem.
 */
export function toWebhooks(
  file: ReadConfigFile | undefined,
  { env, problems }: { env: Variables; problems: Problem[] },
): WebhooksConfig {
  const values = file?.values.webhooks ?? {};
  const refuse = (key: string, message: string): string => {
    problems.push({ source: file?.path ?? "", key: `webhooks.${key}`, message });
    return "";
  };
  const lookUp = (key: string, name: string): string =>
    env[name]?.trim() || refuse(key, `names the variable ${name}, which is not set`);

  const prefix = values.env_prefix ?? ENV_PREFIX;
  const headers = Object.entries(values.headers ?? {}).map(([name, template]) => {
    const key = `headers.${name}`;
    const value = template.replaceAll(TEMPLATE, (_all, variable: string) =>
      variable.startsWith(prefix)
        ? lookUp(key, variable)
        : refuse(key, `may only use variables that begin with ${prefix}, not ${variable}`),
    );
    return [name, value] as const;
  });
  const [, variable] = /^\$\{(\w+)\}$/.exec(values.secret ?? "") ?? [];
  return {
    enabled: file?.values.http?.disable_webhooks !== true,
    headers: Object.fromEntries(headers),
    secret: variable === undefined ? undefined : lookUp("secret", variable),
    url: values.url ?? {},
    allowPrivateNetworks: values.allow_private_networks ?? false,
  };
}
