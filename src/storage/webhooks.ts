import type { WebhookAttempt, WebhookDelivery } from "../protocol/webhooks.ts";
import type { Queryable } from "./database.ts";
import { toJson } from "./json.ts";
import type { RunRecord } from "./run-record.ts";

/** A webhook that a process has taken to deliver it. */
export interface TakenWebhook {
  webhook_id: string;
  url: string;
  /** The run as it ended. */
  run: RunRecord;
  /** How many attempts there were. */
  attempts: number;
  /** Proves that it is still taken by this process. */
  claim: string;
  /** The database's time. */
  now: Date;
}

/** How an attempt leaves a webhook. */
export type WebhookOutcome =
  | { status: "delivered" | "failed" }
  | { status: "waiting"; delayMs: number };

export interface WebhookCounts {
  waiting: number;
  /** How long the oldest of them has been waiting; 0 if there is none. */
  oldest_seconds: number;
}

/** Webhooks in the database. They are written where runs end, in `run-queue.ts`. */
export interface WebhookRepository {
  /** The webhooks of a run. */
  ofRun(runId: string): Promise<WebhookDelivery[]>;
  /** Takes up to `limit` webhooks that are due, for `forMs`; after that others may take them. */
  claim(limit: number, forMs: number): Promise<TakenWebhook[]>;
  /** Notes an attempt and what follows from it; false if the webhook is not this process's any more. */
  record(taken: TakenWebhook, attempt: WebhookAttempt, outcome: WebhookOutcome): Promise<boolean>;
  /** Gives a taken webhook back, as if it had not been tried. */
  release(taken: TakenWebhook): Promise<void>;
  counts(): Promise<WebhookCounts>;
  /** Deletes up to `limit` of those that ended before now minus `olderThanMs`. */
  sweep(olderThanMs: number, limit: number): Promise<number>;
}

export function createWebhookRepository(database: Queryable): WebhookRepository {
  return {
    async ofRun(runId) {
      const { rows } = await database.query<WebhookDelivery>(
        `SELECT webhook_id, run_id, thread_id, url, status, attempts, next_attempt_at, created_at, ended_at
         FROM webhook_deliveries WHERE run_id = $1 ORDER BY created_at`,
        [runId],
      );
      return rows;
    },

    async claim(limit, forMs) {
      const { rows } = await database.query<TakenWebhook>(
        `UPDATE webhook_deliveries SET next_attempt_at = now() + $2::float8 * interval '1 millisecond'
         WHERE webhook_id IN (
           SELECT webhook_id FROM webhook_deliveries
           WHERE status = 'waiting' AND next_attempt_at <= now()
           ORDER BY next_attempt_at LIMIT $1 FOR UPDATE SKIP LOCKED)
         RETURNING webhook_id, url, run, jsonb_array_length(attempts) AS attempts,
           next_attempt_at::text AS claim, now() AS now`,
        [limit, forMs],
      );
      return rows.map((row) => ({ ...row, run: withDates(row.run) }));
    },

    async record(taken, attempt, outcome) {
      const { rowCount } = await database.query(
        `UPDATE webhook_deliveries SET status = $3, attempts = attempts || $4::jsonb,
           next_attempt_at = CASE WHEN $3 = 'waiting' THEN now() + $5::float8 * interval '1 millisecond' END,
           run = CASE WHEN $3 = 'waiting' THEN run END,
           ended_at = CASE WHEN $3 = 'waiting' THEN NULL ELSE now() END
         WHERE webhook_id = $1 AND status = 'waiting' AND next_attempt_at = $2::timestamptz`,
        [
          taken.webhook_id,
          taken.claim,
          outcome.status,
          toJson([attempt]),
          outcome.status === "waiting" ? outcome.delayMs : 0,
        ],
      );
      return rowCount > 0;
    },

    async release(taken) {
      await database.query(
        `UPDATE webhook_deliveries SET next_attempt_at = now()
         WHERE webhook_id = $1 AND status = 'waiting' AND next_attempt_at = $2::timestamptz`,
        [taken.webhook_id, taken.claim],
      );
    },

    async counts() {
      const { rows } = await database.query<WebhookCounts>(
        `SELECT count(*)::int AS waiting,
           coalesce(extract(epoch FROM now() - min(created_at)), 0)::float8 AS oldest_seconds
         FROM webhook_deliveries WHERE status = 'waiting'`,
      );
      return rows[0]!;
    },

    async sweep(olderThanMs, limit) {
      const { rowCount } = await database.query(
        `DELETE FROM webhook_deliveries WHERE webhook_id IN (
           SELECT webhook_id FROM webhook_deliveries
           WHERE ended_at < now() - $1::float8 * interval '1 millisecond'
           LIMIT $2 FOR UPDATE SKIP LOCKED)`,
        [olderThanMs, limit],
      );
      return rowCount;
    },
  };
}

/** A row that was kept as JSON, with its times as times again. */
function withDates(run: RunRecord): RunRecord {
  const date = (value: Date | null): Date | null => (value === null ? null : new Date(value));
  return {
    ...run,
    created_at: new Date(run.created_at),
    updated_at: new Date(run.updated_at),
    started_at: date(run.started_at),
    ended_at: date(run.ended_at),
  };
}
