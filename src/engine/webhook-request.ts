import { lookup as dnsLookup, type LookupAddress, type LookupAllOptions } from "node:dns";
import * as http from "node:http";
import * as https from "node:https";
import { isIP, type LookupFunction } from "node:net";
import { refusedAddress, toAddress } from "./webhook-policy.ts";

/** The host is, or has, an address to which nothing may be sent. It was not connected to. */
export class AddressRefused extends Error {}

type LookUp = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void;

export interface WebhookAnswer {
  status: number;
  /** What the receiver asks to wait; `undefined` where it asks for nothing. */
  retryAfterMs: number | undefined;
}

/**
 * Posts to a receiver that may not be trusted. Its name is looked up once, every address it has is asked about,
 * and the connection goes to those very addresses: a name that changes its address meanwhile gains nothing.
 * Redirects are not followed, the answer's body is not read, and a connection is used once.
 *
 * Rejects with `AddressRefused`, with the signal's reason, or with what the network says.
 */
export async function postWebhook(
  url: URL,
  request: {
    headers: Record<string, string>;
    body: string;
    allows: (address: string) => boolean;
    signal: AbortSignal;
    /** Gives all addresses of a name. Default: what the system knows. */
    lookup?: LookUp;
  },
): Promise<WebhookAnswer> {
  const { headers, body, allows, signal, lookup = dnsLookup } = request;
  const host = toAddress(url);
  // A literal address is connected to without a look-up.
  if (isIP(host) > 0 && !allows(host)) throw new AddressRefused(refusedAddress(host, host));
  const { request: send } = url.protocol === "https:" ? https : http;
  return new Promise((resolve, reject) => {
    const sending = send(url, {
      method: "POST",
      headers: { ...headers, "content-length": String(Buffer.byteLength(body)) },
      agent: false,
      lookup: checkedLookup(allows, lookup),
      signal,
    });
    sending.on("error", reject);
    sending.on("response", (response) => {
      resolve({
        status: response.statusCode ?? 0,
        retryAfterMs: toRetryAfterMs(response.headers["retry-after"]),
      });
      // The answer is known; whatever follows is none of our business.
      response.on("error", () => {});
      sending.destroy();
    });
    sending.end(body);
  });
}

function checkedLookup(allows: (address: string) => boolean, lookup: LookUp): LookupFunction {
  return (hostname, options, callback) => {
    lookup(hostname, { ...options, all: true }, (error, addresses) => {
      if (error) return callback(error, "");
      const refused = addresses.find(({ address }) => !allows(address));
      if (refused) {
        return callback(new AddressRefused(refusedAddress(hostname, refused.address)), "");
      }
      const [first] = addresses;
      if (options.all || !first) return callback(null, addresses);
      return callback(null, first.address, first.family);
    });
  };
}

/** Seconds, or a date. */
function toRetryAfterMs(header: string | undefined): number | undefined {
  if (header === undefined) return undefined;
  const ms = /^\d+$/.test(header) ? Number(header) * 1_000 : Date.parse(header) - Date.now();
  return Number.isFinite(ms) && ms > 0 ? ms : undefined;
}
