import type { Queryable } from "./database.ts";

/** A span or a score that waits in the database. */
export interface OutboxRow {
  record_id: string;
  /** 32 hex digits. */
  trace_id: string;
  root: boolean;
  /** Of a root that counts only if its run ended with this attempt. */
  attempt: number | undefined;
  bytes: Buffer;
  /** Milliseconds since 1970, when it was taken in. */
  time: number;
}

/** What waits in one queue. */
interface OutboxAmount {
  queue: string;
  records: number;
  bytes: number;
  /** Milliseconds since the oldest was taken in. */
  oldest_ms: number;
}

/** What waits in one queue in nobody's hands, and beside it what senders hold. */
export interface OutboxLevel extends OutboxAmount {
  held_bytes: number;
  held_oldest_ms: number;
}

/** What a queue may hold. */
export interface OutboxBounds {
  maxBytes: number;
  maxAgeMs: number;
  /** Trace ids that stay, whatever else is true of them. */
  except: readonly string[];
  /** Trace ids that go in any case. */
  overdue: readonly string[];
}

/** A trace that had to go. */
export interface TrimmedTrace {
  /** 32 hex digits. */
  trace_id: string;
  /** For its age, and not for want of room. */
  old: boolean;
  /** Its rows that were in nobody's hands. */
  records: number;
}

/** What is in the table of one queue, whoever holds it. */
export interface OutboxReport extends OutboxAmount {
  /** In the hands of processes that live. */
  held: number;
  dead_letters: number;
}

/** A record a target will not take. */
export interface OutboxDeadLetter {
  record_id: string;
  queue: string;
  trace_id: string;
  bytes: number;
  buried_at: Date;
  answer: string;
}

/**
 * Traces and scores that wait in the database. Rows belong to a sender as long as its lease lasts; those without one
 * are anybody's.
 */
export interface TraceOutbox {
  /** Writes rows, in the sender's hands or in nobody's. Writing one again changes nothing. */
  add(queue: string, rows: readonly OutboxRow[], senderId: string | undefined): Promise<void>;
  /**
   * Takes rows that are nobody's, oldest first, up to a number and a size. Leaves roots whose run has not ended, and
   * those whose trace another process is sending.
   */
  claim(
    queue: string,
    senderId: string,
    limit: { maxRecords: number; maxBytes: number },
  ): Promise<OutboxRow[]>;
  /** Forgets rows that are where they belong. */
  remove(recordIds: readonly string[]): Promise<void>;
  /** Prolongs a sender's lease; false if it had none, and its rows may be another's. */
  renew(senderId: string, leaseMs: number): Promise<boolean>;
  /** Gives up a sender's rows. */
  leave(senderId: string): Promise<void>;
  /** Frees the rows of senders whose lease ran out, or of all others. */
  recover(senderId: string, everything: boolean): Promise<void>;
  /** Drops roots in nobody's hands that another attempt of their run tells. */
  dropSuperseded(): Promise<void>;
  /** What waits, by queue. */
  levels(): Promise<OutboxLevel[]>;
  /**
   * Drops the oldest whole traces of a queue until it keeps to its bounds: those in nobody's hands, and the sender's
   * own.
   */
  trim(queue: string, senderId: string, bounds: OutboxBounds): Promise<TrimmedTrace[]>;
  /** Keeps a row a target will not take; false if there are too many. */
  bury(queue: string, row: OutboxRow, letter: { answer: string; most: number }): Promise<boolean>;
  report(): Promise<OutboxReport[]>;
  /** Who holds how many rows, and until when; nobody has neither an id nor a lease. */
  holders(): Promise<{ sender_id: string | null; lease: string | null; records: number }[]>;
  deadLetters(): Promise<OutboxDeadLetter[]>;
  /** Puts the dead letters back among what waits; gives their number. */
  replay(): Promise<number>;
  /** The trace ids of those roots that a later attempt of their run tells, or will. */
  superseded(roots: readonly { traceId: string; attempt: number }[]): Promise<ReadonlySet<string>>;
}

