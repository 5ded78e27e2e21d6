import { BlockList, isIP } from "node:net";
import type { WebhookRules, WebhooksConfig } from "../config/schema.ts";

/** Where webhooks may go. */
export interface WebhookPolicy {
  /** Why nothing may be sent to this URL; `undefined` if it may, as far as that is known without a look-up. */
  refusal(url: string): string | undefined;
  /** Whether a connection to this address may be made. */
  allows(address: string): boolean;
}

const MAX_URL_LENGTH = 2_048;
const PRIVATE = "Set webhooks.allow_private_networks to send webhooks into your own network.";

/** Everything in IPv4 that is not the public internet. Source: the IANA special-purpose address registry. */
const SPECIAL_V4: readonly [string, number][] = [
  ["0.0.0.0", 8],
  ["10.0.0.0", 8],
  ["100.64.0.0", 10],
  ["127.0.0.0", 8],
  ["169.254.0.0", 16],
  ["172.16.0.0", 12],
  ["192.0.0.0", 24],
  ["192.0.2.0", 24],
  ["192.88.99.0", 24],
  ["192.168.0.0", 16],
  ["198.18.0.0", 15],
  ["198.51.100.0", 24],
  ["203.0.113.0", 24],
  ["224.0.0.0", 3],
];
/** Within 2000::/3, the part of IPv6 that is assigned: Teredo and others, documentation, 6to4. */
const SPECIAL_V6: readonly [string, number][] = [
  ["2001::", 23],
  ["2001:db8::", 32],
  ["2002::", 16],
  ["3fff::", 20],
];

/** The policy of a configuration: its `webhooks.url`, and no private networks unless they are allowed. */
export function createWebhookPolicy(config: WebhooksConfig): WebhookPolicy {
  const special = new BlockList();
  for (const [network, prefix] of SPECIAL_V4) special.addSubnet(network, prefix, "ipv4");
  for (const [network, prefix] of SPECIAL_V6) special.addSubnet(network, prefix, "ipv6");
  const global = new BlockList();
  global.addSubnet("2000::", 3, "ipv6");

  const allows = (address: string): boolean => {
    if (config.allowPrivateNetworks) return true;
    if (isIP(address) === 4) return !special.check(address, "ipv4");
    return global.check(address, "ipv6") && !special.check(address, "ipv6");
  };
  return {
    allows,
    refusal(text) {
      const { url: rules } = config;
      const length = rules.max_url_length ?? MAX_URL_LENGTH;
      if (text.length > length) return `is longer than ${length} characters`;
      if (text.startsWith("/") && !/^\/[/\\]/.test(text)) {
        return rules.disable_loopback ? "must not be a path on this server" : undefined;
      }
      if (!URL.canParse(text)) return "must be a URL, or a path on this server";
      const url = new URL(text);
      return refusalOfUrl(url, rules) ?? refusalOfAddress(url, allows);
    },
  };
}

function refusalOfUrl(url: URL, rules: WebhookRules): string | undefined {
  if (url.protocol !== "https:" && url.protocol !== "http:") {
    return "must begin with https:// or http://";
  }
  if (rules.require_https && url.protocol !== "https:") return "must begin with https://";
  const port = url.port === "" ? (url.protocol === "https:" ? 443 : 80) : Number(url.port);
  if (rules.allowed_ports && !rules.allowed_ports.includes(port)) {
    return `must use one of the ports ${rules.allowed_ports.join(", ")}`;
  }
  const domains = rules.allowed_domains ?? [];
  if (domains.length > 0 && !domains.some((domain) => isWithin(url.hostname, domain))) {
    return `must be on one of ${domains.join(", ")}`;
  }
  return undefined;
}

/** `*.example.com` is every host below example.com, and not example.com itself. */
function isWithin(host: string, domain: string): boolean {
  const wanted = domain.toLowerCase();
  return wanted.startsWith("*.") ? host.endsWith(wanted.slice(1)) : host === wanted;
}

function refusalOfAddress(url: URL, allows: (address: string) => boolean): string | undefined {
  const host = toAddress(url);
  const refused = isIP(host) > 0 ? !allows(host) : host === "localhost" && !allows("127.0.0.1");
  return refused ? `must not be in a private network. ${PRIVATE}` : undefined;
}

/** The host of a URL, an IPv6 address without its brackets. */
export function toAddress(url: URL): string {
  return url.hostname.replace(/^\[(.*)\]$/, "$1");
}

/** What is said of a name that leads to an address where nothing may be sent. */
export function refusedAddress(host: string, address: string): string {
  return `${host} is ${address}, which is in a private network. ${PRIVATE}`;
}
