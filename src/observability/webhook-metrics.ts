import { Counter, Gauge, type Registry } from "prom-client";

/** What is told of webhooks. There is no number of those that wait while the database does not answer. */
export interface WebhookNumbers {
  waiting?: number;
  oldest_seconds?: number;
  delivered: number;
  failed: number;
}

/** The numbers of webhooks, read once at every scrape. */
export function addWebhookMetrics(
  registers: Registry[],
  read: () => Promise<WebhookNumbers>,
): void {
  const numbers = [
    {
      name: "aegra_webhooks_waiting",
      help: "Webhooks to be sent, in the whole deployment.",
      Kind: Gauge,
      key: "waiting",
    },
    {
      name: "aegra_webhook_oldest_waiting_seconds",
      help: "Age of the oldest webhook that is to be sent.",
      Kind: Gauge,
      key: "oldest_seconds",
    },
    {
      name: "aegra_webhooks_delivered_total",
      help: "Webhooks this process has delivered.",
      Kind: Counter,
      key: "delivered",
    },
    {
      name: "aegra_webhooks_failed_total",
      help: "Webhooks this process has given up.",
      Kind: Counter,
      key: "failed",
    },
  ] as const;
  let reading: Promise<WebhookNumbers> | undefined;
  for (const { name, help, Kind, key } of numbers) {
    void new Kind({
      name,
      help,
      registers,
      async collect() {
        // One look at the database for all of them.
        reading ??= read().finally(() => {
          reading = undefined;
        });
        const value = (await reading)[key];
        if (value === undefined) return this.remove();
        this.reset();
        this.inc(value);
      },
    });
  }
}