/** Rows larger than this go one by one, as binary: a list is text, and twice as long. */
const ALONE_BYTES = 256 * 1_024;

export function createTraceOutbox(database: Queryable): TraceOutbox {
  return {
    async add(queue, rows, senderId) {
      const small = rows.filter(({ bytes }) => bytes.length <= ALONE_BYTES);
      if (small.length > 0) {
        await database.query(ADD, [
          queue,
          senderId ?? null,
          small.map((row) => row.record_id),
          small.map((row) => row.trace_id),
          small.map((row) => row.root),
          small.map((row) => row.attempt ?? null),
          small.map((row) => row.bytes),
        ]);
      }
      for (const row of rows) {
        if (row.bytes.length <= ALONE_BYTES) continue;
        const { record_id: id, trace_id: traceId, root, attempt, bytes } = row;
        await database.query(ADD_ONE, [
          queue,
          senderId ?? null,
          id,
          traceId,
          root,
          attempt ?? null,
          bytes,
        ]);
      }
    },

    async claim(queue, senderId, { maxRecords, maxBytes }) {
      const { rows } = await database.query<ClaimedRow>(CLAIM, [
        queue,
        senderId,
        maxRecords,
        maxBytes,
      ]);
      return rows
        .map(({ age_ms: ageMs, trace_id: traceId, attempt, ...row }) => ({
          ...row,
          trace_id: traceId.replaceAll("-", ""),
          attempt: attempt ?? undefined,
          time: Date.now() - ageMs,
        }))
        .toSorted((a, b) => (a.record_id < b.record_id ? -1 : 1));
    },

    async remove(recordIds) {
      await database.query("DELETE FROM trace_outbox WHERE record_id = ANY($1::uuid[])", [
        recordIds,
      ]);
    },

    async renew(senderId, leaseMs) {
      const { rows } = await database.query<{ fresh: boolean }>(
        `INSERT INTO trace_senders (sender_id, lease_expires_at)
         VALUES ($1, now() + $2::float8 * interval '1 millisecond')
         ON CONFLICT (sender_id) DO UPDATE SET lease_expires_at = excluded.lease_expires_at
         RETURNING xmax = 0 AS fresh`,
        [senderId, leaseMs],
      );
      return rows[0]?.fresh === false;
    },

    async leave(senderId) {
      await database.query(
        `WITH gone AS (DELETE FROM trace_senders WHERE sender_id = $1)
         UPDATE trace_outbox SET sender_id = NULL WHERE sender_id = $1`,
        [senderId],
      );
    },

    async recover(senderId, everything) {
      await database.query(
        "DELETE FROM trace_senders WHERE sender_id <> $1 AND ($2 OR lease_expires_at < now())",
        [senderId, everything],
      );
      await database.query(
        `UPDATE trace_outbox o SET sender_id = NULL
         WHERE sender_id IS NOT NULL
           AND NOT EXISTS (SELECT 1 FROM trace_senders s WHERE s.sender_id = o.sender_id)`,
      );
    },

    async dropSuperseded() {
      await database.query(
        `DELETE FROM trace_outbox o USING runs r
         WHERE o.sender_id IS NULL AND o.attempt IS NOT NULL AND r.run_id = o.trace_id
           AND (r.attempt > o.attempt OR r.status = 'pending')`,
      );
    },

    async levels() {
      // Apart, so that each has its index: much may wait in nobody's hands, while what is held is bounded.
      const { rows } = await database.query<OutboxLevel>(
        `SELECT coalesce(w.queue, h.queue) AS queue, coalesce(w.records, 0) AS records, coalesce(w.bytes, 0) AS bytes,
           coalesce(w.oldest_ms, 0) AS oldest_ms, coalesce(h.bytes, 0) AS held_bytes, coalesce(h.oldest_ms, 0) AS held_oldest_ms
         FROM (SELECT queue, count(*)::int AS records, sum(size)::float8 AS bytes, ${AGE("min(taken_in_at)")} AS oldest_ms
               FROM trace_outbox WHERE sender_id IS NULL GROUP BY queue) w
         FULL JOIN (SELECT queue, sum(size)::float8 AS bytes, ${AGE("min(taken_in_at)")} AS oldest_ms
                    FROM trace_outbox WHERE sender_id IS NOT NULL GROUP BY queue) h ON h.queue = w.queue`,
      );
      return rows;
    },

    async trim(queue, senderId, { maxBytes, maxAgeMs, except, overdue }) {
      const { rows } = await database.query<TrimmedTrace>(TRIM, [
        queue,
        maxBytes,
        maxAgeMs,
        senderId,
        except,
        overdue,
      ]);
      return rows.map((row) => ({ ...row, trace_id: row.trace_id.replaceAll("-", "") }));
    },

    async bury(queue, row, { answer, most }) {
      const { rowCount } = await database.query(
        `INSERT INTO trace_dead_letters (record_id, queue, trace_id, root, bytes, taken_in_at, answer)
         SELECT $1::uuid, $2::text, $3::uuid, $4::boolean, $5::bytea,
           now() - $6::float8 * interval '1 millisecond', $7::text
         WHERE (SELECT count(*) FROM trace_dead_letters) < $8::int
         ON CONFLICT (record_id) DO UPDATE SET answer = excluded.answer`,
        [
          row.record_id,
          queue,
          row.trace_id,
          row.root,
          row.bytes,
          Math.max(0, Date.now() - row.time),
          answer,
          most,
        ],
      );
      return rowCount > 0;
    },

    async report() {
      const { rows } = await database.query<OutboxReport>(
        `SELECT coalesce(w.queue, d.queue) AS queue, coalesce(w.records, 0) AS records, coalesce(w.bytes, 0) AS bytes,
           coalesce(w.oldest_ms, 0) AS oldest_ms, coalesce(w.held, 0) AS held, coalesce(d.letters, 0) AS dead_letters
         FROM (SELECT queue, count(*)::int AS records, sum(size)::float8 AS bytes,
                 ${AGE("min(taken_in_at)")} AS oldest_ms, count(s.sender_id)::int AS held
               FROM trace_outbox o
               LEFT JOIN trace_senders s ON s.sender_id = o.sender_id AND s.lease_expires_at > now()
               GROUP BY queue) w
         FULL JOIN (SELECT queue, count(*)::int AS letters FROM trace_dead_letters GROUP BY queue) d
           ON d.queue = w.queue
         ORDER BY 1`,
      );
      return rows;
    },

    async holders() {
      const { rows } = await database.query<{
        sender_id: string | null;
        lease: string | null;
        records: number;
      }>(
        `SELECT o.sender_id, s.lease_expires_at::text AS lease, count(*)::int AS records
         FROM trace_outbox o LEFT JOIN trace_senders s ON s.sender_id = o.sender_id GROUP BY 1, 2`,
      );
      return rows;
    },

    async deadLetters() {
      const { rows } = await database.query<OutboxDeadLetter>(
        `SELECT record_id, queue, replace(trace_id::text, '-', '') AS trace_id, length(bytes) AS bytes, buried_at, answer
         FROM trace_dead_letters ORDER BY buried_at, record_id`,
      );
      return rows;
    },

    async replay() {
      const { rowCount } = await database.query(
        `WITH letters AS (DELETE FROM trace_dead_letters RETURNING *)
         INSERT INTO trace_outbox (record_id, queue, trace_id, root, bytes, size)
         SELECT record_id, queue, trace_id, root, bytes, length(bytes) FROM letters
         ON CONFLICT (record_id) DO NOTHING`,
      );
      return rowCount;
    },

    async superseded(roots) {
      const { rows } = await database.query<{ run_id: string }>(
        `SELECT r.run_id FROM unnest($1::uuid[], $2::int[]) AS root (run_id, attempt)
         JOIN runs r ON r.run_id = root.run_id
         WHERE r.attempt > root.attempt OR r.status IN ('pending', 'running')`,
        [roots.map(({ traceId }) => traceId), roots.map(({ attempt }) => attempt)],
      );
      return new Set(rows.map((row) => row.run_id.replaceAll("-", "")));
    },
  };
}

