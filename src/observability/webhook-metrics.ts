import { Counter, type Registry } from "prom-client";
import { addQueueMetrics, type QueueDepth } from "./queue-metrics.ts";

/** What is told of webhooks. */
export interface WebhookNumbers {
  /** What waits, in the whole deployment. */
  depth: () => Promise<QueueDepth>;
  /** What this process did. */
  done: () => { delivered: number; failed: number };
}

/** The numbers of webhooks. */
export function addWebhookMetrics(registers: Registry[], { depth, done }: WebhookNumbers): void {
  addQueueMetrics(registers, depth, {
    waiting: {
      name: "aegra_webhooks_waiting",
      help: "Webhooks to be sent, in the whole deployment.",
    },
    oldest_seconds: {
      name: "aegra_webhook_oldest_waiting_seconds",
      help: "Age of the oldest webhook that is to be sent.",
    },
  });
  const counters = [
    {
      name: "aegra_webhooks_delivered_total",
      help: "Webhooks this process has delivered.",
      key: "delivered",
    },
    {
      name: "aegra_webhooks_failed_total",
      help: "Webhooks this process has given up.",
      key: "failed",
    },
  ] as const;
  for (const { name, help, key } of counters) {
    void new Counter({
      name,
      help,
      registers,
      collect() {
        this.reset();
        this.inc(done()[key]);
      },
    });
  }
}
