-- Where traces and scores wait for their target when `tracing.spool` is "database". A row is a span or a score,
-- encoded and masked as it will be sent. Rows are written by the process that made them, which sends them too;
-- rows without a sender are anybody's.
CREATE TABLE trace_outbox (
  -- Given by the writer and rising with time, so that writing a row again changes nothing.
  record_id uuid PRIMARY KEY,
  -- Target and stream, such as `langfuse/spans`.
  queue text NOT NULL,
  trace_id uuid NOT NULL,
  root boolean NOT NULL,
  -- Of a root that counts only if its run (whose id is the trace's) ended with this attempt.
  attempt smallint,
  bytes bytea NOT NULL,
  size integer NOT NULL,
  sender_id uuid,
  taken_in_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX trace_outbox_waiting ON trace_outbox (queue, record_id) INCLUDE (size, taken_in_at)
  WHERE sender_id IS NULL;
CREATE INDEX trace_outbox_roots ON trace_outbox (trace_id) WHERE sender_id IS NULL AND attempt IS NOT NULL;
CREATE INDEX trace_outbox_held ON trace_outbox (trace_id) WHERE sender_id IS NOT NULL;

-- Processes that send, with the lease under which they hold their rows.
CREATE TABLE trace_senders (
  sender_id uuid PRIMARY KEY,
  lease_expires_at timestamptz NOT NULL
);

-- What a target will not take, and what it said.
CREATE TABLE trace_dead_letters (
  record_id uuid PRIMARY KEY,
  queue text NOT NULL,
  trace_id uuid NOT NULL,
  root boolean NOT NULL,
  bytes bytea NOT NULL,
  taken_in_at timestamptz NOT NULL,
  buried_at timestamptz NOT NULL DEFAULT now(),
  answer text NOT NULL
);