interface ClaimedRow extends Omit<OutboxRow, "time" | "attempt"> {
  attempt: number | null;
  age_ms: number;
}

const AGE = (time: string): string =>
  `greatest(0, extract(epoch FROM now() - ${time}) * 1000)::float8`;

// A sender that has no lease writes rows that are nobody's.
const SENDER = "(SELECT s.sender_id FROM trace_senders s WHERE s.sender_id = $2::uuid)";

const ADD = `
  INSERT INTO trace_outbox (record_id, queue, trace_id, root, attempt, bytes, size, sender_id)
  SELECT r.record_id, $1::text, r.trace_id, r.root, r.attempt, r.bytes, length(r.bytes), ${SENDER}
  FROM unnest($3::uuid[], $4::uuid[], $5::boolean[], $6::smallint[], $7::bytea[])
    AS r (record_id, trace_id, root, attempt, bytes)
  ON CONFLICT (record_id) DO NOTHING`;

const ADD_ONE = `
  INSERT INTO trace_outbox (record_id, queue, trace_id, root, attempt, bytes, size, sender_id)
  VALUES ($3::uuid, $1::text, $4::uuid, $5::boolean, $6::smallint, $7::bytea, length($7::bytea), ${SENDER})
  ON CONFLICT (record_id) DO NOTHING`;

