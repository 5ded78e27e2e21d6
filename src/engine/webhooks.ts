import { createHmac } from "node:crypto";
import { ServerError } from "../errors.ts";
import type { WebhooksConfig } from "../config/schema.ts";
import type { Logger } from "../observability/log.ts";
import type { RunRecord } from "../storage/run-record.ts";
import type { TakenWebhook, WebhookOutcome, WebhookRepository } from "../storage/webhooks.ts";
import { gravityOf } from "./gravity.ts";
import { createWebhookPolicy, type WebhookPolicy } from "./webhook-policy.ts";
import { AddressRefused, postWebhook, type WebhookAnswer } from "./webhook-request.ts";

/*
 * A webhook:   waiting --taken, sent--> delivered | failed
 *                 ^          |
 *                 '----------'   (no answer, or not a good one: again after a while)
 *
 * It is written by the statement that ends its run. A process that dies while it sends leaves it waiting, to
 * be sent again: it arrives at least once, always under the same id.
 */

const LOOK_MS = 1_000;
/** How many are sent at the same time by a process. A receiver that hangs holds one of these places. */
const CONCURRENCY = 16;
/** For whoever has taken one to send it; more than any time-out. */
const CLAIM_MS = 60_000;
/** How long after the first attempt, and so on, the next one is made; about ten hours in all. */
const DELAYS_MS = [5_000, 30_000, 120_000, 600_000, 3_600_000, 3 * 3_600_000, 6 * 3_600_000];
/** Receivers that come back at the same time should not all be asked at the same time. */
const JITTER = 0.2;
/** How long a process that is to end waits for what it is sending. */
const CLOSE_MS = 2_000;

export interface WebhooksOptions {
  webhooks: WebhookRepository;
  config: WebhooksConfig;
  /** What they are signed with. */
  secret: string;
  /** The run as the API shows it. */
  show: (run: RunRecord) => object;
  serialise: (value: unknown) => string;
  /** Answers a request to this server, for webhooks that are a path on it. */
  loopback: (request: Request) => Promise<Response>;
  userAgent: string;
  /** How long a receiver has for its answer. */
  timeoutMs: number;
  log: Logger;
}

/** Sends what is due to its receivers. Every process may, and what one has taken no other one sends meanwhile. */
export class Webhooks {
  readonly #options: WebhooksOptions;
  readonly #policy: WebhookPolicy;
  readonly #sending = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #lookAgain = false;
  #delivered = 0;
  #failed = 0;

  constructor(options: WebhooksOptions) {
    this.#options = options;
    this.#policy = createWebhookPolicy(options.config);
  }

