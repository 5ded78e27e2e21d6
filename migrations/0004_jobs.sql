-- Crons. `next_run_date` is the truth about what is due: whoever moves it on has fired the cron.
CREATE TABLE crons (
  cron_id uuid PRIMARY KEY,
  assistant_id uuid NOT NULL REFERENCES assistants ON DELETE CASCADE,
  -- NULL: each run has a thread of its own, or none.
  thread_id uuid REFERENCES threads ON DELETE CASCADE,
  schedule text NOT NULL,
  -- A name of the IANA database; NULL is UTC.
  timezone text,
  enabled boolean NOT NULL DEFAULT true,
  end_time timestamptz,
  on_run_completed text CHECK (on_run_completed IN ('delete', 'keep')),
  -- The fields of the runs it makes, as the client sent them.
  payload json NOT NULL,
  metadata jsonb NOT NULL DEFAULT '{}',
  user_id text,
  -- Who made it, as the authentication handler said, and how the server was reached: what its runs carry.
  origin json NOT NULL DEFAULT '{}',
  -- NULL: it will not fire again as it is.
  next_run_date timestamptz,
  -- Until when the process that took a due cron has it for itself, so that processes share the due ones.
  claimed_until timestamptz,
  created_at timestamptz NOT NULL DEFAULT now(),
  updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX crons_due ON crons (next_run_date) WHERE enabled AND next_run_date IS NOT NULL;
CREATE INDEX crons_assistant ON crons (assistant_id);
CREATE INDEX crons_thread ON crons (thread_id) WHERE thread_id IS NOT NULL;
CREATE INDEX crons_metadata ON crons USING gin (metadata jsonb_path_ops);

-- What receivers are to be told: written by the statement that ends the run, sent by any process.
CREATE TABLE webhook_deliveries (
  -- Also the id under which the receiver gets it, however often.
  webhook_id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
  run_id uuid NOT NULL,
  thread_id uuid NOT NULL,
  url text NOT NULL,
  status text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'delivered', 'failed')),
  -- The run's row as it ended. Kept while it is to be sent: the run itself may be deleted before.
  run json,
  -- What became of each attempt, oldest first.
  attempts jsonb NOT NULL DEFAULT '[]',
  -- When it is due, or when the process that has taken it must be done.
  next_attempt_at timestamptz DEFAULT now(),
  created_at timestamptz NOT NULL DEFAULT now(),
  ended_at timestamptz
);
CREATE INDEX webhook_deliveries_due ON webhook_deliveries (next_attempt_at) WHERE status = 'waiting';
CREATE INDEX webhook_deliveries_run ON webhook_deliveries (run_id);
CREATE INDEX webhook_deliveries_ended ON webhook_deliveries (ended_at) WHERE ended_at IS NOT NULL;

-- How long a thread is kept after its last use, which is `updated_at`, and what then goes: all of it, or its
-- history. NULL: for ever.
ALTER TABLE threads ADD COLUMN ttl_minutes double precision CHECK (ttl_minutes > 0);
ALTER TABLE threads ADD COLUMN ttl_strategy text NOT NULL DEFAULT 'delete'
  CHECK (ttl_strategy IN ('delete', 'keep_latest'));
-- When its history went; until it is used again there is nothing more to do.
ALTER TABLE threads ADD COLUMN pruned_at timestamptz;
CREATE INDEX threads_ttl ON threads (updated_at)
  WHERE ttl_minutes IS NOT NULL AND (pruned_at IS NULL OR pruned_at < updated_at);
