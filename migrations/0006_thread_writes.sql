-- Who writes a thread's state by hand, and until when nobody else may: a run that is created meanwhile waits.
-- The last writer stays, so that a thread with checkpoints but without a run is known.
ALTER TABLE threads ADD COLUMN writer uuid;
ALTER TABLE threads ADD COLUMN writing_until timestamptz;

-- The questions a run went past without an answer: those its thread was waiting with when it began.
ALTER TABLE runs ADD COLUMN dropped_interrupts jsonb;

-- A request that is sent again with the same key gets the run of the first.
ALTER TABLE runs ADD COLUMN idempotency_key text;
ALTER TABLE runs ADD COLUMN idempotency_hash text;
CREATE UNIQUE INDEX runs_idempotency ON runs (coalesce(user_id, ''), idempotency_key)
  WHERE idempotency_key IS NOT NULL;