  /** Begins to send, unless webhooks are switched off: what waits then goes on waiting. */
  open(): void {
    if (!this.#options.config.enabled) return;
    this.#timer = setInterval(() => this.poke(), LOOK_MS);
    this.poke();
  }

  /** Takes no more, waits a moment for what is being sent, and gives the rest back. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    const patience = setTimeout(() => this.#closing.abort(), CLOSE_MS);
    await this.#looking;
    while (this.#sending.size > 0) await Promise.all(this.#sending);
    clearTimeout(patience);
  }

  /** Throws `invalid_request` or `unsupported_field` where a run cannot have this webhook. */
  assertAccepted(url: string): void {
    const { enabled } = this.#options.config;
    const message = enabled
      ? this.#policy.refusal(url)
      : "webhooks are switched off on this server (http.disable_webhooks)";
    if (message === undefined) return;
    throw new ServerError(
      enabled ? "invalid_request" : "unsupported_field",
      `webhook: ${message}`,
      { details: [{ path: "webhook", message }] },
    );
  }

  /** Looks for what is due now. */
  poke(): void {
    if (this.#timer === undefined) return;
    if (this.#looking) {
      this.#lookAgain = true;
      return;
    }
    this.#looking = this.#look()
      .catch((error: unknown) =>
        this.#options.log[gravityOf(error, "error")]({ err: error }, "webhooks"),
      )
      .finally(() => {
        this.#looking = undefined;
        if (!this.#lookAgain) return;
        this.#lookAgain = false;
        this.poke();
      });
  }

  /** How many this process has delivered and given up since it started. */
  done(): { delivered: number; failed: number } {
    return { delivered: this.#delivered, failed: this.#failed };
  }

  async #look(): Promise<void> {
    const free = CONCURRENCY - this.#sending.size;
    if (free <= 0) return;
    const taken = await this.#options.webhooks.claim(free, CLAIM_MS);
    for (const webhook of taken) {
      const sending = this.#deliver(webhook)
        .catch((error: unknown) =>
          this.#options.log[gravityOf(error, "error")]({ err: error }, "webhooks"),
        )
        .finally(() => {
          this.#sending.delete(sending);
          this.poke();
        });
      this.#sending.add(sending);
    }
  }

  async #deliver(taken: TakenWebhook): Promise<void> {
    const { webhooks, log } = this.#options;
    const begun = performance.now();
    let answer: WebhookAnswer | undefined;
    let failure: Error | undefined;
    try {
      answer = await this.#send(taken);
    } catch (error) {
      if (this.#closing.signal.aborted) return webhooks.release(taken);
      failure = error instanceof Error ? error : new Error(String(error));
    }
    const error = failure
      ? toReason(failure, this.#options.timeoutMs)
      : toComplaint(answer!.status);
    const outcome = toOutcome(taken, answer, failure);
    const attempt = {
      at: taken.now.toISOString(),
      status_code: answer?.status ?? null,
      error,
      duration_ms: Math.round(performance.now() - begun),
    };
    if (!(await webhooks.record(taken, attempt, outcome))) return;
    const about = {
      run_id: taken.run.run_id,
      webhook_id: taken.webhook_id,
      attempt: taken.attempts + 1,
    };
    if (outcome.status === "delivered") this.#delivered += 1;
    if (outcome.status === "waiting") {
      log.debug({ ...about, error }, "a webhook will be sent again");
    } else if (outcome.status === "failed") {
      this.#failed += 1;
      log.warn({ ...about, error }, "a webhook was given up");
    }
  }

  async #send(taken: TakenWebhook): Promise<WebhookAnswer> {
    const { serialise, loopback, timeoutMs } = this.#options;
    const { url } = taken;
    // The configuration may have changed since the run was accepted.
    const refusal = this.#policy.refusal(url);
    if (refusal !== undefined) throw new AddressRefused(refusal);
    const body = serialise(this.#toBody(taken));
    const headers = this.#toHeaders(taken, body);
    const timeout = AbortSignal.timeout(timeoutMs);
    const signal = AbortSignal.any([timeout, this.#closing.signal]);
    if (url.startsWith("/")) {
      const request = new Request(`http://localhost${url}`, { method: "POST", headers, body });
      const response = await abortable(loopback(request), signal);
      await response.body?.cancel();
      return { status: response.status, retryAfterMs: undefined };
    }
    const allows = (address: string): boolean => this.#policy.allows(address);
    return postWebhook(new URL(url), { headers, body, allows, signal });
  }

  /** The run as the API shows it, and what a wait for it would have answered. */
  #toBody({ run, now }: TakenWebhook): object {
    return {
      ...this.#options.show(run),
      run_started_at: run.started_at,
      run_ended_at: run.ended_at,
      webhook_sent_at: now,
      values: run.output,
      ...(run.error && { error: run.error.message, error_type: run.error.error }),
    };
  }

  /** Those of the Standard Webhooks specification, over the configured ones. */
  #toHeaders(taken: TakenWebhook, body: string): Record<string, string> {
    const { config, secret, userAgent } = this.#options;
    const id = taken.webhook_id;
    const timestamp = String(Math.floor(taken.now.getTime() / 1_000));
    return {
      ...Object.fromEntries(
        Object.entries(config.headers).map(([name, value]) => [name.toLowerCase(), value]),
      ),
      "content-type": "application/json",
      "user-agent": userAgent,
      "webhook-id": id,
      "webhook-timestamp": timestamp,
      "webhook-signature": signWebhook(`${id}.${timestamp}.${body}`, secret),
    };
  }
}

/** The `webhook-signature` of a message. A secret that begins with `whsec_` is base64, another one is its text. */
export function signWebhook(message: string, secret: string): string {
  const [, encoded] = /^whsec_(.+)$/.exec(secret) ?? [];
  const key = encoded === undefined ? Buffer.from(secret) : Buffer.from(encoded, "base64");
  return `v1,${createHmac("sha256", key).update(message).digest("base64")}`;
}

function toOutcome(
  taken: TakenWebhook,
  answer: WebhookAnswer | undefined,
  failure: Error | undefined,
): WebhookOutcome {
  const status = answer?.status ?? 0;
  if (status >= 200 && status < 300) return { status: "delivered" };
  const delay = DELAYS_MS[taken.attempts];
  // 410: the receiver is gone for good.
  if (delay === undefined || status === 410 || failure instanceof AddressRefused) {
    return { status: "failed" };
  }
  const jittered = delay * (1 - JITTER + 2 * JITTER * Math.random());
  const wished = Math.min(answer?.retryAfterMs ?? 0, DELAYS_MS.at(-1)!);
  return { status: "waiting", delayMs: Math.max(jittered, wished) };
}

function toComplaint(status: number): string | null {
  if (status >= 200 && status < 300) return null;
  if (status >= 300 && status < 400) return `answered ${status}; redirects are not followed`;
  return `answered ${status}`;
}

function toReason(failure: Error, timeoutMs: number): string {
  if (failure.name === "TimeoutError" || failure.name === "AbortError") {
    return `no answer within ${timeoutMs / 1_000} seconds`;
  }
  return failure.message || ("code" in failure ? String(failure.code) : failure.name);
}

function abortable<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true });
    promise.then(resolve, reject);
  });
}