const CLAIM = `
  WITH next AS (
    SELECT o.record_id, o.size FROM trace_outbox o
    WHERE o.queue = $1 AND o.sender_id IS NULL
      AND (o.attempt IS NULL OR NOT EXISTS (
        SELECT 1 FROM runs r WHERE r.run_id = o.trace_id
          AND (r.attempt > o.attempt OR r.status IN ('pending', 'running'))))
      AND NOT (o.root AND EXISTS (
        SELECT 1 FROM trace_outbox c WHERE c.trace_id = o.trace_id AND c.queue = o.queue
          AND c.sender_id IS NOT NULL AND c.sender_id <> $2))
    ORDER BY o.record_id LIMIT $3 FOR UPDATE OF o SKIP LOCKED
  ), sums AS (
    SELECT record_id, sum(size) OVER (ORDER BY record_id) - size AS before FROM next
  )
  UPDATE trace_outbox o SET sender_id = $2 FROM sums
  WHERE o.record_id = sums.record_id AND sums.before < $4::bigint
  RETURNING o.record_id, o.trace_id, o.root, o.attempt, o.bytes, ${AGE("o.taken_in_at")} AS age_ms`;

// Half a trace helps nobody: one of which a part is in another sender's hands is left whole.
const TRIM = `
  WITH traces AS (
    SELECT trace_id, sum(size) AS bytes, min(taken_in_at) AS first,
      bool_or(sender_id IS NOT NULL AND sender_id <> $4::uuid) AS shared
    FROM trace_outbox WHERE queue = $1 GROUP BY trace_id
  ), ranked AS (
    SELECT trace_id, shared, sum(bytes) OVER (ORDER BY first DESC, trace_id) > $2::float8 AS beyond,
      trace_id = ANY($6::uuid[]) OR first < now() - $3::float8 * interval '1 millisecond' AS old
    FROM traces
  ), gone AS (
    DELETE FROM trace_outbox o USING ranked v
    WHERE o.queue = $1 AND (o.sender_id IS NULL OR o.sender_id = $4::uuid) AND o.trace_id = v.trace_id
      AND (v.old OR v.beyond) AND NOT v.shared AND v.trace_id <> ALL($5::uuid[])
    RETURNING o.trace_id, o.sender_id, v.old
  )
  SELECT trace_id, old, count(*) FILTER (WHERE sender_id IS NULL)::int AS records FROM gone GROUP BY trace_id, old`;
